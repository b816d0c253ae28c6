"""The log of what decides in a project: tests, spent cases, approvals, moves, questions; the same for every home.

A place's meaning follows from the log alone; an event that the rules refuse at its place has no effect.

Why a chain and a head: MLflow lets anybody delete a version, and a log without its newest events looks whole. Each
event names the last one that its writer saw, and the hash of all before; the count and hash of everything stand on
the experiment, where deleting versions does not reach. The head is written after the event, so it may lag behind
(a kill in between: the next event mends it) and never lead.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, Literal, NamedTuple

from pydantic import AwareDatetime, Field

from ratchet.agent.errors import CorruptRecord
from ratchet.agent.record import Record, content_hash
from ratchet.evaluation.gate.approval import ApprovalSettings
from ratchet.evaluation.gate.ledger import Spending
from ratchet.evaluation.gate.verdict import VerdictKind
from ratchet.infra.mlflow_client import Connection
from ratchet.infra.registry.log import append_event, read_events
from ratchet.infra.review.queue import ReviewItem

HEAD: Final = "ratchet.ledger_head"
"""Tag of the experiment: how many events there are, and the hash of them all."""
_LOG: Final = "ledger"
_ABOUT: Final = (
    "What decides: tests, spent cases, moves, questions; each version is one event, none is deleted."
)
_PORTION: Final = 2000
_NOT_SAID: Final = {"kind", "at", "cases", "picks", "policy", "after", "before"}


class LedgerEvent(Record):
    """One line of the log."""

    kind: Literal[
        "begin", "open", "close", "refresh", "spend", "claim", "ask", "round",
        "policy", "approve", "decline", "remind",
    ]  # fmt: skip
    at: AwareDatetime
    candidate: str = ""
    champion: str = ""
    """Candidate id of the champion that the test compares with."""
    judge: str = ""
    """Hash of the judge, frozen for the test; empty = none."""
    decision: VerdictKind | None = None
    e_value: float | None = None
    reason: str = ""
    """Verdict's sentence, or why a new budget was granted, or why a person approved or declined."""
    by: str = ""
    via: Literal["", "terminal", "prefect", "code"] = ""
    """Where a person approved or declined."""
    policy: ApprovalSettings | None = None
    """Who may approve from here on."""
    alpha: float | None = None
    spending: Spending | None = None
    gives_back: bool = False
    """Opens a test by the rule that gives back; False = written before there was one: by the old rule."""
    opened_at: AwareDatetime | None = None
    """Which test a closing ends; None = the candidate's open one."""
    cases: tuple[str, ...] = ()
    """Case ids that a gate used: they can never judge again."""
    home: str = ""
    """Id of the home that claims its turn to move aliases, or asks people."""
    round: int = Field(default=0, ge=0)
    """Round of questions that people are asked in, or that ends; 0 = none."""
    episode: int = Field(default=0, ge=0)
    """Newest incident of drift whose region people are asked about; 0 = none."""
    picks: tuple[ReviewItem, ...] = ()
    """What people are asked."""
    after_claim: int = Field(default=0, ge=0)
    """Place of the last claim that had its turn when this one was made."""
    after: int = Field(default=0, ge=0)
    """Place of the last event that the writer saw; 0 = none, or written before there was a chain."""
    before: str = ""
    """Hash of all events up to `after`."""


class Log(NamedTuple):
    """What stands in the log: the event at place n is `events[n - 1]`."""

    events: tuple[LedgerEvent, ...]
    digests: tuple[str, ...]
    """Hash of all events up to each place."""

    def up_to(self, place: int) -> "Log":
        """The log as it was right after this place; what others appended later is not its business."""
        return Log(self.events[:place], self.digests[:place])


def now() -> datetime:
    """The moment that goes into an event."""
    return datetime.now(UTC)


def read_log(connection: Connection) -> Log:
    """All events, in order; call it in `mlflow_errors`.

    Raises:
        CorruptRecord: events were deleted or changed: what was spent is not known.
    """
    head = _head(connection)  # first: an event appended in between must not look like one that is missing
    texts = read_events(connection, _LOG)
    name = _name(connection)
    events = tuple(
        LedgerEvent.from_json(text, where=f"{name} version {n}") for n, text in enumerate(texts, start=1)
    )
    digests: list[str] = []
    for text in texts:
        digests.append(content_hash([digests[-1] if digests else "", text]))
    for place, event in enumerate(events, start=1):
        if event.after and (event.after >= place or digests[event.after - 1] != event.before):
            raise _broken(name, f"event {place} does not follow from the {event.after} before it")
    count, digest = head
    if count > len(events):
        raise _broken(name, f"{count - len(events)} of {count} events are missing, the newest ones")
    if count and digests[count - 1] != digest:
        raise _broken(name, f"the first {count} events are not those that were written")
    return Log(events, tuple(digests))


def append(connection: Connection, event: LedgerEvent) -> int:
    """Write the event at the next free place; returns the place. Call it in `mlflow_errors`.

    Raises:
        CorruptRecord: see `read_log`; nothing was written.
    """
    log = read_log(connection)
    link = {"after": len(log.events), "before": log.digests[-1] if log.digests else ""}
    linked = event.model_copy(update=link)
    place = append_event(connection, _LOG, linked.to_json(), about=_ABOUT, said=_sentence(linked))
    _advance_head(connection)
    return place


def _name(connection: Connection) -> str:
    return f"{connection.project}-{_LOG}"


def _broken(name: str, what: str) -> CorruptRecord:
    return CorruptRecord(f"{name}: {what}: events were deleted or changed; restore the database")


def _head(connection: Connection) -> tuple[int, str]:
    tag = connection.client.get_experiment(connection.experiment_id).tags.get(HEAD, "0:")
    count, _, digest = tag.partition(":")
    if not count.isdecimal():
        raise _broken(_name(connection), f"tag {HEAD} of the experiment says {tag!r}")
    return int(count), digest


def _advance_head(connection: Connection) -> None:
    log = read_log(connection)
    connection.client.set_experiment_tag(
        connection.experiment_id, HEAD, f"{len(log.events)}:{log.digests[-1]}"
    )


def _sentence(event: LedgerEvent) -> str:
    known = event.model_dump(mode="json", exclude_defaults=True, exclude=_NOT_SAID)
    if event.cases:
        known["cases"] = len(event.cases)
    if event.picks:
        known["questions"] = len(event.picks)
    return f"{event.kind}: " + ", ".join(f"{key} {value}" for key, value in known.items())


def in_portions(ids: Sequence[str]) -> list[tuple[str, ...]]:
    """Ids in portions that fit one event: MLflow's tag holds 100,000 characters."""
    return [tuple(ids[start : start + _PORTION]) for start in range(0, len(ids), _PORTION)]
