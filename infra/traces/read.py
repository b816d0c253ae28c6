"""What arrived in MLflow since the last look: new traces, and new labels on traces of any age.

Why arrival and not the traces' own time: a trace may wait in a spool for days, and a person may answer weeks
later; both must be found, once.
"""

import json
from collections.abc import Iterable
from typing import Any, Final

from mlflow.entities import Trace as MlflowTrace
from mlflow.entities import TraceInfo

from ratchet.agent.errors import CorruptRecord
from ratchet.agent.record import Record
from ratchet.agent.trace import Trace
from ratchet.evaluation.data.labels import Label
from ratchet.infra.mlflow_client import Connection, connect, mlflow_errors
from ratchet.infra.traces.arrivals import Mark, arrived, infos_of, search_infos, traces_of
from ratchet.infra.traces.assessments import EXPECTED, SCORE, Problem, labels_arrived_ms, to_labels
from ratchet.infra.traces.rows import labelled_since
from ratchet.infra.traces.service_clock import there
from ratchet.infra.traces.spans import RECORD_ATTRIBUTE, own_id

_LABEL_OVERLAP_MS: Final = 24 * 3600 * 1000
"""Whoever writes a label stamps it, and MLflow tells no order: what a day's wrong clock hides is read again."""


class Watermark(Record):
    """Up to where MLflow has been read, by arrival, so that late traces and late feedback count."""

    received_ms: int
    """Arrival of the newest trace that was read (ms since 1970)."""
    labelled_ms: int
    """Arrival of the newest assessment that was read, never after the moment of reading."""
    seen_traces: tuple[str, ...] = ()
    """See `Mark.seen`."""
    seen_labels: tuple[str, ...] = ()
    """Those that were written within a day before `labelled_ms`, or after it: not returned again."""
    row: int = 0
    row_trace: str = ""

    @property
    def mark(self) -> Mark:
        """The traces' part of it."""
        return Mark(
            received_ms=self.received_ms, seen=self.seen_traces, row=self.row, row_trace=self.row_trace
        )


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

    New traces are found by when they arrived, not by when they began: one that waited in the spool is not
    overlooked (see `arrivals`). New labels are found by when they were written or changed, on traces of any age;
    behind a server, which cannot be asked that, all labelled traces are searched.

    Raises:
        ServiceUnavailable: MLflow did not answer.
    """
    start = since or Watermark(received_ms=0, labelled_ms=0)
    with mlflow_errors(f"collecting the traces of {project!r}"):
        connection = connect(project)
        now = there(connection)
        infos, mark, odd = arrived(connection, start.mark, now)
        new = {
            info.trace_id: info for info in sorted(infos, key=lambda one: (one.timestamp_ms, one.trace_id))
        }
        traces, problems = _read(connection, new)
        said_after = start.labelled_ms - _LABEL_OVERLAP_MS
        labelled = new if since is None else _labelled(connection, said_after) | new
    problems += odd
    labels: list[Label] = []
    for info in labelled.values():
        said, unusable = to_labels(info, after_ms=said_after)
        labels += [label for label in said if label.label_id not in start.seen_labels]
        problems += unusable
    return Collected(
        traces=tuple(traces),
        labels=tuple(sorted(labels, key=lambda label: (label.created_at, label.label_id))),
        problems=tuple(problems),
        watermark=_advance(start, mark, labelled.values(), int(now.timestamp() * 1000)),
    )


def _labelled(connection: Connection, after_ms: int) -> dict[str, TraceInfo]:
    if not connection.is_server:
        uri = connection.settings.tracking_uri
        ids = labelled_since(uri, connection.experiment_id, after_ms, (SCORE, EXPECTED))
        return {info.trace_id: info for info in infos_of(connection, ids)}
    filters = (f"feedback.{SCORE} IS NOT NULL", f"expectation.{EXPECTED} IS NOT NULL")
    return {info.trace_id: info for one in filters for info in search_infos(connection, one)}


def _read(connection: Connection, infos: dict[str, TraceInfo]) -> tuple[list[Trace], list[Problem]]:
    whole = traces_of(connection, list(infos), include_spans=True)
    traces, problems = [], []
    for trace_id in infos:
        try:
            traces.append(record_of(trace_id, whole.get(trace_id)))
        except CorruptRecord as error:
            problems.append(Problem(trace_id=own_id(trace_id), reason=str(error)))
    return traces, problems


def record_of(trace_id: str, found: MlflowTrace | None) -> Trace:
    """The record in the trace's root span.

    Raises:
        CorruptRecord: there is none, or it cannot be read; the trace is still in MLflow.
    """
    spans = found.data.spans if found is not None else []
    root = next((span for span in spans if span.parent_id is None), None)
    record: Any = root.attributes.get(RECORD_ATTRIBUTE) if root is not None else None
    where = f"MLflow trace {trace_id}"
    if record is None:
        raise CorruptRecord(
            f"{where}: no trace record in its root span: it was not written by Ratchet, or its spans are gone"
        )
    return Trace.from_json(record if isinstance(record, str) else json.dumps(record), where=where)


def _advance(since: Watermark, mark: Mark, labelled: Iterable[TraceInfo], now_ms: int) -> Watermark:
    newest = [min(labels_arrived_ms(info), now_ms) for info in labelled]
    labelled_ms = max([since.labelled_ms, *newest])
    recent = (to_labels(info, after_ms=labelled_ms - _LABEL_OVERLAP_MS)[0] for info in labelled)
    return Watermark(
        received_ms=mark.received_ms,
        labelled_ms=labelled_ms,
        seen_traces=mark.seen,
        seen_labels=tuple(sorted({label.label_id for labels in recent for label in labels})),
        row=mark.row,
        row_trace=mark.row_trace,
    )
