"""Monitor: windows of new traces against the reference, in order, each counted once; a page per episode.

Evidently computes and draws the report, `evaluation.drift` decides.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
from prefect import task
from pydantic import Field

from agent.record import Record
from agent.trace import Trace
from evaluation.attribution import Attribution
from evaluation.cases import case_text
from evaluation.drift import DriftMonitor
from evaluation.drift_state import DriftState
from evaluation.episodes import Announcement, Episodes, follow
from evaluation.observation import Observation
from infra.alerts import Alert, send_alert
from infra.dataset_store import read_dataset
from infra.drift_picture import draw_drift
from infra.drift_report import write_report
from infra.project_state import project_folder, write_whole
from infra.registry import log_drift
from tasks.collect import Collection


class WatchSettings(Record):
    """How often to look, and how rare a false alarm must be."""

    window: int = Field(default=20, ge=1)
    """Traces in one look."""
    reference: int = Field(default=120, ge=40)
    """Traces that are what is usual: the first ones."""
    alpha: float = Field(default=0.001, gt=0, lt=1)
    """False alarms per window without drift."""


class WatchState(Record):
    """What the watch remembers."""

    monitor: str | None = None
    """The drift monitor's own JSON."""
    reference: tuple[str, ...] = ()
    """Trace ids of the reference."""
    watched: tuple[str, ...] = ()
    """Trace ids that were counted, in order; the reference is not among them."""
    states: tuple[DriftState, ...] = ()
    episodes: Episodes = Episodes()


class Watched(Record):
    """What a look came to."""

    n_windows: int
    """Windows seen in this run."""
    alarm: bool
    """Whether an episode is open now."""
    e_value: float | None = None
    announced: tuple[Announcement, ...] = ()
    attribution: Attribution | None = None
    report: Path | None = None

    @property
    def reason(self) -> str:
        """One sentence for a person."""
        if self.attribution is not None and self.alarm:
            return self.attribution.reason
        return "no drift" if self.n_windows else "nothing new to look at"


@task(name="watch")
def watch(name: str, collection: Collection, settings: WatchSettings) -> Watched:
    """Look at every full window that was not looked at yet; report and alert where there is something to say."""
    path = project_folder(name) / "watch.json"
    state = WatchState.from_json(path.read_text(), where=str(path)) if path.exists() else WatchState()
    traces = {t.trace_id: t for t in read_dataset(collection.traces, Trace)}
    state, monitor = _with_reference(state, list(traces.values()), settings)
    if monitor is None:
        write_whole(path, state.to_json())
        return Watched(n_windows=0, alarm=False)
    before = len(state.states)
    state, announced = _look(state, monitor, traces, settings)
    new = len(state.states) - before
    attribution = monitor.explain() if new else None
    report = _publish(name, state, before, attribution, traces) if new else None
    for announcement in announced:
        send_alert(_alert(name, announcement, attribution, report))
    write_whole(path, state.to_json())
    return Watched(
        n_windows=new,
        alarm=state.episodes.open is not None,
        e_value=state.states[-1].e_value if state.states else None,
        announced=tuple(announced),
        attribution=attribution,
        report=report,
    )


def _with_reference(
    state: WatchState, traces: Sequence[Trace], settings: WatchSettings
) -> tuple[WatchState, DriftMonitor | None]:
    """The monitor as it was left, or a new one once there are enough traces for a reference."""
    if state.monitor is not None:
        return state, DriftMonitor.from_json(state.monitor)
    if len(traces) < settings.reference:
        return state, None
    chosen = traces[: settings.reference]
    monitor = DriftMonitor([as_observation(trace) for trace in chosen], alpha=settings.alpha)
    reference = tuple(trace.trace_id for trace in chosen)
    return state.model_copy(update={"monitor": monitor.to_json(), "reference": reference}), monitor


def _look(
    state: WatchState, monitor: DriftMonitor, traces: dict[str, Trace], settings: WatchSettings
) -> tuple[WatchState, list[Announcement]]:
    known = {*state.reference, *state.watched}
    new = [trace for trace in traces.values() if trace.trace_id not in known]
    episodes, states, announced = state.episodes, list(state.states), []
    full = len(new) - len(new) % settings.window
    for start in range(0, full, settings.window):
        drift = monitor.update([as_observation(trace) for trace in new[start : start + settings.window]])
        surge = monitor.explain().surge if drift.alarm else False
        episodes, announcement = follow(episodes, drift, datetime.now(UTC), surge=surge)
        states.append(drift)
        announced += [announcement] if announcement else []
    changes = {
        "monitor": monitor.to_json(),
        "watched": (*state.watched, *(trace.trace_id for trace in new[:full])),
        "states": tuple(states),
        "episodes": episodes,
    }
    return state.model_copy(update=changes), [a for a in announced if not a.silent]


def as_observation(trace: Trace) -> Observation:
    """What the drift monitor sees of a trace: what was asked.

    What the agent did and how it went change with every promotion, on purpose; they are drawn in the report, and
    compared by the gate, but do not decide here.
    """
    return Observation(
        text=case_text(trace.case), session=trace.session_id, at=trace.started_at, slice=trace.case.slice
    )


def _publish(
    name: str, state: WatchState, before: int, attribution: Attribution | None, traces: dict[str, Trace]
) -> Path:
    """Every window's numbers to MLflow; report and picture for the last one."""
    folder = project_folder(name) / "drift"
    folder.mkdir(exist_ok=True)
    last = len(state.states)
    report, picture = folder / f"window_{last:05d}.html", folder / f"window_{last:05d}.png"
    usual = as_frame([traces[i] for i in state.reference])
    write_report(usual, as_frame([traces[i] for i in state.watched[-200:]]), state.states[-1], report,
                 attribution=attribution)  # fmt: skip
    draw_drift(state.states, picture, attribution=attribution)
    for step, drift in enumerate(state.states[before:], before + 1):
        values = {
            "drift_e_value": drift.e_value,
            "drift_alarm": float(drift.alarm),
            "messages": float(drift.n_seen),
        }
        files = (report, {"timeline": picture}) if step == last else (None, {})
        log_drift(name, step, values, files[0], files[1])
    return report


def as_frame(traces: Sequence[Trace]) -> pd.DataFrame:
    """Text, tool, outcome, confidence, latency and cost columns, a row per trace."""
    return pd.DataFrame(
        {
            "text": [case_text(t.case) for t in traces],
            "tool": [t.first_action.name if t.first_action else None for t in traces],
            "outcome": [t.first_score for t in traces],
            "confidence": [
                t.attempts[0].steps[0].confidence if t.attempts and t.attempts[0].steps else None
                for t in traces
            ],
            "latency_s": [t.latency_s for t in traces],
            "tokens": [t.usage.input_tokens + t.usage.output_tokens for t in traces],
            "attempts": [len(t.attempts) for t in traces],
        }
    )


def _alert(
    name: str, announcement: Announcement, attribution: Attribution | None, report: Path | None
) -> Alert:
    severity = {"page": "critical", "ticket": "warning", "notice": "info"}[announcement.severity]
    body = (
        attribution.reason
        if attribution and announcement.event != "recovered"
        else "the traffic is usual again"
    )
    if attribution and attribution.clusters:
        body += "; new: " + "; ".join(f"{c.name} ({c.size})" for c in attribution.clusters[:3])
    return Alert.model_validate(
        {
            "kind": "drift",
            "severity": severity,
            "title": f"{name}: drift {announcement.event}",
            "body": body,
            "link": report.as_uri() if report else None,
        }
    )
