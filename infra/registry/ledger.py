"""The error budget in MLflow: the log's tests and grants, replayed to read it.

Logs from before the reserve: their tests replay by the rule under which they were opened (shares 6α/(π²k²), nothing
given back), for their events lack the mark; the first test with it goes on with what they left of α, and with their
count of tests. A version of Ratchet that does not know the mark refuses the log from there on.

Why replay: what a place in the log is worth (α_k) follows from the log alone, the same for every reader; an event
that the rules refuse spends nothing. A test's cases are spent by the event that closes it, so that no kill can
come between its verdict and that.
"""

from collections.abc import Sequence
from typing import Final

from pydantic import AwareDatetime

from ratchet.agent.errors import BadInput
from ratchet.evaluation.gate.ledger import (
    Entry,
    Ledger,
    Spending,
    close_test,
    last_test,
    open_entry,
    open_test,
    refresh,
)
from ratchet.evaluation.gate.verdict import VerdictKind
from ratchet.infra.mlflow_client import Connection, connect, mlflow_errors
from ratchet.infra.registry.event_log import LedgerEvent, Log, append, in_portions, now, read_log

_RULED: Final = {"open", "close", "refresh"}


def read_ledger(project: str, *, alpha: float = 0.05, spending: Spending = "family-wise") -> Ledger:
    """The ledger as it stands; `alpha` and `spending` count only until its first test.

    Raises:
        CorruptRecord: an event is missing or cannot be read: what was spent is not known.
    """
    with mlflow_errors("reading the ledger"):
        log = read_log(connect(project))
    return _replay(log, _empty(alpha, spending))[0]


def open_ledger_test(
    project: str,
    candidate: str,
    *,
    champion: str,
    judge: str = "",
    alpha: float = 0.05,
    spending: Spending = "family-wise",
) -> Entry:
    """Take the next share for a test of `candidate` against `champion`, or go on with the one that is open.

    One that is open against another champion is given up first: its bets say nothing about this one.

    Raises:
        BadInput: the budget is exhausted.
    """
    with mlflow_errors(f"opening a test of {candidate}"):
        connection = connect(project)
        before, _ = _replay(read_log(connection), _empty(alpha, spending))
        running = _running(before, candidate)
        if running is not None and running.champion == champion:
            return running
        if running is not None:
            gone = "given up: the champion changed"
            append(connection, _closing(running, "continue", 0.0, gone))
        if not before.entries:
            append(connection, LedgerEvent(kind="begin", at=now(), alpha=alpha, spending=spending))
        event = LedgerEvent(
            kind="open", at=now(), candidate=candidate, champion=champion, judge=judge, gives_back=True
        )
        place = append(connection, event)
        after, refused = _replay(read_log(connection).up_to(place), _empty(alpha, spending))
        entry = _running(after, candidate)  # if another run was first, its test is this one's, too
        if entry is None or entry.champion != champion:
            raise refused[place]
        return entry


def _running(ledger: Ledger, candidate: str) -> Entry | None:
    return next((e for e in ledger.entries if e.candidate == candidate and e.decision is None), None)


def _closing(
    entry: Entry, decision: VerdictKind, e_value: float, reason: str, cases: Sequence[str] = (), by: str = ""
) -> LedgerEvent:
    return LedgerEvent(
        kind="close",
        at=now(),
        candidate=entry.candidate,
        champion=entry.champion,
        opened_at=entry.opened_at,
        by=by,
        decision=decision,
        e_value=min(e_value, 1e300),
        reason=reason[:2000],
        cases=tuple(cases),
    )


def close_ledger_test(
    project: str,
    candidate: str,
    *,
    champion: str,
    decision: VerdictKind,
    e_value: float,
    reason: str = "",
    cases: Sequence[str] = (),
    opened_at: AwareDatetime | None = None,
    by: str = "",
) -> Entry:
    """Write how the open test of `candidate` against `champion` ended: its cases are spent, and part of its share is
    given back.

    Closing it again with the same result changes nothing: an answer that was lost may be asked for again.

    Args:
        project: its name.
        candidate: the challenger.
        champion: what it was tested against.
        decision: `continue` closes it without a verdict.
        e_value: its evidence now, every question that was asked and has no answer counted as a loss.
        reason: a sentence for people.
        cases: that it used, and that can never judge again.
        opened_at: of the test that is meant; left out: the open one. Where another run closed it meanwhile and opened
            the next, that one must not be ended by this one's evidence.
        by: the person who closes it; empty = its evidence does.

    Raises:
        BadInput: that test is not open, or a promotion's evidence is below its threshold.
    """
    with mlflow_errors(f"closing the test of {candidate}"):
        connection = connect(project)
        before = ledger_of(read_log(connection))
        ended = last_test(before, candidate, champion, opened_at)
        if ended is not None and (ended.decision, ended.e_value) == (decision, min(e_value, 1e300)):
            return ended
        meant = open_entry(before, candidate)
        if opened_at is not None:
            meant = meant.model_copy(update={"opened_at": opened_at})
        event = _closing(meant.model_copy(update={"champion": champion}), decision, e_value, reason, (), by)
        _apply(before, event)  # what would be refused must spend no case
        *first, last = in_portions(sorted(set(cases))) or [()]
        for portion in first:
            append(connection, LedgerEvent(kind="spend", at=now(), candidate=candidate, cases=portion))
        after = _append_and_replay(connection, event.model_copy(update={"cases": last}))
    entry = last_test(after, candidate, champion, meant.opened_at)
    assert entry is not None, "the event was accepted"
    return entry


def grant_budget(project: str, *, granted_by: str, because: str) -> Ledger:
    """Start a new error budget in a person's name: from then on the promise is per budget."""
    if not granted_by.strip() or not because.strip():
        raise BadInput(
            f"granted by {granted_by!r} because {because!r}: a new budget needs a name and a reason"
        )
    with mlflow_errors("granting a new budget"):
        connection = connect(project)
        return _append_and_replay(
            connection, LedgerEvent(kind="refresh", at=now(), by=granted_by, reason=because)
        )


def ledger_of(log: Log) -> Ledger:
    """The error budget as the log tells it."""
    return _replay(log, Ledger())[0]


def _empty(alpha: float, spending: Spending) -> Ledger:
    return Ledger(alpha=alpha, spending=spending)


def _append_and_replay(connection: Connection, event: LedgerEvent) -> Ledger:
    """The ledger right after `event`; what others appended later is not its business."""
    place = append(connection, event)
    ledger, refused = _replay(read_log(connection).up_to(place), Ledger())
    if place in refused:
        raise refused[place]
    return ledger


def _replay(log: Log, ledger: Ledger) -> tuple[Ledger, dict[int, BadInput]]:
    """The ledger after the events, and those that the rules refused, by place."""
    refused: dict[int, BadInput] = {}
    begun = False
    for place, event in enumerate(log.events, start=1):
        if event.kind == "begin":
            if not begun and event.alpha is not None and event.spending is not None:
                ledger = Ledger(alpha=event.alpha, spending=event.spending)
            begun = True
        if event.kind not in _RULED:
            continue
        try:
            ledger = _apply(ledger, event)
        except BadInput as error:
            refused[place] = error
    return ledger, refused


def _apply(ledger: Ledger, event: LedgerEvent) -> Ledger:
    if event.kind == "open":
        return open_test(
            ledger,
            candidate=event.candidate,
            champion=event.champion,
            now=event.at,
            gives_back=event.gives_back,
        )
    if event.kind == "refresh":
        return refresh(ledger, granted_by=event.by, because=event.reason, now=event.at)
    if event.decision is None or event.e_value is None:
        raise BadInput(f"closing {event.candidate}: decision and e-value are missing")
    return close_test(
        ledger,
        candidate=event.candidate,
        champion=event.champion,
        decision=event.decision,
        e_value=event.e_value,
        now=event.at,
        opened_at=event.opened_at,
    )
