"""A question of the gate as a trace that MLflow's Review page shows well: conversation, rule, answers side by side.

Why both previews are written by hand: what MLflow derives from a span is cut at 1,000 characters, and is one message.
Why two calls: only `start_trace` takes previews, and only spans hold the whole, which "View full trace" opens.
"""

import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from mlflow.entities import TraceInfo, TraceLocation, TraceState
from mlflow.tracing.client import TracingClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from ratchet.agent.trace import Trace
from ratchet.evaluation.gate.questions import Question
from ratchet.infra.mlflow_client import Connection
from ratchet.infra.traces.lookup import look_up_traces
from ratchet.infra.traces.markdown import (
    answer_markdown,
    as_markdown,
    chat_messages_of,
    cut,
    side_by_side,
    transcript,
)
from ratchet.infra.traces.read import IGNORE
from ratchet.infra.traces.spans import comparison_id, mlflow_id
from ratchet.infra.traces.write import write_spans

QUESTION: Final = "ratchet.question"
"""Attribute of the root span: the question's JSON. It names no version."""
_NAME: Final = "comparison"
_LONGEST: Final = 1_000
"""Characters of a preview that every database takes: PostgreSQL's column is that wide."""
_LONGEST_IN_A_FILE: Final = 20_000
_BATCH: Final = 100


def write_comparisons(connection: Connection, questions: Sequence[Question]) -> None:
    """Write a trace for each question; one that is there is overwritten by the same."""
    for start in range(0, len(questions), _BATCH):
        batch = questions[start : start + _BATCH]
        asked = look_up_traces(connection.project, [one.trace_id for one in batch]).traces
        shown = [
            Shown(connection.project, one, asked[one.trace_id].trace if one.trace_id in asked else None)
            for one in batch
        ]
        write_spans(connection, _request(shown))
        with ThreadPoolExecutor(connection.n_parallel) as pool:
            list(pool.map(lambda one: _start(connection, one), shown))


class Shown:
    """What a person is shown of a question."""

    def __init__(self, project: str, question: Question, trace: Trace | None) -> None:
        steps = trace.attempts[0].steps if trace is not None and trace.attempts else ()
        self.question = question
        self.trace_id = comparison_id(project, question.question_id)
        self.at_ns = time.time_ns()
        self.messages = chat_messages_of(question.case, steps[0].observation if steps else "")
        self.answers = [answer_markdown(one) for one in question.answers]

    def request(self, limit: int) -> str:
        """What is to be answered: the last that a user said."""
        users = [one["content"] for one in self.messages if one["role"] == "user"]
        return cut((users or [self.messages[-1]["content"]])[-1], limit)

    def response(self, limit: int) -> str:
        """What was said before, a rule, and the answers; too long, it loses its beginning first."""
        why = f"\n\n*Why you are asked: {as_markdown(self.question.reason)}*" if self.question.reason else ""
        answers = side_by_side(self.question.names, self.answers)
        if len(answers) + len(why) > limit:
            each = (limit - len(why)) // len(self.answers) - 60
            answers = side_by_side(self.question.names, [cut(one, each) for one in self.answers])
        room = limit - len(answers) - len(why) - len("\n\n---\n\n")
        before = _ending(transcript(self._before()), room)
        return cut((f"{before}\n\n---\n\n" if before else "") + answers + why, limit)

    def _before(self) -> list[dict[str, str]]:
        last = max((n for n, one in enumerate(self.messages) if one["role"] == "user"), default=0)
        return [one for n, one in enumerate(self.messages) if n != last and one["role"] != "system"]

    @property
    def outputs(self) -> Mapping[str, object]:
        """The answers whole, as bubbles."""
        told = zip(self.question.names, self.answers, strict=True)
        return {"messages": [{"role": "assistant", "content": f"### {n}\n\n{text}"} for n, text in told]}


def _ending(text: str, room: int) -> str:
    """The end of a conversation, in as much room as there is."""
    if len(text) <= room:
        return text
    mark = "… (its beginning is in the full trace)\n\n"
    return mark + text[-(room - len(mark)) :] if room > len(mark) + 80 else ""


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
    limit = _LONGEST_IN_A_FILE if connection.is_sqlite else _LONGEST
    info = TraceInfo(
        trace_id=mlflow_id(shown.trace_id),
        trace_location=TraceLocation.from_experiment_id(connection.experiment_id),
        request_time=shown.at_ns // 1_000_000,
        execution_duration=0,
        state=TraceState.OK,
        request_preview=shown.request(limit),
        response_preview=shown.response(limit),
        tags={"mlflow.traceName": _NAME, IGNORE: "a question of the gate"},
    )
    TracingClient(connection.settings.tracking_uri).start_trace(info)
