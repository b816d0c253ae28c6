"""Monitor: windows of new traces against the reference, in order, each counted once; a page per incident.

What was seen is written down before anybody hears of it, and what is to be said before it is said, where every
worker reads it: two workers page once, and whoever is killed in between still owes the rest.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

from prefect import task
from prefect.client.schemas import FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound

from ratchet.agent.record import Record
from ratchet.agent.trace import Trace
from ratchet.evaluation.drift.attribution import Attribution
from ratchet.evaluation.drift.incidents import Acknowledgement, Announcement
from ratchet.evaluation.drift.watch_state import (
    Notice,
    WatchSettings,
    WatchState,
    claimed_improve,
    claimed_notice,
    with_published,
    without_improve,
    without_notice,
)
from ratchet.evaluation.drift.watching import MonitorEmbedding, apply_acknowledgements, look
from ratchet.infra.alerts import Alert, send_alert
from ratchet.infra.drift.log import acknowledgements
from ratchet.infra.drift.page import draw_look, publish_look, report_is_due, shown_traces
from ratchet.infra.drift.watch_store import change_watch, this_home, watch_lock
from ratchet.infra.store.collected import collected_traces, ids_since, places_by_id
from ratchet.infra.store.dataset_log import rows_since
from ratchet.infra.store.dataset_store import DatasetVersion
from ratchet.infra.text_embedding import drift_embedding
from ratchet.tasks.collect import Collection

IMPROVE = "improve/improve"
_PORTION: Final = 2_000
"""Traces that are held at once."""
ClaimedT = TypeVar("ClaimedT")
_SEVERITY = {"page": "critical", "ticket": "warning", "notice": "info"}


class WatchReport(Record):
    """What a look came to."""

    n_windows: int
    """Windows seen in this run."""
    alarm: bool
    """Whether an incident is open now."""
    e_value: float | None = None
    announced: tuple[Announcement, ...] = ()
    attribution: Attribution | None = None
    """Of the open incident."""
    report: Path | None = None
    improve: str | None = None
    """Key of an `improve` that is still to be started."""
    note: str | None = None
    """Why the watch began anew from its reference, where it did."""

    @property
    def reason(self) -> str:
        """One sentence for a person."""
        if self.attribution is not None and self.alarm:
            return self.attribution.reason
        return "no drift" if self.n_windows else "nothing new to look at"


@task(name="watch")
def watch(name: str, collection: Collection, settings: WatchSettings, seed: int = 0) -> WatchReport:
    """Look at every full window that was not looked at yet; report and alert where there is something to say."""
    with watch_lock(name):
        state, counted, note = _look_at_all(name, collection.traces, settings, seed)
        told, report = _tell(name, state)
        improve = _claimed(name, claimed_improve)
    return WatchReport(
        n_windows=counted,
        alarm=state.episodes.open is not None,
        e_value=state.states[-1].e_value if state.states else None,
        announced=tuple(notice.announcement for notice in told),
        attribution=state.attribution if state.episodes.open else None,
        report=report,
        improve=improve,
        note=note,
    )


def _look_at_all(
    name: str, version: DatasetVersion, settings: WatchSettings, seed: int
) -> tuple[WatchState, int, str | None]:
    """The watch when nothing is left to look at, windows that were counted, and why it began anew, if it did.

    A portion at a time, each written down: who was away for long neither holds all in memory nor begins again.
    """
    ruled, windows, note = acknowledgements(name), 0, None
    counted = True
    while counted:
        before = after = WatchState()

        def look_once(state: WatchState) -> WatchState:
            nonlocal before, after
            before, after = state, look_at_new(name, version, state, ruled, settings, seed)
            return after

        change_watch(name, look_once)
        counted = after.n_counted > before.n_counted
        windows += after.n_windows - before.n_windows
        note = note or (after.renewed if counted else None)
    return after, windows, note


def look_at_new(
    name: str,
    version: DatasetVersion,
    state: WatchState,
    ruled: Sequence[Acknowledgement],
    settings: WatchSettings,
    seed: int = 0,
) -> WatchState:
    """The watch after the next of what arrived; only that, and the few traces that it needs again, are read."""
    state = apply_acknowledgements(state, ruled, settings)
    first, n_new = _position(name, version, state)
    if not state.due(n_new, settings):
        return state
    read_by = drift_embedding()
    known = set(state.recent)
    new = (trace for trace in rows_since(version, first, Trace) if trace.trace_id not in known)
    portion = islice(new, max(_PORTION, settings.reference + settings.window))
    traces = {trace.trace_id: trace for trace in (*collected_traces(name, state.needs), *portion)}
    reading = MonitorEmbedding(read_by.embed, read_by.name)
    return look(state, traces, ruled, settings, datetime.now(UTC), reading, seed=seed)


def _position(name: str, version: DatasetVersion, state: WatchState) -> tuple[int, int]:
    """Place of the first trace that was not counted, and how many were not.

    By ids, not by a number: another home, which counted some, has its own order of arrival. While all ids are
    remembered, these decide; later, what lies before the bulk of them was counted (a trace that came late may lie
    anywhere in the order of a home that collected all at once).
    """
    known, first = set(state.recent), 0
    if state.n_counted > len(state.recent):
        places = sorted(places_by_id(name, state.recent).values())
        first = places[len(places) // 10] if places else 0
    new = [place for place, one in enumerate(ids_since(version, first), start=first) if one not in known]
    return (new[0] if new else version.n_rows), len(new)


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
        change_watch(name, lambda state: without_improve(state, key))
    return run.name if isinstance(run, FlowRun) else None


def _tell(name: str, state: WatchState) -> tuple[list[Notice], Path | None]:
    """Report, alerts, then MLflow. What is to be said is claimed first: no other home says it as well."""
    owed = state.n_windows > state.published
    due = (owed or bool(state.outbox)) and report_is_due(name, state, datetime.now(UTC))
    report = _draw(name, state) if due else None
    told: list[Notice] = []
    while (notice := _claimed(name, claimed_notice)) is not None:
        send_alert(_alert(name, notice, report))
        change_watch(name, partial(without_notice, key=notice.key))
        told.append(notice)
    if owed:
        publish_look(name, state, report)
        change_watch(name, partial(with_published, n_windows=state.n_windows))
    return told, report


def _draw(name: str, state: WatchState) -> Path:
    shown = collected_traces(name, (*state.reference, *shown_traces(state)))
    return draw_look(name, state, {trace.trace_id: trace for trace in shown})


def _claimed(
    name: str, claim: Callable[[WatchState, str, datetime], tuple[WatchState, ClaimedT | None]]
) -> ClaimedT | None:
    """What this home may say or start now, written down as its own before it does."""
    mine: ClaimedT | None = None

    def change(state: WatchState) -> WatchState:
        nonlocal mine
        changed, mine = claim(state, this_home(name), datetime.now(UTC))
        return changed

    change_watch(name, change)
    return mine


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
        return "the traffic of the incident is the new normal"
    new = "; ".join(f"{c.name} ({c.size})" for c in attribution.clusters[:3])
    return f"{attribution.reason.removesuffix('.')}; new: {new}" if new else attribution.reason
