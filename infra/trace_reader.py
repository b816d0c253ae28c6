"""What arrived in MLflow since the last look: new traces, and new labels on traces of any age.

Why arrival and not the traces' own time: a trace may wait in a spool for days, and a person may answer weeks
later; both must be found, once.
"""

import json
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from mlflow.entities import TraceInfo
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from agent.errors import CorruptRecord
from agent.record import Record
from agent.trace import Trace
from evaluation.label import Label
from infra.assessments import EXPECTED, SCORE, Problem, labels_arrived_ms, to_labels
from infra.trace_rows import read_roots
from infra.trace_spans import RECEIVED, RECORD, own_id
from infra.tracking import Connection, connect, mlflow_errors

_BATCH: Final = 300
_PAGE: Final = 500
_OVERLAP: Final = timedelta(minutes=10)
"""How far writers' clocks may disagree, and a write may take, without a trace being overlooked."""


class Watermark(Record):
    """Up to where MLflow has been read, by time of arrival, so that late traces and late feedback count."""

    received_ms: int
    """Arrival of the newest trace that was read (ms since 1970)."""
    labelled_ms: int
    """Arrival of the newest assessment that was read."""
    seen_traces: tuple[str, ...] = ()
    """Those that arrived within ten minutes before `received_ms`: read again, and not returned again."""
    seen_labels: tuple[str, ...] = ()


class Collected(Record):
    """What arrived since a watermark."""

    traces: tuple[Trace, ...]
    labels: tuple[Label, ...]
    """New ones, on old traces too."""
    problems: tuple[Problem, ...]
    """Traces and assessments that could not be read, each with its reason; they stay in MLflow."""
    watermark: Watermark


def collect(project: str, since: Watermark | None = None) -> Collected:
    """Traces and labels that arrived after `since`; the same watermark gives the same answer again.

    New traces are found by their time of arrival, which `log_traces` tags them with, not by when they began:
    a trace that waited in the spool is not overlooked. New labels are found by searching all labelled traces,
    however old, and keeping what was written or changed since.

    Raises:
        ServiceUnavailable: MLflow did not answer.
    """
    with mlflow_errors(f"collecting the traces of {project!r}"):
        connection = connect(project)
        start = since or Watermark(received_ms=0, labelled_ms=0)
        infos = _arrived(connection, start)
        traces, problems = _read(connection, infos)
        labelled = infos if since is None else _labelled(connection) | infos
    labels: list[Label] = []
    for info in labelled.values():
        new, unusable = to_labels(info, after_ms=start.labelled_ms - _overlap_ms())
        labels += [label for label in new if label.label_id not in start.seen_labels]
        problems += unusable
    return Collected(
        traces=tuple(traces),
        labels=tuple(sorted(labels, key=lambda label: (label.created_at, label.label_id))),
        problems=tuple(problems),
        watermark=_advance(start, infos, labelled),
    )


def _overlap_ms() -> int:
    return int(_OVERLAP.total_seconds() * 1000)


def _arrived(connection: Connection, since: Watermark) -> dict[str, TraceInfo]:
    """Trace infos by MLflow's id that arrived since, oldest first; foreign ones by when they began."""
    if since.received_ms == 0:
        filters: list[str | None] = [None]
    else:
        edge = datetime.fromtimestamp((since.received_ms - _overlap_ms()) / 1000, UTC)
        days = range((datetime.now(UTC).date() - edge.date()).days + 1)
        filters = [f"tags.`{RECEIVED}` LIKE '{edge.date() + timedelta(days=day)}%'" for day in days]
        filters.append(f"trace.timestamp_ms > {int(edge.timestamp() * 1000)}")
    found = [info for one in filters for info in _search(connection, one)]
    known = set(since.seen_traces)
    fresh = [
        info
        for info in found
        if _received_ms(info) >= since.received_ms - _overlap_ms() and own_id(info.trace_id) not in known
    ]
    return {
        info.trace_id: info for info in sorted(fresh, key=lambda info: (info.timestamp_ms, info.trace_id))
    }


def _received_ms(info: TraceInfo) -> int:
    received = info.tags.get(RECEIVED)
    return int(datetime.fromisoformat(received).timestamp() * 1000) if received else int(info.timestamp_ms)


def _search(connection: Connection, filter_string: str | None) -> list[TraceInfo]:
    found: list[TraceInfo] = []
    token = None
    while True:
        page = connection.client.search_traces(
            locations=[connection.experiment_id],
            filter_string=filter_string,
            max_results=_PAGE,
            page_token=token,
            include_spans=False,
        )
        found += [trace.info for trace in page]
        token = page.token
        if not token:
            return found


def _labelled(connection: Connection) -> dict[str, TraceInfo]:
    filters = (f"feedback.{SCORE} IS NOT NULL", f"expectation.{EXPECTED} IS NOT NULL")
    return {info.trace_id: info for one in filters for info in _search(connection, one)}


def _read(connection: Connection, infos: dict[str, TraceInfo]) -> tuple[list[Trace], list[Problem]]:
    roots = _roots(connection, list(infos))
    traces, problems = [], []
    for trace_id in infos:
        record = roots.get(trace_id, {}).get(RECORD)
        if record is None:
            reason = (
                "no trace record in its root span: it was not written by log_traces, or its spans are gone"
            )
            problems.append(Problem(trace_id=own_id(trace_id), reason=reason))
            continue
        try:
            text = record if isinstance(record, str) else json.dumps(record)
            traces.append(Trace.from_json(text, where=f"MLflow trace {trace_id}"))
        except CorruptRecord as error:
            problems.append(Problem(trace_id=own_id(trace_id), reason=str(error)))
    return traces, problems


def _roots(connection: Connection, trace_ids: list[str]) -> dict[str, dict[str, Any]]:
    """Attributes of each trace's root span, by MLflow's id."""
    store = connection.tracing.store
    roots: dict[str, dict[str, Any]] = {}
    for start in range(0, len(trace_ids), _BATCH):
        batch = trace_ids[start : start + _BATCH]
        if isinstance(store, SqlAlchemyStore):
            roots |= read_roots(store, batch)
            continue
        for trace in connection.tracing.batch_get_traces(batch):
            root = next((span for span in trace.data.spans if span.parent_id is None), None)
            roots[trace.info.trace_id] = dict(root.attributes) if root else {}
    return roots


def _advance(since: Watermark, infos: dict[str, TraceInfo], labelled: dict[str, TraceInfo]) -> Watermark:
    received = {own_id(info.trace_id): _received_ms(info) for info in infos.values()}
    received_ms = max([since.received_ms, *received.values()])
    labelled_ms = max([since.labelled_ms, *(labels_arrived_ms(info) for info in labelled.values())])
    recent = [one for one, moment in received.items() if moment >= received_ms - _overlap_ms()]
    kept = since.seen_traces if received_ms - since.received_ms < _overlap_ms() else ()
    labels = [
        label.label_id
        for info in labelled.values()
        for label in to_labels(info, after_ms=labelled_ms - _overlap_ms())[0]
    ]
    return Watermark(
        received_ms=received_ms,
        labelled_ms=labelled_ms,
        seen_traces=tuple(sorted({*kept, *recent})),
        seen_labels=tuple(sorted(set(labels))),
    )
