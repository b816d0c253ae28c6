"""Single traces by their id, each with what people, judges and environments said about it.

Why apart from collecting: to explain one answer must not move a watermark, nor read a project's whole past.
"""

from collections.abc import Sequence
from typing import NamedTuple

from mlflow.entities import Trace as MlflowTrace

from ratchet.agent.errors import CorruptRecord
from ratchet.agent.record import Record
from ratchet.agent.trace import Trace
from ratchet.evaluation.data.labels import Label
from ratchet.infra.mlflow_client import connect, mlflow_errors
from ratchet.infra.review.answers import effective_labels
from ratchet.infra.store.collected import collected_traces
from ratchet.infra.traces.arrivals import infos_of, traces_of
from ratchet.infra.traces.assessments import Problem, score_of, to_labels
from ratchet.infra.traces.read import foreign_of, is_own, record_of
from ratchet.infra.traces.spans import is_comparison, mlflow_id, own_id


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
    """Why: no conversation can be read from it, or its record is damaged; it is still in MLflow."""


def look_up_traces(project: str, trace_ids: Sequence[str]) -> Lookup:
    """The traces of this project among `trace_ids`; one that cannot be read hides none of the others.

    Raises:
        ServiceUnavailable: MLflow did not answer.
    """
    with mlflow_errors(f"reading {len(trace_ids)} traces"):
        connection = connect(project)
        wanted = [mlflow_id(own_id(one)) for one in dict.fromkeys(trace_ids) if not is_comparison(one)]
        found = traces_of(connection, wanted, include_spans=True)
    lookup = Lookup({}, {})
    foreign = [own_id(one.info.trace_id) for one in found.values() if one.data.spans and not is_own(one)]
    collected = {trace.trace_id: trace for trace in collected_traces(project, foreign)} if foreign else {}
    for one in found.values():
        trace_id = own_id(one.info.trace_id)
        try:
            lookup.traces[trace_id] = _read(one, collected.get(trace_id))
        except CorruptRecord as error:
            lookup.unreadable[trace_id] = str(error)
    said: dict[str, list[Label]] = {}
    for label in effective_labels(project, [label for one in lookup.traces.values() for label in one.labels]):
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
        for info in infos_of(connect(project), [mlflow_id(one) for one in trace_ids]):
            known[own_id(info.trace_id)] = KnownTrace(score_of(info), tuple(to_labels(info)[0]))
    return known


def _read(found: MlflowTrace, collected: Trace | None) -> FoundTrace:
    """Of a trace that Ratchet did not write: as it was collected, by what the project knows; else by its messages."""
    own = record_of(found.info.trace_id, found) if is_own(found) or not found.data.spans else None
    trace = own or collected or foreign_of(found)
    labels, problems = to_labels(found.info)
    return FoundTrace(trace=trace, labels=tuple(labels), problems=tuple(problems))
