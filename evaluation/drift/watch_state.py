"""What a project's watch over its traces remembers, and what it still owes to people.

One record: it is written whole before anything leaves the house, so that whoever is killed in between owes the same
windows, notices and runs afterwards, and nothing is said or counted twice. Of what was counted it keeps the newest
few thousand ids and windows, and numbers: it stays as large as it is, however long it watches.
"""

from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import Field, model_validator

from ratchet.agent.record import Record, StageSettings
from ratchet.evaluation.drift.attribution import Attribution
from ratchet.evaluation.drift.behaviour import BehaviourState
from ratchet.evaluation.drift.incidents import Announcement, Incidents
from ratchet.evaluation.drift.remembered import RECENT, tail
from ratchet.evaluation.drift.state import DriftState

WINDOWS: Final = 200
"""Windows whose numbers are kept after they were published: a picture's worth."""
_PATIENCE: Final = timedelta(minutes=10)
"""After which what somebody began to say, and did not report as said, is said by the next."""


class WatchSettings(StageSettings):
    """How often to look, and how rare a false alarm must be."""

    window: int = Field(default=20, ge=1)
    """Traces in one look."""
    reference: int = Field(default=120, ge=40)
    """The first so many traces are what is usual."""
    alpha: float = Field(default=0.001, gt=0, lt=1)
    """False alarms per window without drift."""


class Claim(Record):
    """Who is about to say or start something, and since when."""

    by: str
    at: datetime

    def leaves(self, who: str, at: datetime) -> bool:
        """Whether `who` may take over: it was theirs, before they were killed, or whoever claimed it is long gone."""
        return self.by == who or at - self.at >= _PATIENCE


class Notice(Record):
    """Something that people were not told yet."""

    announcement: Announcement
    attribution: Attribution | None = None
    claim: Claim | None = None

    @property
    def key(self) -> str:
        """The same for one thing to be said, whoever says it."""
        return f"{self.announcement.episode.number}-{self.announcement.event}"


class WatchState(Record):
    """What the watch remembers."""

    monitor: str | None = None
    """The drift monitor's own JSON; None while a reference is gathered."""
    conduct: BehaviourState | None = None
    """What the version that serves does, and how well it goes."""
    reference: tuple[str, ...] = ()
    """Trace ids of the reference."""
    recent: tuple[str, ...] = ()
    """Ids of the newest traces that were counted or became a reference, in order."""
    n_counted: int = 0
    """How many there ever were."""
    base: int = 0
    """How many there were when the present reference was complete: message 0 of the monitor came next."""
    learned: tuple[str, ...] | None = None
    """Counted traces with which the new normal begins, while its reference is gathered; else None."""
    states: tuple[DriftState, ...] = ()
    """The newest windows, in order, whatever the reference."""
    times: tuple[datetime, ...] = ()
    """When each of them was looked at."""
    n_windows: int = 0
    """How many there ever were."""
    first_window: int = 0
    """Windows before the present reference."""
    episodes: Incidents = Incidents()
    ruled: tuple[str, ...] = ()
    """Acknowledgements that were applied."""
    attribution: Attribution | None = None
    """What the last window with an alarm was explained by."""
    drifted: dict[str, str] = Field(default_factory=dict)
    """Trace ids in the region that drifted, each with the words of its cluster; empty without an incident."""
    outbox: tuple[Notice, ...] = ()
    """What people are still to be told."""
    published: int = 0
    """Windows whose numbers left the house."""
    improve: str | None = None
    """Key of an `improve` that is still to be started; the same key starts it once."""
    improve_claim: Claim | None = None
    renewed: str | None = None
    """Why the last look built the monitor anew, in words; None = it did not."""

    @model_validator(mode="before")
    @classmethod
    def _without_lists(cls, given: Any) -> Any:
        """What an earlier version stored: the id of every trace, and every window."""
        if not isinstance(given, dict) or "watched" not in given:
            return given
        old = dict(given)
        watched, learn_from = list(old.pop("watched")), old.pop("learn_from", None)
        there = set(watched)
        first = [i for i in (*old.pop("retired", ()), *old.get("reference", ())) if i not in there]
        states = list(old.get("states", ()))
        kept = max(WINDOWS, len(states) - old.get("published", 0))
        return old | {
            "recent": [*first, *watched][-RECENT:],
            "n_counted": len(first) + len(watched),
            "base": len(first) + old.get("base", 0),
            "learned": None if learn_from is None else watched[learn_from:],
            "states": states[-kept:],
            "times": list(old.get("times", ()))[-kept:],
            "n_windows": len(states),
        }

    @property
    def watched(self) -> tuple[str, ...]:
        """Ids of the newest messages of the present monitor, in order."""
        return tail(self.recent, self.n_counted - self.base)

    def trace_of(self, number: int) -> str | None:
        """Id of a message of the present monitor by its number; None = so long ago that it is forgotten."""
        place = number - (self.n_counted - self.base - len(self.watched))
        return self.watched[place] if 0 <= place < len(self.watched) else None

    @property
    def needs(self) -> tuple[str, ...]:
        """Ids of counted traces that a look may have to read again."""
        own = self.conduct.reference if self.conduct else ()
        return tuple(dict.fromkeys((*self.reference, *(self.learned or ()), *own)))

    def due(self, n_new: int, settings: WatchSettings) -> bool:
        """Whether a look at so many new traces would count any."""
        if self.monitor is not None:
            return n_new >= settings.window
        return n_new + len(self.learned or ()) >= settings.reference

    def changed(self, **changes: Any) -> "WatchState":
        """The same with these fields instead."""
        return self.model_copy(update=changes)

    def pruned(self) -> "WatchState":
        """The same without the windows that nobody needs any more: those that left the house, but for the newest."""
        kept = max(WINDOWS, self.n_windows - self.published)
        return self.changed(states=tail(self.states, kept), times=tail(self.times, kept))


def claimed_notice(state: WatchState, who: str, at: datetime) -> tuple[WatchState, Notice | None]:
    """The first thing that `who` may say now, put down to them before they say it; None = nothing."""
    for place, notice in enumerate(state.outbox):
        if notice.claim is None or notice.claim.leaves(who, at):
            mine = notice.model_copy(update={"claim": Claim(by=who, at=at)})
            outbox = (*state.outbox[:place], mine, *state.outbox[place + 1 :])
            return state.changed(outbox=outbox), mine
    return state, None


def without_notice(state: WatchState, key: str) -> WatchState:
    """The watch after this was said."""
    return state.changed(outbox=tuple(notice for notice in state.outbox if notice.key != key))


def claimed_improve(state: WatchState, who: str, at: datetime) -> tuple[WatchState, str | None]:
    """The key of an `improve` that `who` may start now, put down to them; None = nothing is to be started."""
    if state.improve is None or (state.improve_claim and not state.improve_claim.leaves(who, at)):
        return state, None
    return state.changed(improve_claim=Claim(by=who, at=at)), state.improve


def without_improve(state: WatchState, key: str) -> WatchState:
    """The watch after this `improve` was started."""
    return state.changed(improve=None, improve_claim=None) if state.improve == key else state


def with_published(state: WatchState, n_windows: int) -> WatchState:
    """The watch after so many windows left the house: of these the newest are kept."""
    return state.changed(published=max(state.published, n_windows)).pruned()
