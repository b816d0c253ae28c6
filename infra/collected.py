"""What was collected from a project: its traces and the labels on them, each once, in the order of arrival.

Why columns beside the records: who asks which of a million traces nobody was asked about, or where the agent was
unsure, must not decode a million traces.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import pyarrow as pa

from agent.trace import Trace
from evaluation.cases import case_text
from evaluation.label import Label
from infra.dataset_files import DatasetVersion
from infra.dataset_log import (
    Kind,
    add_rows,
    columns_since,
    find_about,
    find_rows,
    is_log,
    known_about,
    newest,
    table_of,
)
from infra.dataset_store import read_dataset


def _of_trace(trace: Trace) -> tuple[object, ...]:
    first = trace.attempts[0].steps[0] if trace.attempts and trace.attempts[0].steps else None
    return (
        trace.trace_id,
        trace.case.case_id,
        trace.session_id,
        trace.candidate_id,
        int(trace.started_at.timestamp() * 1e6),
        case_text(trace.case),
        first.confidence if first else None,
        trace.score,
        trace.error.kind if trace.error else None,
        trace.action is not None,
    )


TRACES: Final = Kind(
    name="traces",
    record=Trace,
    columns=pa.schema(
        {
            "trace_id": pa.string(),
            "case_id": pa.string(),
            "session_id": pa.string(),
            "candidate_id": pa.string(),
            "started_us": pa.int64(),
            "text": pa.string(),
            "confidence": pa.float64(),
            "score": pa.float64(),
            "error": pa.string(),
            "answered": pa.bool_(),
        }
    ),
    facts=_of_trace,
)
"""`started_us` in microseconds since 1970, `confidence` that of the first step, `error` on whose side, `answered`
whether it ends with an action."""

LABELS: Final = Kind(
    name="labels",
    record=Label,
    columns=pa.schema({"label_id": pa.string(), "trace_id": pa.string(), "source": pa.string()}),
    facts=lambda label: (label.label_id, label.trace_id, label.source),
)


def newest_traces(project: str) -> DatasetVersion:
    """Everything collected so far."""
    return newest(TRACES, project)


def newest_labels(project: str) -> DatasetVersion:
    """Every label collected so far."""
    return newest(LABELS, project)


def keep_traces(project: str, traces: Iterable[Trace]) -> DatasetVersion:
    """Add those that are not there yet, in their order."""
    return add_rows(TRACES, project, traces)


def keep_labels(project: str, labels: Iterable[Label]) -> DatasetVersion:
    """Add those that are not there yet, in their order."""
    return add_rows(LABELS, project, labels)


def find_traces(project: str, trace_ids: Sequence[str]) -> list[Trace]:
    """These of the collected traces, in this order, without reading the others."""
    return find_rows(TRACES, project, trace_ids)


def labels_about(project: str, trace_ids: Sequence[str]) -> list[Label]:
    """Every label on these traces, in the order of arrival."""
    return find_about(LABELS, project, trace_ids)


def served(project: str, case_ids: Sequence[str]) -> set[str]:
    """Which of these cases have a trace."""
    return known_about(TRACES, project, case_ids)


def trace_columns(version: DatasetVersion, *names: str) -> pa.Table:
    """Columns of `TRACES`, without reading the traces."""
    return _columns(TRACES, version, names)


def label_columns(version: DatasetVersion, *names: str) -> pa.Table:
    """Columns of `LABELS`, without reading the labels."""
    return _columns(LABELS, version, names)


def _columns(kind: Kind[Any], version: DatasetVersion, names: Sequence[str]) -> pa.Table:
    if is_log(version):
        return columns_since(kind, version, names)
    return table_of(kind, read_dataset(version, kind.record)).select(list(names))  # written whole, before
