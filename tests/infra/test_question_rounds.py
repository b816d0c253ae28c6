import pytest
from tests.evidence import ledger_events

from ratchet.infra.mlflow_client import connect
from ratchet.infra.registry.event_log import LedgerEvent, append, now
from ratchet.infra.review.queue import ReviewItem
from ratchet.infra.review.rounds import ask_in_round, end_round, read_round
from ratchet.infra.store.project_state import project_folder, read_state, update_state


def picks(*names):
    return [ReviewItem(trace_id=name, propensity=0.5, reason="new") for name in names]


def asked(project):
    return {pick.trace_id for pick in read_round(project).picks}


@pytest.fixture
def at_home(tmp_path, mlflow_home, monkeypatch):
    """Go to another person's home; all share one MLflow."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{mlflow_home}/mlflow.db")

    def go(name):
        monkeypatch.setenv("RATCHET_HOME", str(tmp_path / name))

    return go


def test_a_second_home_asks_nothing_of_its_own_while_a_round_is_open(project, at_home):
    at_home("anna")
    seen = read_round(project)
    ask_in_round(project, seen, picks("a", "b"))
    at_home("ben")
    assert asked(project) == {"a", "b"}
    assert {p.trace_id for p in ask_in_round(project, seen, picks("c")).picks} == {"a", "b"}, "anna was first"
    end_round(project)
    at_home("anna")
    assert asked(project) == set()
    ask_in_round(project, read_round(project), picks("d"))
    assert asked(project) == {"d"}


def test_deleting_the_state_of_a_home_asks_nobody_again(project):
    ask_in_round(project, read_round(project), picks("a"), episode=2)
    update_state(project, traces=None)
    (project_folder(project) / "state.json").unlink()
    assert (asked(project), read_round(project).episode) == ({"a"}, 2)


def test_an_episode_widens_the_round_once_from_whatever_home(project, at_home):
    at_home("anna")
    ask_in_round(project, read_round(project), picks("a"))
    seen = read_round(project)
    ask_in_round(project, seen, picks("b"), episode=1)
    at_home("ben")
    ask_in_round(project, seen, picks("c"), episode=1)
    assert asked(project) == {"a", "b"}
    end_round(project)
    assert read_round(project).episode == 1, "the next round is not widened by the same episode"


def test_an_end_that_two_homes_write_ends_one_round(project):
    ask_in_round(project, read_round(project), picks("a"))
    for _ in range(2):
        append(connect(project), LedgerEvent(kind="round", at=now(), round=1))
    assert read_round(project).number == 2


def test_ending_a_round_without_questions_writes_nothing(project):
    end_round(project)
    assert ledger_events(project) == []


def test_what_an_older_version_kept_in_a_home_is_carried_over_once(project):
    update_state(project, asked=("a", "b"), asked_about_episode=3)
    assert (asked(project), read_round(project).episode) == ({"a", "b"}, 3)
    assert (read_state(project).asked, read_state(project).asked_about_episode) == ((), 0)
    end_round(project)
    assert asked(project) == set()


def test_more_questions_than_one_event_holds_are_one_round(project):
    many = [f"trace {n:030}" for n in range(450)]
    long = [ReviewItem(trace_id=name, propensity=0.123456789, reason="x" * 4000) for name in many]
    ask_in_round(project, read_round(project), long)
    assert asked(project) == set(many)
    assert max(len(event.to_json()) for event in ledger_events(project)) < 100_000
