"""Exports of tracing services, in which an interaction is many rows: as the readers of live spans read them.

Why the rows of a trace are put together first: they stand anywhere in the file, and what cannot be read in one trace
must not hide the next. They are all held at once.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from ratchet.agent.errors import BadInput
from ratchet.infra.files import cells
from ratchet.infra.files.json_records import Fault
from ratchet.infra.traces.conversation import Conversation
from ratchet.infra.traces.dialects import langfuse, langsmith, mlflow_export, otlp
from ratchet.infra.traces.formats.format import (
    Format,
    Numbered,
    first_of,
    misshapen_told,
    object_in,
    one_by_one,
)

_IDS: Final = ("trace_id", "traceId", "id")

Read = Callable[[Iterable[Any]], Iterator[Conversation]]


def _by_trace(
    read: Read, key: Callable[[dict[str, Any]], Any]
) -> Callable[[Numbered, Fault], Iterator[tuple[int, Conversation]]]:
    def conversations(records: Numbered, fault: Fault) -> Iterator[tuple[int, Conversation]]:
        groups: dict[Any, tuple[int, list[dict[str, Any]]]] = {}
        for number, record in records:
            if isinstance(record, dict):
                groups.setdefault(key(record), (number, []))[1].append(record)
            else:
                fault(number, f"{cells.kind(record)} instead of an object")
        for number, rows in groups.values():
            try:
                yield from [(number, one) for one in _imported(read, rows)]
            except BadInput as error:
                fault(number, str(error))

    return conversations


def _imported(read: Read, rows: Sequence[dict[str, Any]]) -> Iterator[Conversation]:
    with misshapen_told():
        for found in read(rows):
            yield found.model_copy(update={"identity": ["imported", found.identity]})


def _trace_of_row(record: dict[str, Any]) -> Any:
    return str(first_of(object_in(record.get("trace")), _IDS) or first_of(record, _IDS))


def _all_together(record: dict[str, Any]) -> Any:
    return None


MLFLOW: Final = Format(
    "mlflow",
    "info{trace_id}, data{spans[]}",
    mlflow_export.looks_like,
    one_by_one(lambda record: _imported(mlflow_export.conversations, [record])),
)
OTLP: Final = Format(
    "otlp", "resourceSpans[{scopeSpans[]}]", otlp.looks_like, _by_trace(otlp.conversations, _all_together)
)
LANGFUSE: Final = Format(
    "langfuse",
    "observations[{traceId, parentObservationId}]",
    langfuse.looks_like,
    _by_trace(langfuse.conversations, _trace_of_row),
)
LANGSMITH: Final = Format(
    "langsmith",
    "run_type, trace_id, parent_run_id",
    langsmith.looks_like,
    _by_trace(langsmith.conversations, _trace_of_row),
)
