"""Traces and labels into MLflow: whole, once, and not lost when MLflow is down.

Why OTLP batches: single calls reach 11 to 50 traces a second. Measured with 300 traces of 3 spans on two busy
cores: without a server, where the same spans go into the database in one transaction a batch (`trace_rows`),
480/s with outcomes; over OTLP to a server with SQLite 80/s, and 20 to 45 outcomes a second, which MLflow takes
one by one.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from mlflow.entities import Assessment, Span
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from agent.errors import BadInput, CorruptRecord, ServiceUnavailable
from agent.record import Record
from agent.trace import Trace
from evaluation.label import Label
from infra.assessments import OUTCOME, Problem, outcome_assessment, to_assessments
from infra.service_clock import ahead_s, here, there
from infra.settings import Settings
from infra.spool import drain_spool, spool_lines
from infra.trace_reader import Collected, Watermark, collect
from infra.trace_rows import insert_traces
from infra.trace_spans import export_request, mlflow_id, own_id
from infra.tracking import Connection, connect, mlflow_errors

__all__ = [
    "Collected",
    "Flushed",
    "Watermark",
    "attach_label",
    "collect",
    "flush_spool",
    "log_traces",
    "spool_folder",
]

RecordT = TypeVar("RecordT", bound=Record)

_BATCH: Final = 300
_PARALLEL: Final = 8


class Flushed(Record):
    """What `flush_spool` sent, and what it could not."""

    traces: int
    labels: int
    problems: tuple[Problem, ...] = ()


def log_traces(project: str, traces: Sequence[Trace]) -> None:
    """Write traces, each with its outcome as an assessment; one that is already there is left alone.

    Raises:
        ServiceUnavailable: MLflow did not take them; they are in the spool (`flush_spool` sends them), unless
            the text says that the spool's disk is full as well.
    """
    sent = 0
    try:
        with mlflow_errors(f"logging {len(traces)} traces"):
            connection = connect(project)
            for sent in range(0, len(traces), _BATCH):
                _send(connection, traces[sent : sent + _BATCH])
    except ServiceUnavailable as error:
        path = spool_folder(project) / "traces.jsonl"
        spool_lines(path, [trace.to_json() for trace in traces[sent:]])
        raise ServiceUnavailable(
            f"{error}; {len(traces) - sent} traces are kept in {path} and sent by the next flush"
        ) from error


def _send(connection: Connection, traces: Sequence[Trace]) -> None:
    moment = there(connection)
    ahead = ahead_s(here(), moment)
    store = connection.tracing.store
    if isinstance(store, SqlAlchemyStore):
        request = export_request(traces, moment, ahead)
        spans = [Span.from_otel_proto(span) for span in request.resource_spans[0].scope_spans[0].spans]
        said = {mlflow_id(trace.trace_id): _outcome(trace) for trace in traces}
        insert_traces(store, connection.experiment_id, spans, said)
        return
    known = _known(connection, [trace.trace_id for trace in traces])
    new = [trace for trace in traces if trace.trace_id not in known]
    if new:
        post_spans(connection, export_request(new, moment, ahead))
    missing = [one for trace in traces if not known.get(trace.trace_id) for one in _outcome(trace)]
    with ThreadPoolExecutor(_PARALLEL) as pool:
        list(pool.map(store.create_assessment, missing))


def _known(connection: Connection, trace_ids: Sequence[str]) -> dict[str, bool]:
    """Of the traces that the server has: does it have their outcome, too?"""
    infos = connection.tracing.store.batch_get_trace_infos([mlflow_id(one) for one in trace_ids])
    return {own_id(info.trace_id): any(a.name == OUTCOME for a in info.assessments) for info in infos}


def _outcome(trace: Trace) -> list[Assessment]:
    assessment = outcome_assessment(trace)
    return [] if assessment is None else [assessment]


def post_spans(connection: Connection, request: ExportTraceServiceRequest) -> None:
    """Hand spans to MLflow's server; those that it has are overwritten."""
    response = http_request(  # type: ignore[no-untyped-call]
        host_creds=get_default_host_creds(connection.settings.tracking_uri),  # type: ignore[no-untyped-call]
        endpoint="/v1/traces",
        method="POST",
        extra_headers={
            "Content-Type": "application/x-protobuf",
            "x-mlflow-experiment-id": connection.experiment_id,
        },
        data=request.SerializeToString(),
    )
    if response.status_code != 200:
        raise ServiceUnavailable(f"MLflow answered {response.status_code} to a batch: {response.text[:200]}")


def attach_label(project: str, label: Label) -> None:
    """Write the label as assessments of its trace; the same label twice is written once.

    Raises:
        BadInput: MLflow has no such trace; the label is kept and tried again by `flush_spool`.
        ServiceUnavailable: MLflow did not answer; the label is kept in the spool.
    """
    try:
        with mlflow_errors(f"labelling trace {label.trace_id}"):
            found = _attach(connect(project), label)
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


def _attach(connection: Connection, label: Label) -> bool:
    store = connection.tracing.store
    infos = store.batch_get_trace_infos([mlflow_id(label.trace_id)])
    infos = [info for info in infos if info.experiment_id == connection.experiment_id]
    if not infos:
        return False
    there = {(a.name, (a.metadata or {}).get("label_id")) for a in infos[0].assessments}
    for assessment in to_assessments(label):
        if (assessment.name, label.label_id) not in there:
            store.create_assessment(assessment)
    return True


def _keep_label(project: str, label: Label) -> Path:
    path = spool_folder(project) / "labels.jsonl"
    spool_lines(path, [label.to_json()])
    return path


def flush_spool(project: str) -> Flushed:
    """Send what is in the spool; nothing is sent twice, and what still cannot be sent stays.

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
            if not _attach(connection, label):
                homeless.append(label.to_json())
                problems.append(
                    Problem(trace_id=label.trace_id, reason="label for a trace that MLflow does not have")
                )
        return homeless

    with mlflow_errors("sending what was kept"):
        n_traces = drain_spool(folder / "traces.jsonl", send_traces)
        n_labels = drain_spool(folder / "labels.jsonl", send_labels)
    return Flushed(traces=n_traces, labels=n_labels, problems=tuple(problems))


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
