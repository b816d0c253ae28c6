"""What was collected from a project: its traces and the labels on them, each once, in the order of arrival.

Why columns beside the records: who asks which of a million traces nobody was asked about, or where the agent was
unsure, must not decode a million traces.
"""

from collections.abc import Iterable, Iterator, Sequence, Set
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ratchet.agent.record import content_hash
from ratchet.agent.trace import Trace
from ratchet.evaluation.data.arrays import Ints
from ratchet.evaluation.data.cases import case_text, on_gate_side
from ratchet.evaluation.data.labels import Label
from ratchet.evaluation.data.selection import Flags, UnlabelledTraces
from ratchet.infra.store.dataset_files import DatasetVersion
from ratchet.infra.store.dataset_log import (
    add_rows,
    column_parts,
    columns_at,
    columns_since,
    find_about,
    find_rows,
    is_log,
    known_about,
    newest,
    places,
    places_about,
)
from ratchet.infra.store.dataset_partition import Kind, table_of
from ratchet.infra.store.dataset_store import read_dataset


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
    columns=pa.schema({"said_id": pa.string(), "trace_id": pa.string(), "source": pa.string()}),
    facts=lambda label: (
        content_hash([label.label_id, label.created_at.isoformat()]),
        label.trace_id,
        label.source,
    ),
)
"""A person who says again what he said before has said it anew: the time is part of the row's id."""


GRADES: Final = Kind(
    name="grades",
    record=Label,
    columns=pa.schema({"said_id": pa.string(), "trace_id": pa.string(), "source": pa.string()}),
    facts=lambda label: (content_hash([label.rater, label.trace_id]), label.trace_id, label.source),
)
"""What the project's own judge said; apart from `LABELS`, which hold whatever anybody wrote into MLflow."""


def newest_traces(project: str) -> DatasetVersion:
    """Everything collected so far."""
    return newest(TRACES, project)


def newest_labels(project: str) -> DatasetVersion:
    """Every label collected so far."""
    return newest(LABELS, project)


def newest_grades(project: str) -> DatasetVersion:
    """Every grade that the project's judges gave."""
    return newest(GRADES, project)


def keep_grades(project: str, grades: Iterable[Label]) -> DatasetVersion:
    """Add those that are not there yet: a frozen judge grades an answer once."""
    return add_rows(GRADES, project, grades)


def keep_traces(project: str, traces: Iterable[Trace]) -> DatasetVersion:
    """Add those that are not there yet, in their order."""
    return add_rows(TRACES, project, traces)


def keep_labels(project: str, labels: Iterable[Label]) -> DatasetVersion:
    """Add those that are not there yet, in their order."""
    return add_rows(LABELS, project, labels)


def collected_traces(project: str, trace_ids: Sequence[str]) -> list[Trace]:
    """These of the collected traces, in this order, without reading the others."""
    return find_rows(TRACES, project, trace_ids)


def places_by_id(project: str, trace_ids: Sequence[str]) -> dict[str, int]:
    """Where these of the collected traces lie in the order of arrival, from 0."""
    return places(TRACES, project, trace_ids)


def ids_since(version: DatasetVersion, n: int) -> list[str]:
    """Ids of the traces from place `n` on, without reading the traces."""
    found: list[str] = columns_since(TRACES, version, ["trace_id"], n).column("trace_id").to_pylist()
    return found


def labels_about(project: str, trace_ids: Sequence[str]) -> list[Label]:
    """Every label on these traces, in the order of arrival."""
    return find_about(LABELS, project, trace_ids)


def served(project: str, case_ids: Sequence[str]) -> set[str]:
    """Which of these cases have a trace."""
    return known_about(TRACES, project, case_ids)


def places_of(version: DatasetVersion, trace_ids: Set[str]) -> Ints:
    """Where these traces stand, in order."""
    among = [_among(table, trace_ids) for table in _parts(TRACES, version, ("trace_id",))]
    return np.flatnonzero(np.concatenate([np.zeros(0, bool), *among]))


def unasked(
    version: DatasetVersion, asked: Set[str], *, gate_share: float, salt: str
) -> tuple[UnlabelledTraces, Ints]:
    """All traces but these, as columns, and where they stand; no trace is read."""
    names = ("trace_id", "case_id", "session_id", "confidence", "error", "answered")
    parts, places, first = [], [np.zeros(0, np.int64)], 0
    for table in _parts(TRACES, version, names):
        fresh = ~_among(table, asked)
        places.append(first + np.flatnonzero(fresh))
        first += table.num_rows
        parts.append(_columns_of(table.filter(pa.array(fresh)), gate_share, salt))
    return UnlabelledTraces.joined(parts), np.concatenate(places)


def _columns_of(table: pa.Table, gate_share: float, salt: str) -> UnlabelledTraces:
    case_ids, error = table.column("case_id"), table.column("error")
    return UnlabelledTraces.of_columns(
        _fixed(table.column("trace_id"), 32),
        _fixed(case_ids, 16),
        table.column("confidence").to_numpy().astype(np.float64),
        pc.fill_null(pc.equal(error, "agent"), False).to_numpy(),
        error.is_valid().to_numpy(),
        table.column("answered").to_numpy(),
        on_gate_side(_each(case_ids), _each(table.column("session_id")), gate_share=gate_share, salt=salt),
    )


def _among(table: pa.Table, trace_ids: Set[str]) -> Flags:
    wanted = pa.array(sorted(trace_ids), pa.string())
    found: Flags = pc.is_in(table.column("trace_id"), value_set=wanted).to_numpy()
    return found


def _parts(kind: Kind[Any], version: DatasetVersion, names: Sequence[str]) -> Iterator[pa.Table]:
    """Columns, one partition in memory at a time."""
    if is_log(version):
        for table in column_parts(kind, version, names):
            yield table
            pa.default_memory_pool().release_unused()
    else:
        yield columns_of(kind, version, *names)


def _each(column: pa.ChunkedArray) -> Iterator[Any]:
    for chunk in column.chunks:
        yield from chunk.to_pylist()


def _fixed(column: pa.ChunkedArray, width: int) -> NDArray[np.bytes_]:
    return np.concatenate(
        [
            np.zeros(0, f"S{width}"),
            *(np.array(chunk.to_pylist(), dtype=f"S{width}") for chunk in column.chunks),
        ]
    )


def texts_of(version: DatasetVersion, places: Ints) -> list[str]:
    """What was asked, by place."""
    if is_log(version):
        return [
            str(text) for text in columns_at(TRACES, version, ["text"], places).column("text").to_pylist()
        ]
    texts = columns_of(TRACES, version, "text").column("text")
    return [str(texts[place].as_py()) for place in places.tolist()]


def texts_about(project: str, case_ids: Sequence[str]) -> dict[str, str]:
    """What these cases asked, by id, of those that have a trace."""
    names = ("case_id", "text")
    found = columns_at(TRACES, newest_traces(project), names, places_about(TRACES, project, case_ids))
    return dict(zip(*(found.column(name).to_pylist() for name in names), strict=True))


def columns_of(kind: Kind[Any], version: DatasetVersion, *names: str) -> pa.Table:
    """Columns of `TRACES` or `LABELS`, without reading the records."""
    if is_log(version):
        return columns_since(kind, version, names)
    return table_of(kind, read_dataset(version, kind.record)).select(list(names))  # written whole, before
