import pytest

from agent.candidate import Candidate, Predictor
from agent.errors import BadInput, CorruptRecord
from infra.event_log import LedgerEvent, in_portions
from infra.gate_cases import read_open_test, spend_cases, spent_cases, write_open_test
from infra.ledger_store import close_ledger_test, ledger_events, open_ledger_test, read_ledger
from infra.project_state import project_folder, read_state, update_state
from infra.registry import register
from infra.tracking import connect


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


def test_spent_cases_are_the_same_in_every_home(project, one_database, at_home):
    at_home("anna")
    spend_cases(project, "c0ffee", ["b", "a"])
    at_home("ben")
    assert spent_cases(project) == {"a", "b"}
    spend_cases(project, "c0ffee", ["b", "c"])
    at_home("anna")
    assert spent_cases(project) == {"a", "b", "c"}
    assert [event.cases for event in ledger_events(project)] == [("a", "b"), ("c",)]


def test_a_closed_test_has_spent_its_cases_by_the_same_event(project):
    open_ledger_test(project, "c0ffee", champion="x")
    assert spent_cases(project) == frozenset()
    close_ledger_test(project, "c0ffee", champion="x", decision="reject", e_value=0.1, cases=["a", "b", "a"])
    assert spent_cases(project) == {"a", "b"}
    assert [event.kind for event in ledger_events(project)] == ["begin", "open", "close"]


def test_deleting_the_state_of_a_home_gives_no_case_back(project):
    spend_cases(project, "c0ffee", ["a"])
    update_state(project, n_watched=1)
    (project_folder(project) / "state.json").unlink()
    assert spent_cases(project) == {"a"}


def test_cases_that_an_older_version_kept_in_a_home_are_carried_over_once(project, one_database, at_home):
    spend_cases(project, "c0ffee", ["b"])
    for home in ("anna", "ben"):
        at_home(home)
        update_state(project, spent_gate_cases=("a", "b"))
        assert spent_cases(project) == {"a", "b"}
        assert read_state(project).spent_gate_cases == ()
    assert [event.cases for event in ledger_events(project)] == [("b",), ("a",)]


def test_spent_cases_cost_no_share_of_the_budget(project):
    spend_cases(project, "c0ffee", ["a"])
    assert read_ledger(project).entries == ()
    assert open_ledger_test(project, "c0ffee", champion="x", alpha=0.1).k == 1
    assert read_ledger(project).alpha == 0.1


def test_more_cases_than_one_event_holds_are_spent_in_portions(project):
    many = [f"{n:016x}" for n in range(4500)]
    open_ledger_test(project, "c0ffee", champion="x")
    close_ledger_test(project, "c0ffee", champion="x", decision="reject", e_value=0.1, cases=many)
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
    (kept,) = (connect(project).settings.home / "cache" / "runs").rglob("open_test/*.json")
    kept.write_text('{"order": ["a", "b"]}')
    with pytest.raises(CorruptRecord, match="not the test that was stored"):
        read_open_test(project, challenger)


def test_a_test_of_a_stranger_is_refused(project):
    with pytest.raises(BadInput, match="is not registered"):
        write_open_test(project, "c0ffee", "{}")
