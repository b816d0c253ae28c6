"""The error budget in MLflow: an append-only log of what was opened and closed, replayed to read it.

Why a registered model: the number of a model version is the database's primary key, so two runs that open a
test at the same moment get two different places in the log, on every backend and without a lock. What a place
is worth (α_k) follows from the log alone, the same for every reader; a refused event spends nothing.
"""

import time
from datetime import UTC, datetime
from typing import Any, Final, Literal

from mlflow.exceptions import MlflowException
from pydantic import AwareDatetime

from agent.errors import BadInput, CorruptRecord, ServiceUnavailable
from agent.record import Record
from evaluation.ledger import Entry, Ledger, Spending, close_test, open_test, refresh
from evaluation.verdict import Decision
from infra.tracking import Connection, connect, mlflow_errors

_EVENT: Final = "event"
_ATTEMPTS: Final = 10
_PLACE_TAKEN: Final = ("Model Version creation error", "database is locked")
"""Nothing was written; after any other error something may have been, and a repeat could double it."""


class LedgerEvent(Record):
    """One line of the log."""

    kind: Literal["begin", "open", "close", "refresh"]
    at: AwareDatetime
    candidate: str = ""
    champion: str = ""
    """Candidate id of the champion that the test compares with."""
    judge: str = ""
    """Hash of the judge, frozen for the test; empty = none."""
    decision: Decision | None = None
    e_value: float | None = None
    reason: str = ""
    """Verdict's sentence, or why a new budget was granted."""
    by: str = ""
    alpha: float | None = None
    spending: Spending | None = None


def read_ledger(project: str, *, alpha: float = 0.05, spending: Spending = "family-wise") -> Ledger:
    """The ledger as it stands; `alpha` and `spending` count only until its first test.

    Raises:
        CorruptRecord: an event is missing or cannot be read: what was spent is not known.
    """
    with mlflow_errors("reading the ledger"):
        events = _events(connect(project))
    return _replay(events, _empty(alpha, spending))[0]


def open_ledger_test(
    project: str,
    candidate: str,
    *,
    champion: str = "",
    judge: str = "",
    alpha: float = 0.05,
    spending: Spending = "family-wise",
) -> Entry:
    """Spend the next share on a test of `candidate`, or go on with the one that it has open.

    Raises:
        BadInput: the budget is exhausted.
    """
    with mlflow_errors(f"opening a test of {candidate}"):
        connection = connect(project)
        before, _ = _replay(_events(connection), _empty(alpha, spending))
        running = _running(before, candidate)
        if running is not None:
            return running
        if not before.entries:
            _append(connection, LedgerEvent(kind="begin", at=_now(), alpha=alpha, spending=spending))
        event = LedgerEvent(kind="open", at=_now(), candidate=candidate, champion=champion, judge=judge)
        place = _append(connection, event)
        after, refused = _replay(_up_to(connection, place), _empty(alpha, spending))
        entry = _running(after, candidate)  # if another run was first, its test is this one's, too
        if entry is None:
            raise refused[place]
        return entry


def _running(ledger: Ledger, candidate: str) -> Entry | None:
    return next((e for e in ledger.entries if e.candidate == candidate and e.decision is None), None)


def close_ledger_test(
    project: str, candidate: str, *, decision: Decision, e_value: float, reason: str = ""
) -> Entry:
    """Write how the open test of `candidate` ended; its share stays spent.

    Raises:
        BadInput: it has no open test, or a promotion's evidence is below its threshold.
    """
    with mlflow_errors(f"closing the test of {candidate}"):
        connection = connect(project)
        event = LedgerEvent(
            kind="close",
            at=_now(),
            candidate=candidate,
            decision=decision,
            e_value=min(e_value, 1e300),
            reason=reason[:2000],
        )
        after = _append_and_replay(connection, event)
    return next(entry for entry in reversed(after.entries) if entry.candidate == candidate)


def grant_budget(project: str, *, granted_by: str, because: str) -> Ledger:
    """Start a new error budget in a person's name: from then on the promise is per budget."""
    if not granted_by.strip() or not because.strip():
        raise BadInput(
            f"granted by {granted_by!r} because {because!r}: a new budget needs a name and a reason"
        )
    with mlflow_errors("granting a new budget"):
        connection = connect(project)
        return _append_and_replay(
            connection, LedgerEvent(kind="refresh", at=_now(), by=granted_by, reason=because)
        )


def ledger_events(project: str) -> list[LedgerEvent]:
    """The log itself, oldest first, for those who want to see who did what."""
    with mlflow_errors("reading the ledger"):
        return [event for _, event in _events(connect(project))]


def _now() -> datetime:
    return datetime.now(UTC)


def _empty(alpha: float, spending: Spending) -> Ledger:
    return Ledger(alpha=alpha, spending=spending)


def _name(connection: Connection) -> str:
    return f"{connection.project}-ledger"


def _append_and_replay(connection: Connection, event: LedgerEvent) -> Ledger:
    """The ledger right after `event`; what others appended later is not its business."""
    place = _append(connection, event)
    ledger, refused = _replay(_up_to(connection, place), Ledger())
    if place in refused:
        raise refused[place]
    return ledger


def _up_to(connection: Connection, place: int) -> list[tuple[int, LedgerEvent]]:
    return [one for one in _events(connection) if one[0] <= place]


def _append(connection: Connection, event: LedgerEvent) -> int:
    """Write the event at the next free place; returns the place."""
    client, name = connection.client, _name(connection)
    _ensure_model(connection)
    for attempt in range(_ATTEMPTS):
        try:
            version = client.create_model_version(
                name,
                source="ratchet-ledger:///event",
                tags={_EVENT: event.to_json()},
                description=_sentence(event),
            )
        except MlflowException as error:
            if not any(sign in str(error) for sign in _PLACE_TAKEN) or attempt == _ATTEMPTS - 1:
                raise
            time.sleep(0.05 * 2**attempt)  # somebody took the place between MLflow's look and its write
            continue
        return int(version.version)
    raise ServiceUnavailable(f"{name}: no free place after {_ATTEMPTS} attempts; repeat")


def _ensure_model(connection: Connection) -> None:
    try:
        connection.client.create_registered_model(
            _name(connection),
            description="Error budget of all verdicts; each version is one event, none is deleted.",
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _sentence(event: LedgerEvent) -> str:
    known = event.model_dump(mode="json", exclude_defaults=True, exclude={"kind", "at"})
    return f"{event.kind}: " + ", ".join(f"{key} {value}" for key, value in known.items())


def _events(connection: Connection) -> list[tuple[int, LedgerEvent]]:
    """Place and event, in order; a gap means that somebody deleted history."""
    client, name = connection.client, _name(connection)
    found: list[Any] = []
    token = None
    while True:
        page = client.search_model_versions(f"name = '{name}'", max_results=1000, page_token=token)
        found += page
        token = page.token
        if not token:
            break
    places = {int(version.version): version.tags.get(_EVENT, "") for version in found}
    if sorted(places) != list(range(1, len(places) + 1)):
        raise CorruptRecord(
            f"{name}: places {sorted(places)} have a gap: events were deleted; restore the database"
        )
    return [
        (place, LedgerEvent.from_json(places[place], where=f"{name} version {place}"))
        for place in sorted(places)
    ]


def _replay(events: list[tuple[int, LedgerEvent]], ledger: Ledger) -> tuple[Ledger, dict[int, BadInput]]:
    """The ledger after the events, and those that the rules refused, by place."""
    refused: dict[int, BadInput] = {}
    begun = False
    for place, event in events:
        if event.kind == "begin":
            if not begun and event.alpha is not None and event.spending is not None:
                ledger = Ledger(alpha=event.alpha, spending=event.spending)
            begun = True
            continue
        try:
            ledger = _apply(ledger, event)
        except BadInput as error:
            refused[place] = error
    return ledger, refused


def _apply(ledger: Ledger, event: LedgerEvent) -> Ledger:
    if event.kind == "open":
        return open_test(ledger, candidate=event.candidate, now=event.at)
    if event.kind == "refresh":
        return refresh(ledger, granted_by=event.by, because=event.reason, now=event.at)
    if event.decision is None or event.e_value is None:
        raise BadInput(f"closing {event.candidate}: decision and e-value are missing")
    return close_test(
        ledger, candidate=event.candidate, decision=event.decision, e_value=event.e_value, now=event.at
    )
