"""A project's watch over its traces: windows in order, each counted once, and what is still owed to people.

Pure, and one record: it is written whole before anything leaves the house, so that whoever is killed in between
owes the same windows, notices and runs afterwards, and nothing is said or counted twice. Of what was counted it
keeps the newest few thousand ids and windows, and numbers: it stays as large as it is, however long it watches.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from pydantic import Field, model_validator

from ratchet.agent.memory.ranking import Embed
from ratchet.agent.record import Record, StageSettings
from ratchet.agent.trace import Trace
from ratchet.evaluation.data.cases import case_text
from ratchet.evaluation.drift.attribution import Attribution
from ratchet.evaluation.drift.behaviour import (
    BehaviourMonitor,
    BehaviourState,
    combined_attribution,
    combined_state,
)
from ratchet.evaluation.drift.incidents import (
    Acknowledgement,
    Announcement,
    Incidents,
    accept_as_normal,
    snooze_incidents,
    update_incidents,
)
from ratchet.evaluation.drift.message import Message
from ratchet.evaluation.drift.monitor import DriftMonitor, OtherMonitor
from ratchet.evaluation.drift.remembered import RECENT, tail
from ratchet.evaluation.drift.state import DriftState

Traces = Mapping[str, Trace]
"""Traces by id, in the order in which they arrived."""

WINDOWS: Final = 200
"""Windows whose numbers are kept after they were published: a picture's worth."""
_PATIENCE: Final = timedelta(minutes=10)
"""After which what somebody began to say, and did not report as said, is said by the next."""
_RENEWED: Final = "{why}; evidence starts anew from the same reference"


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


class MonitorEmbedding(NamedTuple):
    """What texts are read by, and its name; None = hashing, which the monitor fits itself."""

    embed: Embed | None = None
    name: str | None = None


HASHED: Final = MonitorEmbedding()


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


def look(
    state: WatchState,
    traces: Traces,
    acknowledgements: Sequence[Acknowledgement],
    settings: WatchSettings,
    at: datetime,
    reading: MonitorEmbedding = HASHED,
    *,
    seed: int = 0,
) -> WatchState:
    """The watch after what was acknowledged anew and every full window that was not counted yet.

    Args:
        state: the watch before.
        traces: what is new, and those of `state.needs`; others that were counted are ignored.
        acknowledgements: all, in order.
        settings: how often to look.
        at: now.
        reading: what texts are read by; where that changed, the monitor is built anew from its reference.
        seed: of a monitor that is built now; one that was kept goes on with its own.
    """
    state = apply_acknowledgements(state, acknowledgements, settings)
    known = {*state.needs, *state.recent}
    new = [trace for trace in traces.values() if trace.trace_id not in known]
    state, monitor = _with_reference(state, traces, new, settings, reading, seed)
    if monitor is None:
        return state
    behaviour = BehaviourMonitor(
        state.conduct, reference=settings.reference, alpha=settings.alpha, traces=traces, seed=seed
    )
    if state.conduct is None:
        behaviour.update([traces[i] for i in state.reference if i in traces], traces)
    counted = {*state.reference, *state.recent}
    new = [trace for trace in new if trace.trace_id not in counted]
    for start in range(0, len(new) - len(new) % settings.window, settings.window):
        window = new[start : start + settings.window]
        state = _watch_window(state, (monitor, behaviour), window, traces, at)
    return _pruned(_changed(state, monitor=monitor.to_json(), conduct=behaviour.record()))


def apply_acknowledgements(
    state: WatchState, acknowledgements: Sequence[Acknowledgement], settings: WatchSettings
) -> WatchState:
    """The watch after the acknowledgements that are new to it."""
    for acknowledgement in acknowledgements:
        if acknowledgement.ruling_id not in state.ruled:
            state = _apply(state, acknowledgement, settings)
    return state


def claimed_notice(state: WatchState, who: str, at: datetime) -> tuple[WatchState, Notice | None]:
    """The first thing that `who` may say now, put down to them before they say it; None = nothing."""
    for place, notice in enumerate(state.outbox):
        if notice.claim is None or notice.claim.leaves(who, at):
            mine = notice.model_copy(update={"claim": Claim(by=who, at=at)})
            outbox = (*state.outbox[:place], mine, *state.outbox[place + 1 :])
            return _changed(state, outbox=outbox), mine
    return state, None


def without_notice(state: WatchState, key: str) -> WatchState:
    """The watch after this was said."""
    return _changed(state, outbox=tuple(notice for notice in state.outbox if notice.key != key))


def claimed_improve(state: WatchState, who: str, at: datetime) -> tuple[WatchState, str | None]:
    """The key of an `improve` that `who` may start now, put down to them; None = nothing is to be started."""
    if state.improve is None or (state.improve_claim and not state.improve_claim.leaves(who, at)):
        return state, None
    return _changed(state, improve_claim=Claim(by=who, at=at)), state.improve


def without_improve(state: WatchState, key: str) -> WatchState:
    """The watch after this `improve` was started."""
    return _changed(state, improve=None, improve_claim=None) if state.improve == key else state


def with_published(state: WatchState, n_windows: int) -> WatchState:
    """The watch after so many windows left the house: of these the newest are kept."""
    return _pruned(_changed(state, published=max(state.published, n_windows)))


def _pruned(state: WatchState) -> WatchState:
    kept = max(WINDOWS, state.n_windows - state.published)
    return _changed(state, states=tail(state.states, kept), times=tail(state.times, kept))


def as_request(trace: Trace, *, reference: bool = False) -> Message:
    """What was asked; for the reference also what the agent chose, from which doubt is learned."""
    tool = trace.first_action.name if reference and trace.first_action else None
    return Message(
        text=case_text(trace.case),
        session=trace.session_id,
        at=trace.started_at,
        slice=trace.case.slice,
        tool=tool,
    )


def _apply(state: WatchState, acknowledgement: Acknowledgement, settings: WatchSettings) -> WatchState:
    ruled = (*state.ruled, acknowledgement.ruling_id)
    if acknowledgement.kind == "snooze":
        until = acknowledgement.until or acknowledgement.at
        return _changed(
            state,
            ruled=ruled,
            episodes=snooze_incidents(state.episodes, until=until, who=acknowledgement.who),
        )
    onset = state.episodes.open.since if state.episodes.open else 0
    n_learned = min(settings.reference, state.n_counted - state.base - onset)
    episodes, said = accept_as_normal(
        state.episodes, at=acknowledgement.at, who=acknowledgement.who, why=acknowledgement.why
    )
    return _changed(
        state,
        ruled=ruled,
        episodes=episodes,
        monitor=None,
        conduct=None,
        reference=(),
        learned=tail(state.watched, max(n_learned, 0)),
        drifted={},
        improve=None,
        improve_claim=None,
        outbox=(*state.outbox, *([Notice(announcement=said)] if said else [])),
    )


def _with_reference(
    state: WatchState,
    traces: Traces,
    new: Sequence[Trace],
    settings: WatchSettings,
    reading: MonitorEmbedding,
    seed: int,
) -> tuple[WatchState, DriftMonitor | None]:
    """The monitor as it was left, or a new one once there are enough traces for a reference."""
    if state.monitor is not None:
        try:
            kept = DriftMonitor.from_json(state.monitor, embed=reading.embed, embedding=reading.name)
            return _changed(state, renewed=None), kept
        except OtherMonitor as error:
            state = _changed(
                state,
                monitor=None,
                learned=state.reference,
                renewed=_RENEWED.format(why=error),
                episodes=state.episodes.model_copy(update={"last_window": 0}),
            )
    learned = [traces[i] for i in state.learned or () if i in traces]
    taken = new[: max(settings.reference - len(learned), 0)]
    chosen = [*learned, *taken]
    if len(chosen) < settings.reference:
        return state, None
    usual = [as_request(trace, reference=True) for trace in chosen]
    monitor = DriftMonitor(
        usual, alpha=settings.alpha, embed=reading.embed, embedding=reading.name, seed=seed
    )
    ids = [trace.trace_id for trace in taken]
    return _changed(
        state,
        reference=tuple(trace.trace_id for trace in chosen),
        recent=tail((*state.recent, *ids), RECENT),
        n_counted=state.n_counted + len(ids),
        base=state.n_counted + len(ids),
        first_window=state.n_windows,
        learned=None,
        attribution=None,
    ), monitor


def _watch_window(
    state: WatchState,
    eyes: tuple[DriftMonitor, BehaviourMonitor],
    window: Sequence[Trace],
    traces: Traces,
    at: datetime,
) -> WatchState:
    state = _changed(
        state,
        recent=tail((*state.recent, *(trace.trace_id for trace in window)), RECENT),
        n_counted=state.n_counted + len(window),
        n_windows=state.n_windows + 1,
    )
    drift, attribution = _judge(eyes, window, traces, state)
    surge = attribution is not None and attribution.surge
    episodes, said = update_incidents(state.episodes, drift, at, surge=surge)
    state = _changed(
        state,
        states=(*state.states, drift),
        times=(*state.times, at),
        episodes=episodes,
        attribution=attribution or state.attribution,
        drifted=_drifted(state, attribution) if episodes.open else {},
    )
    if said is None or said.silent:
        return state
    owed = _changed(state, outbox=(*state.outbox, Notice(announcement=said, attribution=state.attribution)))
    if said.event not in ("opened", "worsened") or surge:
        return owed
    # The first drifted trace tells incidents apart, also after all local state was lost; the same key starts once.
    first = owed.trace_of(said.episode.since) or owed.watched[0]
    return _changed(owed, improve=f"drift-{first}", improve_claim=None)


def _judge(
    eyes: tuple[DriftMonitor, BehaviourMonitor], window: Sequence[Trace], traces: Traces, state: WatchState
) -> tuple[DriftState, Attribution | None]:
    """Evidence from what is asked and from what the agent does, and what an alarm is explained by."""
    monitor, behaviour = eyes
    asked = monitor.update([as_request(trace) for trace in window])
    done = behaviour.update(window, traces)
    if done is None:
        return asked, monitor.explain() if asked.alarm else None
    forgotten = state.n_counted - state.base - len(state.watched)
    place = {trace_id: number for number, trace_id in enumerate(state.watched, start=forgotten)}
    drift = combined_state(asked, done, behaviour.since(done, place))
    if not drift.alarm:
        return drift, None
    return drift, combined_attribution(drift, monitor.explain(), behaviour.explain(place))


def _drifted(state: WatchState, attribution: Attribution | None) -> dict[str, str]:
    """Trace ids in new clusters, as the newest window with an alarm found them."""
    if attribution is None:
        return state.drifted
    found = {
        state.trace_of(number): cluster.name
        for cluster in reversed(attribution.clusters)
        if not cluster.known
        for number in cluster.messages
    }
    return {trace_id: words for trace_id, words in found.items() if trace_id is not None}


def _changed(state: WatchState, **changes: Any) -> WatchState:
    return state.model_copy(update=changes)
