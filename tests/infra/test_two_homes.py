"""Two people, each with a home of their own, on one MLflow: a database, and a server."""

import json
import os

import pytest
from tests.evidence import give_verdict, ledger_events

from ratchet.agent.candidate import Candidate, Predictor
from ratchet.agent.errors import BadInput, RatchetError
from ratchet.evaluation.gate.gate import Pair, decide
from ratchet.infra.mlflow_client import connect
from ratchet.infra.registry import alias_moves
from ratchet.infra.registry.alias_moves import current_aliases
from ratchet.infra.registry.event_log import LedgerEvent, append, now
from ratchet.infra.registry.gate_cases import spent_cases
from ratchet.infra.registry.ledger import close_ledger_test, open_ledger_test
from ratchet.infra.registry.registry import champion, promote, register, roll_back, version_history
from ratchet.infra.registry.version import find_version
from ratchet.infra.review.queue import ReviewItem
from ratchet.infra.review.rounds import ask_in_round, end_round, read_round

BETTER = decide(
    [Pair(case_id=str(n), champion=0.0, challenger=float(n % 10 > 0)) for n in range(100)], alpha=0.001
)


@pytest.fixture(params=["database", pytest.param("server", marks=pytest.mark.server)])
def shared(request, project_name, mlflow_home, monkeypatch):
    """A project on an MLflow that several homes share."""
    uri = f"sqlite:///{mlflow_home}/mlflow.db"
    if request.param == "server":
        uri = request.getfixturevalue("mlflow_server")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return project_name


@pytest.fixture
def at_home(tmp_path, monkeypatch):
    """Go to another person's home."""

    def go(name):
        monkeypatch.setenv("RATCHET_HOME", str(tmp_path / name))

    return go


def candidate(name):
    return Candidate(predictors={"act": Predictor(instructions=name)}, base_model="smollm2")


def registered(project, name):
    return register(project, candidate(name), files={}, seen_case_ids=[], cost={}).candidate_id


def served(project, name):
    made = registered(project, name)
    promote(project, made, approved_by="anna", reason="first")
    return made


def _at_once(home, project, act, argument, start, answers):
    os.environ["RATCHET_HOME"] = home
    connect(project)
    start.wait()
    try:
        answers.put((home, act(project, argument)))
    except RatchetError as error:
        answers.put((home, f"{type(error).__name__}: {error}"))


def at_once(spawn, tmp_path, project, act, arguments):
    """What each home got from doing it at the same moment."""
    connect(project)
    start, answers = spawn.Barrier(len(arguments)), spawn.Queue()
    homes = [str(tmp_path / f"home{n}") for n in range(len(arguments))]
    racers = [
        spawn.Process(target=_at_once, args=(home, project, act, argument, start, answers))
        for home, argument in zip(homes, arguments, strict=True)
    ]
    for racer in racers:
        racer.start()
    got = dict(answers.get(timeout=200) for _ in racers)
    for racer in racers:
        racer.join(timeout=30)
    return [got[home] for home in homes]


def approve(project, candidate_id):
    return promote(project, candidate_id, approved_by="anna", reason="proven").candidate_id


def test_a_candidate_that_two_homes_register_at_once_is_one_version(shared, spawn, tmp_path, at_home):
    at_home("anna")
    one, other = at_once(spawn, tmp_path, shared, registered, ["same", "same"])
    assert one == other
    (version,) = version_history(shared)
    assert connect(shared).client.get_run(version.run_id).info.lifecycle_stage == "active"
    assert connect(shared).client.get_logged_model(version.model_id).model_id == version.model_id
    assert len(connect(shared).client.search_prompt_versions(f"{shared}-act")) == 1
    assert registered(shared, "same") == one
    assert len(connect(shared).client.search_model_versions(f"name = '{shared}'")) == 1


def test_a_double_that_a_killed_home_left_is_nobodys_version(project, mlflow_home):
    made, next_one = registered(project, "same"), registered(project, "next")
    client = connect(project).client
    first = find_version(connect(project), made)
    tags = {"candidate_id": made}
    client.create_model_version(project, f"models:/{first.model_id}", first.run_id, tags)
    assert [version.number for version in version_history(project)] == [1, 2]
    assert [version.candidate_id for version in version_history(project)] == [made, next_one]
    assert approve(project, made) == made
    assert current_aliases(connect(project)) == {"champion": 1}


def test_of_two_homes_that_promote_at_once_one_is_refused(shared, spawn, tmp_path, at_home):
    at_home("anna")
    first = served(shared, "first")
    ids = [registered(shared, name) for name in ("second", "third")]
    for one in ids:
        give_verdict(shared, one, first, BETTER)
    got = at_once(spawn, tmp_path, shared, approve, ids)
    won = [one for one in got if one in ids]
    assert len(won) == 1, got
    (lost,) = [one for one in got if one not in ids]
    assert f"compared with {first}, but {won[0]} serves now" in lost
    assert champion(shared).candidate_id == won[0]
    assert [(event.action, event.other) for event in version_history(shared)[0].events] == [
        ("promoted", None),
        ("replaced", won[0]),
    ]


@pytest.fixture
def killed_elsewhere(project, at_home, monkeypatch, mlflow_home):
    """Another home claimed its turn, moved half of the aliases and was killed."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{mlflow_home}/mlflow.db")
    at_home("anna")
    first, second = served(project, "first"), registered(project, "second")
    give_verdict(project, second, first, BETTER)
    connection = connect(project)
    claims = [place for place, e in enumerate(ledger_events(project), 1) if e.kind == "claim"]
    event = LedgerEvent(kind="claim", at=now(), candidate=second, home="ben's", after_claim=claims[-1])
    append(connection, event)
    before = {"aliases": {"previous": None, "champion": 1}, "tags": {"2": {"events": None}}}
    connection.client.set_registered_model_tag(project, "unfinished_move", json.dumps(before))
    connection.client.set_registered_model_alias(project, "champion", "2")
    return second


def test_a_move_that_a_killed_home_left_is_put_back_after_a_while(project, killed_elsewhere, monkeypatch):
    monkeypatch.setattr(alias_moves, "PATIENCE_S", 0.5)
    with pytest.raises(BadInput, match="no earlier champion"):
        roll_back(project, by="anna", reason="test")
    assert current_aliases(connect(project)) == {"champion": 1}
    assert approve(project, killed_elsewhere) == killed_elsewhere


def test_a_home_that_stood_still_too_long_does_not_move_the_champion(project, at_home, monkeypatch):
    first, second = served(project, "first"), registered(project, "second")
    give_verdict(project, second, first, BETTER)
    real = alias_moves.point

    def stand_still(connection, alias, number):
        if alias == "previous":  # meanwhile another home waited, counted this one as dead, and put it back
            monkeypatch.setattr(alias_moves, "point", real)
            place = max(n for n, e in enumerate(ledger_events(project), 1) if e.kind == "claim")
            alias_moves._undo(connection, place)
        real(connection, alias, number)

    monkeypatch.setattr(alias_moves, "point", stand_still)
    with pytest.raises(RatchetError, match="another home put it back; repeat"):
        approve(project, second)
    assert champion(project).candidate_id == first
    assert approve(project, second) == second


def test_a_case_that_chose_a_champion_never_judges_again_in_another_home(shared, at_home):
    at_home("anna")
    first, second = served(shared, "first"), registered(shared, "second")
    open_ledger_test(shared, second, champion=first)
    close_ledger_test(
        shared, second, champion=first, decision="promote", e_value=1e6, cases=["case 1", "case 2"]
    )
    at_home("ben")
    assert spent_cases(shared) == {"case 1", "case 2"}


def test_a_second_home_asks_people_nothing_of_its_own(shared, at_home):
    at_home("anna")
    seen = read_round(shared)
    ask_in_round(shared, seen, [ReviewItem(trace_id="a", propensity=0.5, reason="new")])
    at_home("ben")
    late = ask_in_round(shared, seen, [ReviewItem(trace_id="b", propensity=0.5, reason="new")])
    assert [pick.trace_id for pick in late.picks] == ["a"]
    end_round(shared)
    at_home("anna")
    assert (read_round(shared).number, read_round(shared).picks) == (2, ())


def remove_champion(project):
    connect(project).client.delete_registered_model_alias(project, "champion")


def test_without_a_champion_nothing_is_promoted_and_rollback_restores_who_served_last(project):
    first, second, third = (registered(project, name) for name in ("first", "second", "third"))
    approve(project, first)
    give_verdict(project, second, first, BETTER)
    approve(project, second)
    remove_champion(project)
    for one in (first, third, second):
        with pytest.raises(BadInput, match=f"versions but no champion.*rollback.* puts {second} back"):
            approve(project, one)
    assert roll_back(project, by="anna", reason="the alias was lost").candidate_id == second
    assert current_aliases(connect(project)) == {"champion": 2, "previous": 1}
    assert version_history(project)[1].events[-1].action == "restored"
    assert roll_back(project, by="anna", reason="worse").candidate_id == first


def test_where_all_that_served_was_deleted_nothing_takes_its_place(project):
    first = served(project, "first")
    child = candidate("second").model_copy(update={"parent": first})
    second = register(project, child, files={}, seen_case_ids=[], cost={}).candidate_id
    connect(project).client.delete_model_version(project, "1")
    with pytest.raises(BadInput, match="no longer registered: restore the database"):
        approve(project, second)
    with pytest.raises(BadInput, match="no earlier champion"):
        roll_back(project, by="anna", reason="test")
