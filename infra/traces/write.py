"""Traces and labels into MLflow: whole, once, and not lost when MLflow is down.

Why spans in batches: traces that MLflow's listed calls write one by one reach 11 to 50 a second. Measured with
traces of 3 spans on two idle cores, without a server: 250 traces a second, and 500 outcomes, which MLflow takes
one by one; over OTLP to a server with SQLite 80 and 20 to 45.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import mlflow
from mlflow.entities import Assessment, Span
from mlflow.tracing.client import TracingClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from ratchet.agent.errors import BadInput, CorruptRecord, ServiceUnavailable
from ratchet.agent.record import Record
from ratchet.agent.trace import Trace
from ratchet.evaluation.data.labels import Label
from ratchet.infra.mlflow_client import Connection, connect, mlflow_errors
from ratchet.infra.settings import Settings
from ratchet.infra.traces.arrivals import infos_of
from ratchet.infra.traces.assessments import Problem, outcome_assessment, outcome_of, to_assessments
from ratchet.infra.traces.read import Collected, Watermark, collect
from ratchet.infra.traces.service_clock import ahead_s, here, there
from ratchet.infra.traces.spans import export_request, mlflow_id, own_id
from ratchet.infra.traces.spool import drain_spool, spool_lines

__all__ = [
    "Collected",
    "Watermark",
    "attach_label",
    "attach_labels",
    "collect",
    "flush_spool",
    "log_traces",
    "send_labels",
    "send_traces",
    "spool_folder",
]

RecordT = TypeVar("RecordT", bound=Record)

_BATCH: Final = 300


def log_traces(project: str, traces: Sequence[Trace]) -> None:
    """Write traces, each with its outcome as an assessment; one that is already there is left alone.

    Raises:
        ServiceUnavailable: MLflow did not take them; they are in the spool (`flush_spool` sends them), unless
            the text says that the spool's disk is full as well.
    """
    sent = 0
    try:
        for sent in range(0, len(traces), _BATCH):
            send_traces(project, traces[sent : sent + _BATCH])
    except ServiceUnavailable as error:
        path = spool_folder(project) / "traces.jsonl"
        spool_lines(path, [trace.to_json() for trace in traces[sent:]])
        raise ServiceUnavailable(
            f"{error}; {len(traces) - sent} traces are kept in {path} and sent by the next flush"
        ) from error


def send_traces(project: str, traces: Sequence[Trace]) -> None:
    """Write one batch, as `log_traces` does, for a caller that keeps what MLflow did not take.

    Raises:
        ServiceUnavailable: MLflow did not take them.
    """
    with mlflow_errors(f"logging {len(traces)} traces"):
        _send(connect(project), traces)


def _send(connection: Connection, traces: Sequence[Trace]) -> None:
    """Each trace whole in one transaction, and then what its environment said of it."""
    known = _known(connection, [trace.trace_id for trace in traces])
    new = [trace for trace in traces if trace.trace_id not in known]
    if new:
        moment = there(connection)
        write_spans(connection, export_request(new, moment, ahead_s(here(), moment)))
    said = [outcome_assessment(trace) for trace in traces if not known.get(trace.trace_id)]
    with ThreadPoolExecutor(connection.n_parallel) as pool:
        list(pool.map(_log_assessment, [one for one in said if one is not None]))


def _known(connection: Connection, trace_ids: Sequence[str]) -> dict[str, bool]:
    """Of the traces that MLflow has: does it have their outcome, too?"""
    infos = infos_of(connection, [mlflow_id(one) for one in trace_ids])
    return {own_id(info.trace_id): outcome_of(info) is not None for info in infos}


def write_spans(connection: Connection, request: ExportTraceServiceRequest) -> None:
    """Hand spans to MLflow, all or none; those that it has are overwritten.

    The one call here that MLflow's reference does not list: what its own exporter uses, over OTLP to a server and
    into a database without one. The listed ones choose a trace's id themselves, so that no repeat finds it again.
    """
    spans = [Span.from_otel_proto(span) for span in request.resource_spans[0].scope_spans[0].spans]
    try:
        TracingClient(connection.settings.tracking_uri).log_spans(connection.experiment_id, spans)
    except NotImplementedError as error:  # it says so of a server that it cannot ask for its version
        raise ServiceUnavailable(f"MLflow took no spans: {error}") from error


def attach_label(project: str, label: Label) -> None:
    """Write the label as assessments of its trace; the same label twice is written once.

    Raises:
        BadInput: MLflow has no such trace; the label is kept and tried again by `flush_spool`.
        ServiceUnavailable: MLflow did not answer; the label is kept in the spool.
    """
    try:
        with mlflow_errors(f"labelling trace {label.trace_id}"):
            found, _ = _attach(connect(project), [label])
    except ServiceUnavailable as error:
        path = _keep_label(project, label)
        raise ServiceUnavailable(
            f"{error}; the label is kept in {path} and sent by the next flush"
        ) from error
    if not found:
        path = _keep_label(project, label)
        raise BadInput(
            f"label {label.label_id} by {label.rater} names trace {label.trace_id}, which MLflow lacks "
            f"in {project!r}; it is kept in {path} and tried again by the next flush"
        )


def attach_labels(project: str, labels: Sequence[Label]) -> int:
    """Write many labels of traces that MLflow has; how many were new. Those of other traces are left out.

    Raises:
        ServiceUnavailable: MLflow did not answer; the same call again writes the rest.
    """
    new = 0
    with mlflow_errors(f"writing {len(labels)} labels"):
        connection = connect(project)
        for start in range(0, len(labels), _BATCH):
            new += _attach(connection, labels[start : start + _BATCH])[1]
    return new


def send_labels(project: str, labels: Sequence[Label]) -> list[Label]:
    """Write labels for a caller that keeps what MLflow did not take; those of traces that MLflow lacks come back.

    Raises:
        ServiceUnavailable: MLflow did not answer; the same call again writes the rest.
    """
    with mlflow_errors(f"writing {len(labels)} labels"):
        known, _ = _attach(connect(project), labels)
    return [label for label in labels if label.trace_id not in known]


def _attach(connection: Connection, labels: Sequence[Label]) -> tuple[set[str], int]:
    """Traces of them that MLflow has, and how many labels were not there yet."""
    infos = infos_of(connection, list({mlflow_id(label.trace_id): None for label in labels}))
    there = {
        (own_id(info.trace_id), one.name, (one.metadata or {}).get("label_id"))
        for info in infos
        for one in info.assessments
    }
    known = {own_id(info.trace_id) for info in infos}
    new = {
        (label.trace_id, said.name, label.label_id): said
        for label in labels
        if label.trace_id in known
        for said in to_assessments(label)
    }
    missing = {key: said for key, said in new.items() if key not in there}
    with ThreadPoolExecutor(connection.n_parallel) as pool:
        list(pool.map(_log_assessment, missing.values()))
    return known, len({(trace_id, label_id) for trace_id, _, label_id in missing})


def _log_assessment(assessment: Assessment) -> None:
    mlflow.log_assessment(str(assessment.trace_id), assessment)


def _keep_label(project: str, label: Label) -> Path:
    path = spool_folder(project) / "labels.jsonl"
    spool_lines(path, [label.to_json()])
    return path


def flush_spool(project: str) -> tuple[Problem, ...]:
    """Send what is in the spool; nothing is sent twice, and what still cannot be sent stays and is told.

    Raises:
        ServiceUnavailable: MLflow still does not answer; the spool is unchanged.
    """
    folder = spool_folder(project)
    problems: list[Problem] = []

    def send_traces(lines: list[str]) -> list[str]:
        traces = _readable(lines, Trace, folder, problems)
        connection = connect(project)
        for start in range(0, len(traces), _BATCH):
            _send(connection, traces[start : start + _BATCH])
        return []

    def send_labels(lines: list[str]) -> list[str]:
        connection = connect(project)
        homeless = []
        for label in _readable(lines, Label, folder, problems):
            if not _attach(connection, [label])[0]:
                homeless.append(label.to_json())
                problems.append(
                    Problem(trace_id=label.trace_id, reason="label for a trace that MLflow does not have")
                )
        return homeless

    with mlflow_errors("sending what was kept"):
        drain_spool(folder / "traces.jsonl", send_traces)
        drain_spool(folder / "labels.jsonl", send_labels)
    return tuple(problems)


def _readable(
    lines: Sequence[str], kind: type[RecordT], folder: Path, problems: list[Problem]
) -> list[RecordT]:
    """The records; a line that does not parse is set aside in `corrupt.jsonl`."""
    records = []
    for line in lines:
        try:
            records.append(kind.from_json(line, where=str(folder)))
        except CorruptRecord as error:
            spool_lines(folder / "corrupt.jsonl", [line])
            problems.append(Problem(trace_id="", reason=f"{error}; set aside in {folder / 'corrupt.jsonl'}"))
    return records


def spool_folder(project: str) -> Path:
    """Where what could not be sent waits."""
    return Settings().home / "spool" / project
