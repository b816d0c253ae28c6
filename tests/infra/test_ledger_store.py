import math
import os
from datetime import UTC, datetime
from functools import partial

import pytest
from tests.evidence import ledger_events

from ratchet.agent.errors import BadInput, CorruptRecord
from ratchet.evaluation.gate.ledger import Ledger, open_test
from ratchet.infra.mlflow_client import connect
from ratchet.infra.registry import ledger as store
from ratchet.infra.registry.event_log import HEAD, LedgerEvent, now
from ratchet.infra.registry.gate_cases import spent_cases
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
    assert alphas(pure) == pytest.approx([0.03, 0.006, 0.0028])


def test_opening_again_goes_on_with_the_open_test_and_spends_nothing(project):
    first = open_ledger_test(project, "a", champion="x")
    assert open_ledger_test(project, "a", champion="x") == first
    assert len(read_ledger(project).entries) == 1


def test_a_closed_test_keeps_its_verdict_and_gives_back_what_its_evidence_is_worth(project):
    entry = open_ledger_test(project, "a", champion="x")
    closed = close_ledger_test(project, "a", champion="x", decision="reject", e_value=0.5, reason="worse")
    assert (closed.decision, closed.e_value, closed.alpha_k) == ("reject", 0.5, entry.alpha_k)
    assert read_ledger(project).reserve == pytest.approx(0.035)
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
    assert read_ledger(project).entries[0].returned == 0


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


def test_closing_again_with_the_same_result_changes_nothing_and_another_test_is_not_ended_by_it(project):
    entry = open_ledger_test(project, "a", champion="x")
    close = partial(
        close_ledger_test, project, "a", champion="x", decision="continue", opened_at=entry.opened_at
    )
    first = close(e_value=0.5, by="anna")
    assert close(e_value=0.5) == first
    assert [event.by for event in ledger_events(project)] == ["", "", "anna"]
    open_ledger_test(project, "a", champion="x")
    assert close(e_value=0.5) == first
    with pytest.raises(BadInput, match="is closed; the open one began"):
        close(e_value=0.9, cases=["a case"])
    assert "a case" not in spent_cases(project)
    ledger = read_ledger(project)
    assert [e.decision for e in ledger.entries] == ["continue", None]
    assert ledger.reserve == pytest.approx(0.035 - ledger.entries[1].alpha_k)


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


def test_a_log_from_before_the_reserve_keeps_its_shares_and_goes_on_with_what_they_left(project):
    connection = connect(project)
    fields = {"gives_back", "opened_at"}
    for event in (
        LedgerEvent(kind="begin", at=now(), alpha=0.05, spending="family-wise"),
        LedgerEvent(kind="open", at=now(), candidate="a", champion="x"),
        LedgerEvent(kind="close", at=now(), candidate="a", champion="x", decision="continue", e_value=0.9),
        LedgerEvent(kind="open", at=now(), candidate="b", champion="x"),
    ):
        append_event(connection, "ledger", event.model_dump_json(exclude=fields), about="")
    old = [6 * 0.05 / (math.pi * k) ** 2 for k in (1, 2)]
    assert alphas(read_ledger(project)) == old
    third = open_ledger_test(project, "c", champion="x")
    assert (third.k, third.alpha_k) == (3, pytest.approx(0.2 * (0.05 - sum(old))))
    close_ledger_test(project, "b", champion="x", decision="reject", e_value=0.9)
    close_ledger_test(project, "c", champion="x", decision="reject", e_value=0.5)
    ledger = read_ledger(project)
    assert alphas(ledger)[:2] == old
    assert [e.returned for e in ledger.entries] == [0, 0, pytest.approx(third.alpha_k / 2)]


def _race(home, project, names, e_value, opened_at, start, done):
    """Open own tests, and close the one that both homes have open by what this one knows of it."""
    os.environ["RATCHET_HOME"] = home
    connect(project)
    start.wait()
    places = {name: open_ledger_test(project, name, champion="x").k for name in names}
    try:
        close_ledger_test(
            project, "both", champion="x", decision="continue", e_value=e_value, opened_at=opened_at
        )
    except BadInput:
        e_value = None
    done.put((places, e_value))


def test_two_homes_at_once_take_different_shares_and_one_alone_gives_a_share_back(
    project, mlflow_home, spawn
):
    both = open_ledger_test(project, "both", champion="x")
    start, done = spawn.Barrier(2), spawn.Queue()
    names = [[f"{who}{n}" for n in range(4)] for who in "ab"]
    racers = [
        spawn.Process(
            target=_race, args=(str(mlflow_home), project, own, e_value, both.opened_at, start, done)
        )
        for own, e_value in zip(names, (0.25, 0.75), strict=True)
    ]
    for racer in racers:
        racer.start()
    (first, e_first), (second, e_second) = done.get(timeout=120), done.get(timeout=120)
    for racer in racers:
        racer.join(timeout=30)
    places = {"both": 1} | first | second
    assert sorted(places.values()) == list(range(1, 10))
    ledger = read_ledger(project)
    assert {entry.candidate: entry.k for entry in ledger.entries} == places
    (closed_by,) = {e_first, e_second} - {None}
    assert ledger.entries[0].returned == pytest.approx(closed_by * both.alpha_k)
    assert ledger.spent == pytest.approx(sum(alphas(ledger)) - closed_by * both.alpha_k)
    reserve = 0.05 - both.alpha_k
    for entry in ledger.entries[1:]:  # each share follows from the log alone, wherever the closing came
        given = max(0.1, 0.6 / entry.k) * reserve
        if entry.alpha_k != pytest.approx(given):
            reserve += closed_by * both.alpha_k
            given = max(0.1, 0.6 / entry.k) * reserve
        assert entry.alpha_k == pytest.approx(given)
        reserve -= entry.alpha_k


@pytest.mark.parametrize("lost", ["the begin", "the open", "the close"])
def test_a_kill_between_two_events_takes_and_gives_back_no_share_twice(project, monkeypatch, lost):
    """The run dies right after an event was written, and the next one does the same again."""
    kill_at = {"the begin": 1, "the open": 2, "the close": 3}[lost]
    write, written = store.append, []

    def dying(connection, event):
        place = write(connection, event)
        written.append(place)
        if len(written) == kill_at:
            raise KeyboardInterrupt
        return place

    def run():
        entry = open_ledger_test(project, "a", champion="x")
        close_ledger_test(
            project, "a", champion="x", decision="continue", e_value=0.5, opened_at=entry.opened_at
        )

    monkeypatch.setattr(store, "append", dying)
    with pytest.raises(KeyboardInterrupt):
        run()
    if lost == "the close":  # what a run does that finds the verdict in its stored test
        entry = read_ledger(project).entries[0]
        close_ledger_test(
            project, "a", champion="x", decision="continue", e_value=0.5, opened_at=entry.opened_at
        )
    else:
        run()
    ledger = read_ledger(project)
    assert (len(ledger.entries), ledger.reserve) == (1, pytest.approx(0.035))
