import math
import os
from datetime import UTC, datetime

import pytest
from tests.evidence import ledger_events

from ratchet.agent.errors import BadInput, CorruptRecord
from ratchet.evaluation.gate.ledger import Ledger, open_test
from ratchet.infra.mlflow_client import connect
from ratchet.infra.registry.event_log import HEAD, LedgerEvent, now
from ratchet.infra.registry.ledger import (
    close_ledger_test,
    grant_budget,
    open_ledger_test,
    read_ledger,
)
from ratchet.infra.registry.log import append_event


def alphas(ledger):
    return [entry.alpha_k for entry in ledger.entries]


def test_a_project_without_tests_has_spent_nothing(project):
    assert read_ledger(project, alpha=0.1).entries == ()
    assert read_ledger(project, alpha=0.1).alpha == 0.1


def test_shares_are_those_of_the_pure_ledger(project):
    pure = Ledger()
    for candidate in ("a", "b", "c"):
        open_ledger_test(project, candidate, champion="x", judge="j")
        pure = open_test(pure, candidate=candidate, now=datetime.now(UTC))
    assert alphas(read_ledger(project)) == alphas(pure)
    assert alphas(pure) == pytest.approx([6 * 0.05 / (math.pi * k) ** 2 for k in (1, 2, 3)])


def test_opening_again_goes_on_with_the_open_test_and_spends_nothing(project):
    first = open_ledger_test(project, "a", champion="x")
    assert open_ledger_test(project, "a", champion="x") == first
    assert len(read_ledger(project).entries) == 1


def test_a_closed_test_keeps_its_verdict_and_its_share(project):
    entry = open_ledger_test(project, "a", champion="x")
    closed = close_ledger_test(project, "a", champion="x", decision="reject", e_value=0.5, reason="worse")
    assert (closed.decision, closed.e_value, closed.alpha_k) == ("reject", 0.5, entry.alpha_k)
    assert open_ledger_test(project, "a", champion="x").k == 2
    assert [event.kind for event in ledger_events(project)] == ["begin", "open", "close", "open"]


def test_a_promotion_below_its_threshold_is_refused_and_the_test_stays_open(project):
    open_ledger_test(project, "a", champion="x")
    with pytest.raises(BadInput, match="e = 20 < "):
        close_ledger_test(project, "a", champion="x", decision="promote", e_value=20)
    assert read_ledger(project).entries[0].decision is None
    close_ledger_test(project, "a", champion="x", decision="promote", e_value=1e9)


def test_closing_what_is_not_open_is_refused(project):
    with pytest.raises(BadInput, match="no open test"):
        close_ledger_test(project, "a", champion="x", decision="reject", e_value=0.1)


def test_alpha_and_spending_are_fixed_by_the_first_test(project):
    open_ledger_test(project, "a", champion="x", alpha=0.1, spending="e-LOND")
    open_ledger_test(project, "b", champion="x", alpha=0.9)
    ledger = read_ledger(project)
    assert (ledger.alpha, ledger.spending) == (0.1, "e-LOND")


def test_with_e_lond_a_promotion_buys_power(project):
    open_ledger_test(project, "a", champion="x", spending="e-LOND")
    close_ledger_test(project, "a", champion="x", decision="promote", e_value=1e9)
    assert open_ledger_test(project, "b", champion="x").alpha_k == pytest.approx(
        2 * 6 * 0.05 / (2 * math.pi) ** 2
    )


def test_a_person_grants_a_new_budget_with_a_reason(project):
    open_ledger_test(project, "a", champion="x")
    with pytest.raises(BadInput, match="a name and a reason"):
        grant_budget(project, granted_by="anna", because="")
    assert grant_budget(project, granted_by="anna", because="new product").budget == 2
    assert open_ledger_test(project, "b", champion="x").k == 1


def test_a_test_against_a_former_champion_is_given_up_and_a_new_share_is_spent(project):
    open_ledger_test(project, "a", champion="x")
    entry = open_ledger_test(project, "a", champion="y")
    assert (entry.champion, entry.k) == ("y", 2)
    assert [(e.champion, e.decision) for e in read_ledger(project).entries] == [
        ("x", "continue"),
        ("y", None),
    ]
    with pytest.raises(BadInput, match="has its open test against 'y', not 'x'"):
        close_ledger_test(project, "a", champion="x", decision="promote", e_value=1e9)


def test_closing_again_with_the_same_result_changes_nothing(project):
    open_ledger_test(project, "a", champion="x")
    first = close_ledger_test(project, "a", champion="x", decision="reject", e_value=0.5)
    assert close_ledger_test(project, "a", champion="x", decision="reject", e_value=0.5) == first
    assert len(ledger_events(project)) == 3


def delete(project, *places):
    for place in places:
        connect(project).client.delete_model_version(f"{project}-ledger", str(place))


@pytest.mark.parametrize(
    ("places", "said"),
    [
        ((2,), "version 2 was deleted"),
        ((3,), "1 of 3 events are missing, the newest"),
        ((2, 3), "2 of 3"),
        ((1, 2, 3), "3 of 3"),
    ],
)
def test_deleted_history_is_refused(project, places, said):
    open_ledger_test(project, "a", champion="x")
    open_ledger_test(project, "b", champion="x")
    delete(project, *places)
    for act in (read_ledger, lambda project: open_ledger_test(project, "c", champion="x")):
        with pytest.raises(CorruptRecord, match=said):
            act(project)


def test_a_deleted_log_is_refused(project):
    open_ledger_test(project, "a", champion="x")
    connect(project).client.delete_registered_model(f"{project}-ledger")
    with pytest.raises(CorruptRecord, match="2 of 2 events are missing"):
        read_ledger(project)


def test_a_changed_event_is_refused(project):
    open_ledger_test(project, "a", champion="x")
    event = ledger_events(project)[1].model_copy(update={"candidate": "b"})
    connect(project).client.set_model_version_tag(f"{project}-ledger", "2", "event", event.to_json())
    with pytest.raises(CorruptRecord, match="was rewritten"):
        read_ledger(project)


def set_head(project, text):
    connection = connect(project)
    connection.client.set_experiment_tag(connection.experiment_id, HEAD, text)


def head(project):
    connection = connect(project)
    return connection.client.get_experiment(connection.experiment_id).tags[HEAD]


def test_a_head_that_a_kill_left_behind_is_mended_by_the_next_event(project):
    open_ledger_test(project, "a", champion="x")
    before = head(project)
    open_ledger_test(project, "b", champion="x")
    after = head(project)
    set_head(project, before)  # as if killed between the event and its head
    assert len(read_ledger(project).entries) == 2
    close_ledger_test(project, "a", champion="x", decision="reject", e_value=0.1)
    assert [int(text.split(":")[0]) for text in (before, after, head(project))] == [2, 3, 4]
    delete(project, 4)
    with pytest.raises(CorruptRecord, match="missing"):
        read_ledger(project)


def test_a_log_that_was_written_anew_is_refused_even_without_its_head(project):
    for candidate in "abc":
        open_ledger_test(project, candidate, champion="x")
    connection, events = connect(project), ledger_events(project)
    connection.client.delete_registered_model(f"{project}-ledger")
    events[1] = events[1].model_copy(update={"candidate": "z"})
    for event in events:
        append_event(connection, "ledger", event.to_json(), about="")
    for head_says in (head(project), "0:"):
        set_head(project, head_says)
        with pytest.raises(CorruptRecord, match="event 3 does not follow"):
            read_ledger(project)


def test_a_log_from_before_the_chain_is_read_and_goes_on(project):
    client = connect(project).client
    client.create_registered_model(f"{project}-ledger")
    for event in (
        LedgerEvent(kind="begin", at=now(), alpha=0.1, spending="e-LOND"),
        LedgerEvent(kind="open", at=now(), candidate="a", champion="x"),
    ):
        text = event.model_dump_json(exclude={"after", "before", "cases"})
        client.create_model_version(
            f"{project}-ledger", source="ratchet-ledger:///event", tags={"event": text}
        )
    assert [(e.candidate, e.champion) for e in read_ledger(project).entries] == [("a", "x")]
    open_ledger_test(project, "b", champion="x")
    delete(project, 3)
    with pytest.raises(CorruptRecord, match="1 of 3"):
        read_ledger(project)


def _open_many(home, project, names, start, spent):
    os.environ["RATCHET_HOME"] = home
    connect(project)
    start.wait()
    spent.put({name: open_ledger_test(project, name, champion="x").k for name in names})


def test_two_processes_that_open_at_once_get_different_shares(project, mlflow_home, spawn):
    connect(project)
    start, spent = spawn.Barrier(2), spawn.Queue()
    names = [[f"{who}{n}" for n in range(4)] for who in "ab"]
    racers = [
        spawn.Process(target=_open_many, args=(str(mlflow_home), project, own, start, spent)) for own in names
    ]
    for racer in racers:
        racer.start()
    places = spent.get(timeout=120) | spent.get(timeout=120)
    for racer in racers:
        racer.join(timeout=30)
    assert sorted(places.values()) == list(range(1, 9))
    assert {entry.candidate: entry.k for entry in read_ledger(project).entries} == places
