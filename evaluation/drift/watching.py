"""A project's watch over its traces: windows in order, each counted once; pure."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from ratchet.agent.memory.ranking import Embed
from ratchet.agent.trace import Trace
from ratchet.evaluation.data.cases import case_text
from ratchet.evaluation.drift.attribution import Attribution
from ratchet.evaluation.drift.behaviour import (
    BehaviourMonitor,
    combined_attribution,
    combined_state,
)
from ratchet.evaluation.drift.incidents import (
    Acknowledgement,
    accept_as_normal,
    snooze_incidents,
    update_incidents,
)
from ratchet.evaluation.drift.message import Message
from ratchet.evaluation.drift.monitor import DriftMonitor, OtherMonitor
from ratchet.evaluation.drift.remembered import RECENT, tail
from ratchet.evaluation.drift.state import DriftState
from ratchet.evaluation.drift.watch_state import Notice, WatchSettings, WatchState

Traces = Mapping[str, Trace]
"""Traces by id, in the order in which they arrived."""

_RENEWED: Final = "{why}; evidence starts anew from the same reference"


class MonitorEmbedding(NamedTuple):
    """What texts are read by, and its name; None = hashing, which the monitor fits itself."""

    embed: Embed | None = None
    name: str | None = None


HASHED: Final = MonitorEmbedding()


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
    return state.changed(monitor=monitor.to_json(), conduct=behaviour.record()).pruned()


def apply_acknowledgements(
    state: WatchState, acknowledgements: Sequence[Acknowledgement], settings: WatchSettings
) -> WatchState:
    """The watch after the acknowledgements that are new to it."""
    for acknowledgement in acknowledgements:
        if acknowledgement.ruling_id not in state.ruled:
            state = _apply(state, acknowledgement, settings)
    return state


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
        return state.changed(
            ruled=ruled,
            episodes=snooze_incidents(state.episodes, until=until, who=acknowledgement.who),
        )
    since = state.episodes.open.since if state.episodes.open else 0
    n_learned = min(settings.reference, state.n_counted - state.base - since)
    incidents, said = accept_as_normal(
        state.episodes, at=acknowledgement.at, who=acknowledgement.who, why=acknowledgement.why
    )
    return state.changed(
        ruled=ruled,
        episodes=incidents,
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
            return state.changed(renewed=None), kept
        except OtherMonitor as error:
            state = state.changed(
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
    return state.changed(
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
    state = state.changed(
        recent=tail((*state.recent, *(trace.trace_id for trace in window)), RECENT),
        n_counted=state.n_counted + len(window),
        n_windows=state.n_windows + 1,
    )
    drift, attribution = _judge(eyes, window, traces, state)
    surge = attribution is not None and attribution.surge
    incidents, said = update_incidents(state.episodes, drift, at, surge=surge)
    state = state.changed(
        states=(*state.states, drift),
        times=(*state.times, at),
        episodes=incidents,
        attribution=attribution or state.attribution,
        drifted=_drifted(state, attribution) if incidents.open else {},
    )
    if said is None or said.silent:
        return state
    owed = state.changed(outbox=(*state.outbox, Notice(announcement=said, attribution=state.attribution)))
    if said.event not in ("opened", "worsened") or surge:
        return owed
    # The first drifted trace tells incidents apart, also after all local state was lost; the same key starts once.
    first = owed.trace_of(said.episode.since) or owed.watched[0]
    return owed.changed(improve=f"drift-{first}", improve_claim=None)


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
