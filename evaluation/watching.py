"""A project's watch over its traces: windows in order, each counted once, and what is still owed to people.

Pure, and one record: it is written whole before anything leaves the house, so that whoever is killed in between
owes the same windows, notices and runs afterwards, and nothing is said or counted twice.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import Field

from agent.record import Record
from agent.trace import Trace
from evaluation.attribution import Attribution
from evaluation.cases import case_text
from evaluation.conduct import Conduct, ConductWatch, explained, together
from evaluation.drift import DriftMonitor
from evaluation.drift_state import DriftState
from evaluation.episodes import Announcement, Episodes, Ruling, accept_as_normal, follow, snooze
from evaluation.observation import Observation

Traces = Mapping[str, Trace]
"""Traces by id, in the order in which they were answered."""


class WatchSettings(Record):
    """How often to look, and how rare a false alarm must be."""

    window: int = Field(default=20, ge=1)
    """Traces in one look."""
    reference: int = Field(default=120, ge=40)
    """Traces that are what is usual: the first ones."""
    alpha: float = Field(default=0.001, gt=0, lt=1)
    """False alarms per window without drift."""


class Notice(Record):
    """Something that people were not told yet."""

    announcement: Announcement
    attribution: Attribution | None = None


class WatchState(Record):
    """What the watch remembers."""

    monitor: str | None = None
    """The drift monitor's own JSON; None while a reference is gathered."""
    conduct: Conduct | None = None
    """What the version that serves does, and how well it goes."""
    reference: tuple[str, ...] = ()
    """Trace ids of the reference."""
    retired: tuple[str, ...] = ()
    """Trace ids of earlier references."""
    watched: tuple[str, ...] = ()
    """Trace ids that were counted, in order; references are not among them."""
    base: int = 0
    """How many were counted before the present reference: message 0 of the monitor is `watched[base]`."""
    learn_from: int | None = None
    """Place in `watched` where the new normal begins, while its reference is gathered."""
    states: tuple[DriftState, ...] = ()
    """Every window, in order, whatever the reference."""
    times: tuple[datetime, ...] = ()
    """When each window was looked at."""
    first_window: int = 0
    """Place in `states` of the first window of the present reference."""
    episodes: Episodes = Episodes()
    ruled: tuple[str, ...] = ()
    """Rulings that were applied."""
    attribution: Attribution | None = None
    """What the last window with an alarm was explained by."""
    drifted: dict[str, str] = Field(default_factory=dict)
    """Trace ids in the region that drifted, each with the words of its cluster; empty without an episode."""
    outbox: tuple[Notice, ...] = ()
    """What people are still to be told."""
    published: int = 0
    """Windows whose numbers left the house."""
    improve: str | None = None
    """Key of an `improve` that is still to be started; the same key starts it once."""


def look(
    state: WatchState, traces: Traces, rulings: Sequence[Ruling], settings: WatchSettings, at: datetime
) -> WatchState:
    """The watch after every ruling that is new and every full window that was not counted yet."""
    for ruling in rulings:
        if ruling.ruling_id not in state.ruled:
            state = _obey(state, ruling, settings)
    state, monitor = _with_reference(state, traces, settings)
    if monitor is None:
        return state
    conduct = ConductWatch(state.conduct, reference=settings.reference, alpha=settings.alpha)
    if state.conduct is None:
        conduct.update([traces[i] for i in state.reference if i in traces], traces)
    known = {*state.retired, *state.reference, *state.watched}
    new = [trace for trace in traces.values() if trace.trace_id not in known]
    for start in range(0, len(new) - len(new) % settings.window, settings.window):
        window = new[start : start + settings.window]
        state = _watch_window(state, (monitor, conduct), window, traces, at)
    return _changed(state, monitor=monitor.to_json(), conduct=conduct.record())


def as_request(trace: Trace, *, reference: bool = False) -> Observation:
    """What was asked; for the reference also what the agent chose, from which doubt is learned."""
    tool = trace.first_action.name if reference and trace.first_action else None
    return Observation(
        text=case_text(trace.case),
        session=trace.session_id,
        at=trace.started_at,
        slice=trace.case.slice,
        tool=tool,
    )


def _obey(state: WatchState, ruling: Ruling, settings: WatchSettings) -> WatchState:
    ruled = (*state.ruled, ruling.ruling_id)
    if ruling.kind == "snooze":
        until = ruling.until or ruling.at
        return _changed(state, ruled=ruled, episodes=snooze(state.episodes, until=until, who=ruling.who))
    since = state.base + state.episodes.open.since if state.episodes.open else 0
    episodes, said = accept_as_normal(state.episodes, at=ruling.at, who=ruling.who, why=ruling.why)
    return _changed(
        state,
        ruled=ruled,
        episodes=episodes,
        monitor=None,
        conduct=None,
        reference=(),
        retired=(*state.retired, *state.reference),
        learn_from=max(since, len(state.watched) - settings.reference),
        drifted={},
        improve=None,
        outbox=(*state.outbox, *([Notice(announcement=said)] if said else [])),
    )


def _with_reference(
    state: WatchState, traces: Traces, settings: WatchSettings
) -> tuple[WatchState, DriftMonitor | None]:
    """The monitor as it was left, or a new one once there are enough traces for a reference."""
    if state.monitor is not None:
        return state, DriftMonitor.from_json(state.monitor)
    known = {*state.retired, *state.watched}
    learned = state.watched[state.learn_from :] if state.learn_from is not None else ()
    usual = [i for i in (*learned, *(i for i in traces if i not in known)) if i in traces]
    chosen = usual[: settings.reference]
    if len(chosen) < settings.reference:
        return state, None
    monitor = DriftMonitor([as_request(traces[i], reference=True) for i in chosen], alpha=settings.alpha)
    return _changed(
        state,
        reference=tuple(chosen),
        base=len(state.watched),
        first_window=len(state.states),
        learn_from=None,
        attribution=None,
    ), monitor


def _watch_window(
    state: WatchState,
    eyes: tuple[DriftMonitor, ConductWatch],
    window: Sequence[Trace],
    traces: Traces,
    at: datetime,
) -> WatchState:
    watched = (*state.watched, *(trace.trace_id for trace in window))
    drift, attribution = _judge(eyes, window, traces, watched[state.base :])
    surge = attribution is not None and attribution.surge
    episodes, said = follow(state.episodes, drift, at, surge=surge)
    state = _changed(
        state,
        watched=watched,
        states=(*state.states, drift),
        times=(*state.times, at),
        episodes=episodes,
        attribution=attribution or state.attribution,
        drifted=_drifted(state, attribution, watched) if episodes.open else {},
    )
    if said is None or said.silent:
        return state
    owed = _changed(state, outbox=(*state.outbox, Notice(announcement=said, attribution=state.attribution)))
    if said.event not in ("opened", "worsened") or surge:
        return owed
    # The first drifted trace tells episodes apart, also after all local state was lost; the same key starts once.
    return _changed(owed, improve=f"drift-{watched[state.base + said.episode.since]}")


def _judge(
    eyes: tuple[DriftMonitor, ConductWatch], window: Sequence[Trace], traces: Traces, numbered: Sequence[str]
) -> tuple[DriftState, Attribution | None]:
    """Evidence from what is asked and from what the agent does, and what an alarm is explained by."""
    monitor, conduct = eyes
    asked = monitor.update([as_request(trace) for trace in window])
    done = conduct.update(window, traces)
    if done is None:
        return asked, monitor.explain() if asked.alarm else None
    place = {trace_id: number for number, trace_id in enumerate(numbered)}
    drift = together(asked, done, conduct.since(done, place))
    if not drift.alarm:
        return drift, None
    return drift, explained(drift, monitor.explain(), conduct.explain(place))


def _drifted(state: WatchState, attribution: Attribution | None, watched: Sequence[str]) -> dict[str, str]:
    """Trace ids in new clusters, as the newest window with an alarm found them."""
    if attribution is None:
        return state.drifted
    return {
        watched[state.base + number]: cluster.name
        for cluster in reversed(attribution.clusters)
        if not cluster.known
        for number in cluster.messages
    }


def _changed(state: WatchState, **changes: Any) -> WatchState:
    return state.model_copy(update=changes)
