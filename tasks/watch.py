"""Monitor: windows of new traces against the reference, in order, each counted once; a page per episode.

What was seen is written down before anybody hears of it; whoever is killed in between still owes the rest.
"""

from datetime import UTC, datetime
from pathlib import Path

from prefect import task
from prefect.client.schemas import FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound

from agent.record import Record
from agent.trace import Trace
from evaluation.attribution import Attribution
from evaluation.episodes import Announcement
from evaluation.watching import Notice, Traces, WatchSettings, WatchState, look
from infra.alerts import Alert, send_alert
from infra.dataset_store import read_dataset
from infra.drift_log import rulings
from infra.drift_page import draw_look, publish_look
from infra.watch_store import read_watch, watch_lock, write_watch
from tasks.collect import Collection

IMPROVE = "improve/improve"
_SEVERITY = {"page": "critical", "ticket": "warning", "notice": "info"}


class Watched(Record):
    """What a look came to."""

    n_windows: int
    """Windows seen in this run."""
    alarm: bool
    """Whether an episode is open now."""
    e_value: float | None = None
    announced: tuple[Announcement, ...] = ()
    attribution: Attribution | None = None
    """Of the open episode."""
    report: Path | None = None
    improve: str | None = None
    """Key of an `improve` that is still to be started."""

    @property
    def reason(self) -> str:
        """One sentence for a person."""
        if self.attribution is not None and self.alarm:
            return self.attribution.reason
        return "no drift" if self.n_windows else "nothing new to look at"


@task(name="watch")
def watch(name: str, collection: Collection, settings: WatchSettings) -> Watched:
    """Look at every full window that was not looked at yet; report and alert where there is something to say."""
    with watch_lock(name):
        before = read_watch(name)
        traces = {t.trace_id: t for t in read_dataset(collection.traces, Trace)}
        state = look(before, traces, rulings(name), settings, datetime.now(UTC))
        write_watch(name, state)
        announced = tuple(notice.announcement for notice in state.outbox)
        state, report = _tell(name, state, traces)
    return Watched(
        n_windows=len(state.states) - len(before.states),
        alarm=state.episodes.open is not None,
        e_value=state.states[-1].e_value if state.states else None,
        announced=announced,
        attribution=state.attribution if state.episodes.open else None,
        report=report,
        improve=state.improve,
    )


@task(name="start improve")
def start_improve(name: str, project: str, key: str) -> str | None:
    """Start the deployed `improve` for this alarm, once; the run's name, or None where none is deployed."""
    try:
        run = run_deployment(
            IMPROVE,
            parameters={"project": str(Path(project).resolve())},
            timeout=0,
            idempotency_key=f"{name}-{key}",
            tags=["drift"],
            as_subflow=False,
        )
    except ObjectNotFound:
        run = None
    with watch_lock(name):
        state = read_watch(name)
        if state.improve == key:
            write_watch(name, state.model_copy(update={"improve": None}))
    return run.name if isinstance(run, FlowRun) else None


def _tell(name: str, state: WatchState, traces: Traces) -> tuple[WatchState, Path | None]:
    """Report, alerts, then MLflow; what was said is struck off at once."""
    owed = len(state.states) > state.published
    report = draw_look(name, state, traces) if state.states and (owed or state.outbox) else None
    for notice in state.outbox:
        send_alert(_alert(name, notice, report))
        state = state.model_copy(update={"outbox": state.outbox[1:]})
        write_watch(name, state)
    if owed and report is not None:
        publish_look(name, state, report)
        state = state.model_copy(update={"published": len(state.states)})
        write_watch(name, state)
    return state, report


def _alert(name: str, notice: Notice, report: Path | None) -> Alert:
    said, attribution = notice.announcement, notice.attribution
    onset = attribution.onset.at if attribution is not None else None
    return Alert.model_validate(
        {
            "kind": "drift",
            "severity": _SEVERITY[said.severity],
            "title": f"{name}: drift {said.event}",
            "body": _body(notice),
            "since": onset if said.event in ("opened", "worsened") else None,
            "link": report.as_uri() if report else None,
            "key": f"{name}-{said.episode.number}-{said.event}",
        }
    )


def _body(notice: Notice) -> str:
    event, attribution = notice.announcement.event, notice.attribution
    if event == "recovered":
        return "the traffic is usual again"
    if event == "accepted" or attribution is None:
        return "the traffic of the episode is the new normal"
    new = "; ".join(f"{c.name} ({c.size})" for c in attribution.clusters[:3])
    return f"{attribution.reason.removesuffix('.')}; new: {new}" if new else attribution.reason
