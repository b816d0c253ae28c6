"""A trace as MLflow writes it in JSON, or holds it: its spans, and what its tags and assessments say beside them.

Previews are never read: they are cut.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from ratchet.evaluation.data.labels import ANONYMOUS, Source
from ratchet.infra.files.cells import parse_time
from ratchet.infra.traces.conversation import Assessed, Conversation, LinkedPrompt
from ratchet.infra.traces.dialects.reading import conversation_of
from ratchet.infra.traces.dialects.span import RawSpan, decoded, tokens_of

LINKED_PROMPTS: Final = "mlflow.linkedPrompts"
MADE_BY: Final = "candidate_id"
"""Tag: the version that made the trace."""
_SOURCES: Final[Mapping[str, Source]] = {
    "HUMAN": "human", "LLM_JUDGE": "judge", "AI_JUDGE": "judge", "CODE": "environment",
}  # fmt: skip


def looks_like(record: Any) -> bool:
    """Whether it is a trace of MLflow's with its spans."""
    if not isinstance(record, dict) or not isinstance(record.get("info"), dict):
        return False
    return isinstance(record.get("data"), dict) and isinstance(record["data"].get("spans"), list)


def conversations(records: Iterable[Any]) -> Iterator[Conversation]:
    """One a record."""
    for record in records:
        info, spans = record["info"], record["data"]["spans"]
        known = conversation_of_trace(
            [_span(one) for one in spans],
            tags=info.get("tags") or {},
            metadata=info.get("trace_metadata") or info.get("request_metadata") or {},
        )
        update = {
            "started_at": parse_time(info.get("request_time") or info.get("timestamp_ms")),
            "assessed": tuple(_assessed(one) for one in info.get("assessments") or []),
            "identity": ["mlflow", info.get("trace_id") or info.get("request_id")],
        }
        yield known.model_copy(update=update)


def conversation_of_trace(
    spans: Sequence[RawSpan], *, tags: Mapping[str, str], metadata: Mapping[str, str]
) -> Conversation:
    """What the spans tell, and what tags and metadata say of session, user, version and prompts."""
    told = conversation_of(spans)
    session, user = metadata.get("mlflow.trace.session"), metadata.get("mlflow.trace.user")
    used = decoded(metadata.get("mlflow.trace.tokenUsage"))
    usage = told.usage
    if isinstance(used, dict) and not (usage.input_tokens or usage.output_tokens):
        counted = tokens_of(used, used.get("input_tokens"), used.get("output_tokens"))
        usage = counted.model_copy(update={"lm_calls": usage.lm_calls}) if counted is not None else usage
    return told.model_copy(
        update={
            "session_id": _said(spans) or session or told.session_id,
            "user": user or told.user,
            "usage": usage,
            "candidate_id": tags.get(MADE_BY),
            "prompts": _linked(tags.get(LINKED_PROMPTS) or metadata.get(LINKED_PROMPTS)),
        }
    )


def _said(spans: Sequence[RawSpan]) -> str | None:
    """The session by its own attribute: MLflow takes another, such as an agent's run, where both are there."""
    found = (one.attributes.get("session.id") for one in sorted(spans, key=lambda one: one.start_ns))
    return next((str(one) for one in found if one), None)


def _linked(given: Any) -> tuple[LinkedPrompt, ...]:
    found = decoded(given)
    return tuple(
        LinkedPrompt(name=str(one["name"]), version=str(one["version"]))
        for one in (found if isinstance(found, list) else [])
        if isinstance(one, dict) and "name" in one and "version" in one
    )


def _span(entry: Mapping[str, Any]) -> RawSpan:
    """Every attribute's value is itself JSON; older exports hold plain ones."""
    attributes = {key: _decoded(value) for key, value in (entry.get("attributes") or {}).items()}
    status = entry.get("status") or {}
    code = status.get("code") if isinstance(status, dict) else entry.get("status_code")
    events = entry.get("events") or []
    named = [(str(one.get("name", "")), one.get("attributes") or {}) for one in events]
    parent = entry.get("parent_span_id") or entry.get("parent_id")
    return RawSpan(
        span_id=str(entry.get("span_id") or (entry.get("context") or {}).get("span_id") or ""),
        parent_id=str(parent) if parent else None,
        name=str(entry.get("name", "")),
        start_ns=int(entry.get("start_time_unix_nano") or entry.get("start_time") or 0),
        end_ns=int(entry.get("end_time_unix_nano") or entry.get("end_time") or 0),
        attributes=attributes,
        events=tuple(named),
        error=failure(str(code), str(status.get("message", "")) if isinstance(status, dict) else "", named),
    )


def failure(code: str, message: str, events: Iterable[tuple[str, Mapping[str, Any]]]) -> str | None:
    """Why a span failed: its exception, else its status's message; None = it did not."""
    if code not in ("STATUS_CODE_ERROR", "ERROR"):
        return None
    for name, told in events:
        if name == "exception":
            said = (told.get("exception.type"), told.get("exception.message"))
            return ": ".join(str(one) for one in said if one)
    return message or "the span ended with an error"


def _decoded(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _assessed(one: Mapping[str, Any]) -> Assessed:
    is_expected = isinstance(one.get("expectation"), dict)
    held = one.get("expectation") if is_expected else one.get("feedback")
    value = held.get("value") if isinstance(held, dict) else None
    if value is None and isinstance(held, dict):
        value = decoded((held.get("serialized_value") or {}).get("value"))
    source = one.get("source") or {}
    at = one.get("last_update_time") or one.get("create_time")
    return Assessed(
        name=str(one.get("assessment_name") or one.get("name") or ""),
        value=value,
        source=_SOURCES.get(str(source.get("source_type")), "environment"),
        rater=str(source.get("source_id") or ANONYMOUS),
        comment=str(one.get("rationale") or ""),
        at=parse_time(at) or datetime.fromtimestamp(0, UTC),
    )
