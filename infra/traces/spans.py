"""A trace as OpenTelemetry spans: a tree that a person can read, with the whole record in the root.

Why both: the Trace page shows request, attempts, steps and answer, the outermost span as a chat; the record comes
back without loss because it travels as one JSON attribute, not because somebody puts the tree together again.
"""

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span, Status

from ratchet.agent.record import Json, content_hash
from ratchet.agent.trace import Attempt, Trace
from ratchet.infra.traces.markdown import chat_messages_of, first_seen, reply_markdown

RECORD_ATTRIBUTE: Final = "ratchet.trace"
"""Attribute of the root span: the trace's JSON."""
RECEIVED: Final = "ratchet.received"
"""Tag: when MLflow was handed the trace (ISO, UTC, by MLflow's clock where it can be asked)."""
CLOCK: Final = "ratchet.clock_ahead_s"
"""Tag of a trace whose writer's clock is not MLflow's: by how many seconds it is ahead (negative: behind)."""
_COMPARISON: Final = "c0ffee00a5cedb10"
"""Begins the ids of traces that show people a question; a trace of an agent has it once in 2⁶⁴."""
_TAG: Final = "mlflow.traceTag."


def mlflow_id(trace_id: str) -> str:
    """MLflow's id of a trace."""
    return f"tr-{trace_id}"


def own_id(mlflow_trace_id: str) -> str:
    """Our id of MLflow's trace."""
    return mlflow_trace_id.removeprefix("tr-")


def comparison_id(project: str, question_id: str) -> str:
    """Our id of the trace that shows people a question of a project's gate.

    Why the id says what it is: a tag may be written and deleted by whoever may label, and then a question would be
    collected as an answer of the agent.
    """
    return _COMPARISON + content_hash([project, question_id], length=32 - len(_COMPARISON))


def is_comparison(trace_id: str) -> bool:
    """Whether this, our id or MLflow's, is that of a question of the gate and not of an answer of the agent."""
    return own_id(trace_id).startswith(_COMPARISON)


def export_request(
    traces: Sequence[Trace], received: datetime, ahead_s: int = 0
) -> ExportTraceServiceRequest:
    """One OTLP request with all spans of all traces; `ahead_s`: the writer's clock less MLflow's."""
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    scope.scope.name = "ratchet"
    for trace in traces:
        _add_trace(scope, trace, received, ahead_s)
    return request


def _add_trace(scope: ScopeSpans, trace: Trace, received: datetime, ahead_s: int) -> None:
    start = int(trace.started_at.timestamp() * 1e9)
    end = start + int(trace.latency_s * 1e9)
    root = _span(scope, trace, "", "agent", "AGENT", (start, end))
    _set(root, "mlflow.spanInputs", {"messages": chat_messages_of(trace.case, first_seen(trace))})
    _set(root, "mlflow.spanOutputs", _reply(trace))
    _set(root, RECORD_ATTRIBUTE, trace.to_json())
    for name, value in _tags(trace, received, ahead_s).items():
        _set(root, _TAG + name, value)
    if trace.session_id is not None:
        _set(root, "session.id", trace.session_id)
    if trace.user is not None:
        _set(root, "user.id", trace.user)
    _set(root, "mlflow.chat.tokenUsage", _token_usage(trace))
    if trace.error is not None:
        root.status.code = Status.STATUS_CODE_ERROR
        root.status.message = f"{trace.error.kind}: {trace.error.message}"
    for number, (attempt, times) in enumerate(
        zip(
            trace.attempts, _shares((start, end), [max(len(a.steps), 1) for a in trace.attempts]), strict=True
        ),
        start=1,
    ):
        _add_attempt(scope, trace, attempt, number, times)


def _add_attempt(
    scope: ScopeSpans, trace: Trace, attempt: Attempt, number: int, times: tuple[int, int]
) -> None:
    key = f"attempt {number}"
    span = _span(scope, trace, key, key, "CHAIN", times, parent="")
    _set(span, "mlflow.spanInputs", {"recalled": list(attempt.recalled)})
    _set(span, "mlflow.spanOutputs", attempt.outcome.model_dump(mode="json"))
    if attempt.reflection is not None:
        _set(span, "reflection", attempt.reflection)
    for index, (step, moment) in enumerate(
        zip(attempt.steps, _shares(times, [1] * len(attempt.steps)), strict=True), start=1
    ):
        *before, last = _shares(moment, [1] * (len(step.parts) + 1))
        for place, (part, then) in enumerate(zip(step.parts, before, strict=True), start=1):
            said = _span(scope, trace, f"{key}.{index}.{place}", part.actor, "AGENT", then, parent=key)
            _set(said, "mlflow.spanInputs", {"observation": part.observation or step.observation})
            _set(said, "mlflow.spanOutputs", part.model_dump(mode="json", exclude={"observation", "actor"}))
        leaf = _span(scope, trace, f"{key}.{index}", step.actor, "TOOL", last, parent=key)
        _set(leaf, "mlflow.spanInputs", {"observation": step.observation})
        _set(
            leaf,
            "mlflow.spanOutputs",
            step.model_dump(mode="json", exclude={"observation", "actor", "parts"}),
        )


def _span(
    scope: ScopeSpans,
    trace: Trace,
    key: str,
    name: str,
    kind: str,
    times: tuple[int, int],
    parent: str | None = None,
) -> Span:
    span: Span = scope.spans.add()
    span.trace_id = bytes.fromhex(trace.trace_id)
    span.span_id = _span_id(trace, key)
    if parent is not None:
        span.parent_span_id = _span_id(trace, parent)
    span.name = name
    span.start_time_unix_nano, span.end_time_unix_nano = times
    span.status.code = Status.STATUS_CODE_OK
    _set(span, "mlflow.spanType", kind)
    return span


def _span_id(trace: Trace, key: str) -> bytes:
    """Derived, not drawn: sending a trace twice overwrites its spans instead of doubling them."""
    return hashlib.sha256(f"{trace.trace_id}/{key}".encode()).digest()[:8]


def _shares(times: tuple[int, int], weights: list[int]) -> list[tuple[int, int]]:
    """The interval cut in proportion to `weights`: only the whole run was timed."""
    start, end = times
    total = max(sum(weights), 1)
    cuts = [start + (end - start) * sum(weights[:i]) // total for i in range(len(weights) + 1)]
    return list(pairwise(cuts))


def _reply(trace: Trace) -> Json:
    """The answer as a chat endpoint gives it: of this form MLflow's previews, and its bubbles, are the text alone."""
    return {"choices": [{"message": {"role": "assistant", "content": reply_markdown(trace)}}]}


def _tags(trace: Trace, received: datetime, ahead_s: int) -> dict[str, str]:
    """Few: behind a server each costs MLflow two queries a trace."""
    tags = {
        "candidate_id": trace.candidate_id,
        "memory_id": trace.memory_id,
        "slice": trace.case.slice,
        RECEIVED: received.astimezone(UTC).isoformat(),
        CLOCK: str(ahead_s) if ahead_s else None,
        "mlflow.traceName": "agent",
    }
    return {name: value for name, value in tags.items() if value is not None}


def _token_usage(trace: Trace) -> dict[str, int]:
    used = trace.usage
    return {
        "input_tokens": used.input_tokens,
        "output_tokens": used.output_tokens,
        "total_tokens": used.input_tokens + used.output_tokens,
    }


def _set(span: Span, key: str, value: Any) -> None:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    span.attributes.append(KeyValue(key=key, value=AnyValue(string_value=text)))
