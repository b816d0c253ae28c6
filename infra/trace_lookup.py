"""Single traces by their id, each with what people, judges and environments said about it.

Why apart from collecting: to explain one answer must not move a watermark, nor read a project's whole past.
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from mlflow.entities import Trace as MlflowTrace

from agent.errors import CorruptRecord
from agent.record import Record
from agent.trace import Trace
from evaluation.label import Label
from infra.assessments import Problem, score_of, to_labels
from infra.review_answers import settled
from infra.trace_spans import RECORD, mlflow_id, own_id
from infra.tracking import connect, mlflow_errors

_BATCH = 300


class FoundTrace(Record):
    """One trace with its labels."""

    trace: Trace
    labels: tuple[Label, ...] = ()
    problems: tuple[Problem, ...] = ()
    """What was said about it and cannot be read as a label."""


class Lookup(NamedTuple):
    """What was found, by our trace id; an id in neither part is unknown to this project."""

    traces: dict[str, FoundTrace]
    unreadable: dict[str, str]
    """Why: it was not written by Ratchet, or its record is damaged; it is still in MLflow."""


def find_traces(project: str, trace_ids: Sequence[str]) -> Lookup:
    """The traces of this project among `trace_ids`; one that cannot be read hides none of the others.

    Raises:
        ServiceUnavailable: MLflow did not answer.
    """
    with mlflow_errors(f"reading {len(trace_ids)} traces"):
        connection = connect(project)
        wanted = [mlflow_id(own_id(one)) for one in dict.fromkeys(trace_ids)]
        found = connection.tracing.batch_get_traces(wanted) if wanted else []
    lookup = Lookup({}, {})
    for one in found:
        if one.info.experiment_id != connection.experiment_id:
            continue
        trace_id = own_id(one.info.trace_id)
        try:
            lookup.traces[trace_id] = _read(one)
        except CorruptRecord as error:
            lookup.unreadable[trace_id] = str(error)
    said: dict[str, list[Label]] = {}
    for label in settled(project, [label for one in lookup.traces.values() for label in one.labels]):
        said.setdefault(label.trace_id, []).append(label)
    for trace_id, labels in said.items():
        lookup.traces[trace_id] = lookup.traces[trace_id].model_copy(update={"labels": tuple(labels)})
    return lookup


class KnownTrace(NamedTuple):
    """What MLflow says about a trace that it has, without the trace itself."""

    outcome: float | None
    """The environment's score; None = it was not known when the trace was written."""
    labels: tuple[Label, ...]


def known_traces(project: str, trace_ids: Sequence[str]) -> dict[str, KnownTrace]:
    """Those of the ids that the project has.

    Raises:
        ServiceUnavailable: MLflow did not answer.
    """
    known: dict[str, KnownTrace] = {}
    with mlflow_errors(f"looking for {len(trace_ids)} traces"):
        connection = connect(project)
        for start in range(0, len(trace_ids), _BATCH):
            wanted = [mlflow_id(one) for one in trace_ids[start : start + _BATCH]]
            for info in connection.tracing.store.batch_get_trace_infos(wanted):
                if info.experiment_id == connection.experiment_id:
                    known[own_id(info.trace_id)] = KnownTrace(score_of(info), tuple(to_labels(info)[0]))
    return known


def _read(found: MlflowTrace) -> FoundTrace:
    root = next((span for span in found.data.spans if span.parent_id is None), None)
    record: Any = root.attributes.get(RECORD) if root is not None else None
    where = f"MLflow trace {found.info.trace_id}"
    if record is None:
        raise CorruptRecord(f"{where}: no trace record in its root span; it was not written by Ratchet")
    text = record if isinstance(record, str) else json.dumps(record)
    labels, problems = to_labels(found.info)
    return FoundTrace(
        trace=Trace.from_json(text, where=where), labels=tuple(labels), problems=tuple(problems)
    )
