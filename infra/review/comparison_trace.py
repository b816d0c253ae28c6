"""A question of the gate as a trace that MLflow's Review page shows well: conversation, rule, answers side by side.

Why two calls: only one takes previews, and only spans hold the whole, which "View full trace" opens.
"""

import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from mlflow.entities import TraceInfo, TraceLocation, TraceState
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from ratchet.agent.trace import Trace
from ratchet.evaluation.gate.questions import Question
from ratchet.infra.mlflow_client import Connection
from ratchet.infra.review.previews import (
    longest_preview,
    request_preview,
    response_preview,
    write_previews,
)
from ratchet.infra.store.collected import collected_traces
from ratchet.infra.traces.markdown import (
    answer_markdown,
    chat_messages_of,
    cut,
    first_seen,
    side_by_side,
)
from ratchet.infra.traces.read import IGNORE
from ratchet.infra.traces.spans import comparison_id, mlflow_id
from ratchet.infra.traces.write import write_spans

QUESTION: Final = "ratchet.question"
"""Attribute of the root span: the question's JSON. It names no version."""
_NAME: Final = "comparison"
_FOR_THE_REASON: Final = 250
_FOR_MARKS: Final = 60
"""Characters of a preview that are kept for what stands around the answers."""
_BATCH: Final = 100


def write_comparisons(connection: Connection, questions: Sequence[Question]) -> None:
    """Write a trace for each question; one that is there is overwritten by the same."""
    for start in range(0, len(questions), _BATCH):
        batch = questions[start : start + _BATCH]
        collected = collected_traces(connection.project, [one.trace_id for one in batch])
        traces = {trace.trace_id: trace for trace in collected}
        shown = [Shown(connection.project, one, traces.get(one.trace_id)) for one in batch]
        write_spans(connection, _request(shown))
        with ThreadPoolExecutor(connection.n_parallel) as pool:
            list(pool.map(lambda one: _start(connection, one), shown))


class Shown:
    """What a person is shown of a question."""

    def __init__(self, project: str, question: Question, trace: Trace | None) -> None:
        self.question = question
        self.trace_id = comparison_id(project, question.question_id)
        self.at_ns = time.time_ns()
        self.messages = chat_messages_of(question.case, first_seen(trace) if trace is not None else "")
        self.answers = [answer_markdown(one) for one in question.answers]

    def response(self, limit: int) -> str:
        """The conversation and the answers; too long, each answer is cut alike."""
        names, answers = self.question.names, side_by_side(self.question.names, self.answers)
        if len(answers) > (room := limit - _FOR_THE_REASON):
            each = room // len(names) - _FOR_MARKS
            answers = side_by_side(names, [cut(one, each) for one in self.answers])
        return response_preview(self.messages, answers, self.question.reason, limit)

    @property
    def outputs(self) -> Mapping[str, object]:
        """The answers whole, as bubbles."""
        told = zip(self.question.names, self.answers, strict=True)
        return {"messages": [{"role": "assistant", "content": f"### {n}\n\n{text}"} for n, text in told]}


def _request(shown: Sequence[Shown]) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    scope.scope.name = "ratchet"
    for one in shown:
        trace_id = bytes.fromhex(one.trace_id)
        span = scope.spans.add(trace_id=trace_id, span_id=trace_id[-8:], name=_NAME)
        span.start_time_unix_nano = span.end_time_unix_nano = one.at_ns
        span.status.code = Status.STATUS_CODE_OK
        for key, value in _attributes(one).items():
            span.attributes.append(KeyValue(key=key, value=AnyValue(string_value=value)))
    return request


def _attributes(shown: Shown) -> dict[str, str]:
    return {
        "mlflow.spanType": "CHAIN",
        "mlflow.spanInputs": json.dumps({"messages": shown.messages}, ensure_ascii=False),
        "mlflow.spanOutputs": json.dumps(shown.outputs, ensure_ascii=False),
        QUESTION: shown.question.to_json(),
    }


def _start(connection: Connection, shown: Shown) -> None:
    limit = longest_preview(connection)
    info = TraceInfo(
        trace_id=mlflow_id(shown.trace_id),
        trace_location=TraceLocation.from_experiment_id(connection.experiment_id),
        request_time=shown.at_ns // 1_000_000,
        execution_duration=0,
        state=TraceState.OK,
    )
    write_previews(
        connection,
        info,
        request=request_preview(shown.messages, limit),
        response=shown.response(limit),
        tags={"mlflow.traceName": _NAME, IGNORE: "a question of the gate"},
    )
