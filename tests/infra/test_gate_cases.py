import pytest
from tests.evidence import ledger_events

from ratchet.agent.candidate import Candidate, Predictor
from ratchet.agent.errors import BadInput, CorruptRecord
from ratchet.infra.mlflow_client import connect
from ratchet.infra.registry.event_log import LedgerEvent, in_portions
from ratchet.infra.registry.gate_cases import read_open_test, spent_cases, write_open_test
from ratchet.infra.registry.ledger import close_ledger_test, open_ledger_test
from ratchet.infra.registry.registry import register
from ratchet.infra.store.project_state import project_folder, read_state, update_state


@pytest.fixture
def one_database(mlflow_home, monkeypatch):
    """Homes that share one MLflow: what a team has."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{mlflow_home}/mlflow.db")


@pytest.fixture
def at_home(tmp_path, monkeypatch):
    """Go to another person's home."""

    def go(name):
        monkeypatch.setenv("RATCHET_HOME", str(tmp_path / name))

    return go


def spend(project, candidate_id, cases):
    open_ledger_test(project, candidate_id, champion="x")
    close_ledger_test(project, candidate_id, champion="x", decision="reject", e_value=0.1, cases=cases)


def test_spent_cases_are_the_same_in_every_home(project, one_database, at_home):
    at_home("anna")
    spend(project, "c0ffee", ["b", "a"])
    at_home("ben")
    assert spent_cases(project) == {"a", "b"}
    spend(project, "decaf", ["c"])
    at_home("anna")
    assert spent_cases(project) == {"a", "b", "c"}


def test_a_closed_test_has_spent_its_cases_by_the_same_event(project):
    assert spent_cases(project) == frozenset()
    spend(project, "c0ffee", ["a", "b", "a"])
    assert spent_cases(project) == {"a", "b"}
    assert [event.kind for event in ledger_events(project)] == ["begin", "open", "close"]


def test_deleting_the_state_of_a_home_gives_no_case_back(project):
    spend(project, "c0ffee", ["a"])
    update_state(project, traces=None)
    (project_folder(project) / "state.json").unlink()
    assert spent_cases(project) == {"a"}


def test_cases_that_an_older_version_kept_in_a_home_are_carried_over_once(project, one_database, at_home):
    spend(project, "c0ffee", ["b"])
    for home in ("anna", "ben"):
        at_home(home)
        update_state(project, spent_gate_cases=("a", "b"))
        assert spent_cases(project) == {"a", "b"}
        assert read_state(project).spent_gate_cases == ()
    assert [event.cases for event in ledger_events(project) if event.cases] == [("b",), ("a",)]


def test_more_cases_than_one_event_holds_are_spent_in_portions(project):
    many = [f"{n:016x}" for n in range(4500)]
    spend(project, "c0ffee", many)
    assert spent_cases(project) == set(many)
    assert [len(event.cases) for event in ledger_events(project)] == [0, 0, 2000, 2000, 500]
    full = LedgerEvent.model_validate(
        {"kind": "close", "at": ledger_events(project)[0].at, "cases": many[:2000]}
    )
    assert len(full.to_json()) + 2000 < 100_000, "room for the verdict's sentence in MLflow's tag"
    assert in_portions([]) == []


@pytest.fixture
def challenger(project):
    candidate = Candidate(predictors={"act": Predictor(instructions="Pick.")}, base_model="smollm2")
    register(project, candidate, files={}, seen_case_ids=[], cost={})
    return candidate.candidate_id


def test_a_test_that_was_killed_goes_on_in_another_home(project, one_database, at_home, challenger):
    at_home("anna")
    assert read_open_test(project, challenger) is None
    write_open_test(project, challenger, '{"order": ["b", "a"]}')
    at_home("ben")
    assert read_open_test(project, challenger) == '{"order": ["b", "a"]}'
    write_open_test(project, challenger, '{"order": ["b", "a", "ü"]}')
    at_home("anna")
    assert read_open_test(project, challenger) == '{"order": ["b", "a", "ü"]}'
    write_open_test(project, challenger, "")
    assert read_open_test(project, challenger) is None


def test_an_open_test_that_is_not_what_was_stored_is_refused(project, challenger):
    write_open_test(project, challenger, '{"order": ["b", "a"]}')
    read_open_test(project, challenger)
    all_kept = (connect(project).settings.home / "cache" / "runs").rglob("open_test/*.json")
    kept = max(all_kept, key=lambda path: path.stat().st_mtime_ns)
    kept.write_text('{"order": ["a", "b"]}')
    with pytest.raises(CorruptRecord, match="not the open test that was stored"):
        read_open_test(project, challenger)


def test_a_test_of_a_stranger_is_refused(project):
    with pytest.raises(BadInput, match="is not registered"):
        write_open_test(project, "c0ffee", "{}")
