"""From alarms to pages: one page per incident, a notice when it ends, silence while somebody snoozes it.

Pure: what is sent, and how, is another room's business. Windows are given in order and each counts once: one
that was seen before changes nothing, so a caller that restarts or runs twice neither pages nor counts twice.
"""

from datetime import datetime
from typing import Final, Literal

from pydantic import Field

from ratchet.agent.errors import BadInput
from ratchet.agent.record import Record
from ratchet.evaluation.drift.message import Group
from ratchet.evaluation.drift.state import DriftState

Severity = Literal["page", "ticket", "notice"]
"""Wake somebody up; look at it today; for information."""

_LOUDNESS: Final[dict[Severity, int]] = {"notice": 0, "ticket": 1, "page": 2}

QUIET_WINDOWS: Final = 3
"""Calm windows in a row after which an incident is over."""
CALM: Final = 0.1
"""Share of the threshold below which a window is calm: evidence that wavers about the threshold is one incident."""


class Incident(Record):
    """One stretch of drift, from its first alarm to its recovery."""

    number: int
    opened_window: int
    """Number of the window of the first alarm, from 1."""
    since: int
    """Message at which the drift is thought to have begun."""
    kinds: tuple[Group, ...]
    severity: Severity
    peak: float
    """Largest evidence R so far."""
    quiet: int = 0
    """Calm windows in a row until now."""
    closed_window: int | None = None


class Rebaseline(Record):
    """Somebody declared the present traffic the new normal."""

    at: datetime
    who: str = Field(min_length=1)
    why: str = Field(min_length=1)
    window: int
    """Window after which it holds."""
    episode: int | None
    """Incident that it ended."""


class Acknowledgement(Record):
    """What somebody decided about the alarm: silence for a while, or that this traffic is usual from now on."""

    ruling_id: str
    kind: Literal["snooze", "accept"]
    at: datetime
    who: str = Field(min_length=1)
    why: str = Field(min_length=1)
    until: datetime | None = None
    """End of a snooze."""


class Announcement(Record):
    """Something that a person should hear: an incident opened, got worse, or ended."""

    event: Literal["opened", "worsened", "recovered", "accepted"]
    severity: Severity
    episode: Incident
    silent: bool
    """Snoozed: to be recorded, not sent."""


class Incidents(Record):
    """All that is known about the incidents of one monitor."""

    last_window: int = 0
    open: Incident | None = None
    past: tuple[Incident, ...] = ()
    snoozed_until: datetime | None = None
    snoozed_by: str | None = None
    rereferences: tuple[Rebaseline, ...] = ()


def severity(kinds: tuple[Group, ...], *, surge: bool = False) -> Severity:
    """How loud an alarm is: worse results page, changed behaviour and new requests are tickets.

    A surge of known requests is a notice: it asks for capacity, not for labels or a rollback.
    """
    if "outcome" in kinds:
        return "page"
    return "notice" if surge and kinds == ("input",) else "ticket"


def update_incidents(
    incidents: Incidents, state: DriftState, at: datetime, *, surge: bool = False
) -> tuple[Incidents, Announcement | None]:
    """Next state of the incidents after a window, and what to announce, if anything.

    A window that was followed already (by its number) changes nothing.
    """
    if state.n_windows <= incidents.last_window:
        return incidents, None
    moved = incidents.model_copy(update={"last_window": state.n_windows})
    silent = incidents.snoozed_until is not None and at < incidents.snoozed_until
    if state.alarm:
        return _alarmed(moved, state, surge=surge, silent=silent)
    if moved.open is None:
        return moved, None
    calm = state.e_value < CALM * state.threshold
    quieter = moved.open.model_copy(update={"quiet": moved.open.quiet + 1 if calm else 0})
    if quieter.quiet < QUIET_WINDOWS:
        return moved.model_copy(update={"open": quieter}), None
    return _close(moved, quieter, "recovered", silent=silent)


def snooze_incidents(incidents: Incidents, *, until: datetime, who: str) -> Incidents:
    """Announce nothing before `until`; evidence and incidents go on being recorded.

    Raises:
        BadInput: nobody is named.
    """
    if not who.strip():
        raise BadInput("a snooze needs the name of who asks for it: pass who")
    return incidents.model_copy(update={"snoozed_until": until, "snoozed_by": who.strip()})


def accept_as_normal(
    incidents: Incidents, *, at: datetime, who: str, why: str
) -> tuple[Incidents, Announcement | None]:
    """Record that the present traffic is the new normal, and end the open incident.

    The caller builds a new `DriftMonitor` from the accepted traffic; windows count from 1 again.

    Raises:
        BadInput: who or why is empty.
    """
    if not who.strip() or not why.strip():
        raise BadInput("a new reference is recorded with who decided it and why: pass both")
    record = Rebaseline(
        at=at,
        who=who.strip(),
        why=why.strip(),
        window=incidents.last_window,
        episode=incidents.open.number if incidents.open else None,
    )
    moved = incidents.model_copy(update={"rereferences": (*incidents.rereferences, record)})
    said = None
    if moved.open is not None:
        moved, said = _close(moved, moved.open, "accepted", silent=False)
    return moved.model_copy(update={"last_window": 0, "snoozed_until": None, "snoozed_by": None}), said


def _alarmed(
    incidents: Incidents, state: DriftState, *, surge: bool, silent: bool
) -> tuple[Incidents, Announcement | None]:
    kinds = state.groups
    loud = severity(kinds, surge=surge)
    if incidents.open is None:
        incident = Incident(
            number=len(incidents.past) + 1,
            opened_window=state.n_windows,
            since=state.since or 0,
            kinds=kinds,
            severity=loud,
            peak=state.e_value,
        )
        opened = Announcement(event="opened", severity=loud, episode=incident, silent=silent)
        return incidents.model_copy(update={"open": incident}), opened
    before = incidents.open
    # Also what looked like a surge of known requests until more of them were seen.
    worse = _LOUDNESS[loud] > _LOUDNESS[before.severity]
    incident = before.model_copy(
        update={
            "quiet": 0,
            "peak": max(before.peak, state.e_value),
            "kinds": tuple(dict.fromkeys([*before.kinds, *kinds])),
            "severity": loud if worse else before.severity,
        }
    )
    moved = incidents.model_copy(update={"open": incident})
    if not worse:
        return moved, None
    return moved, Announcement(event="worsened", severity=loud, episode=incident, silent=silent)


def _close(
    incidents: Incidents, incident: Incident, event: Literal["recovered", "accepted"], *, silent: bool
) -> tuple[Incidents, Announcement]:
    closed = incident.model_copy(update={"closed_window": incidents.last_window})
    said = Announcement(event=event, severity="notice", episode=closed, silent=silent)
    return incidents.model_copy(update={"open": None, "past": (*incidents.past, closed)}), said
