"""Langfuse's exports: a trace with its observations and scores, or observations alone, in camelCase or snake_case.

Why values are read as JSON twice: an input is often a JSON string inside a JSON string.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from ratchet.agent.record import as_text
from ratchet.agent.trace import Usage
from ratchet.evaluation.data.labels import Source
from ratchet.infra.files.cells import parse_time
from ratchet.infra.traces.conversation import Assessed, Conversation, LinkedPrompt
from ratchet.infra.traces.dialects.library_values import lm_call_of
from ratchet.infra.traces.dialects.reading import conversation_of_facts
from ratchet.infra.traces.dialects.span import RawSpan, SpanFacts, ToolRun, decoded, tokens_of

_GENERATIONS: Final = ("GENERATION", "EMBEDDING")
_SOURCES: Final[Mapping[str, Source]] = {"ANNOTATION": "human", "API": "environment", "EVAL": "judge"}


def looks_like(record: Any) -> bool:
    """Whether it is a trace with observations, or an observation."""
    if not isinstance(record, dict):
        return False
    observations = record.get("observations")
    if isinstance(observations, list):
        return all(isinstance(one, dict) and "type" in one and _get(one, "startTime") for one in observations)
    return {"type", "traceId"} <= record.keys() or {"trace_id", "parent_observation_id"} <= record.keys()


def conversations(records: Iterable[Any]) -> Iterator[Conversation]:
    """One a trace; rows that stand alone (observations, scores, traces) are put together by the trace's id."""
    loose: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        if isinstance(record.get("observations"), list):
            about = record.get("trace") if isinstance(record.get("trace"), dict) else record
            yield _conversation(about, record["observations"])
        else:
            loose.setdefault(str(_get(record, "traceId") or record.get("id")), []).append(record)
    for trace_id, rows in loose.items():
        observations = [row for row in rows if _get(row, "startTime")]
        others = [row for row in rows if not _get(row, "startTime")]
        scores = [row for row in others if _get(row, "dataType")]
        about = next((row for row in others if row not in scores), {})
        yield _conversation({**about, "id": trace_id, "scores": scores}, observations)


def _conversation(trace: Mapping[str, Any], observations: Iterable[Any]) -> Conversation:
    entries = [one for one in observations if isinstance(one, dict)]
    spans = [_span(one) for one in entries]
    facts = {span.span_id: _facts(one) for span, one in zip(spans, entries, strict=True)}
    told = conversation_of_facts(spans, facts)
    at = parse_time(_get(trace, "timestamp")) or min(
        (datetime.fromtimestamp(span.start_ns / 1e9, UTC) for span in spans), default=None
    )
    session = _get(trace, "sessionId") or next(
        (_get(one, "sessionId") for one in entries if _get(one, "sessionId")), None
    )
    user = _get(trace, "userId") or next(
        (_get(one, "userId") for one in entries if _get(one, "userId")), None
    )
    inputs, output = _twice(trace.get("input")), _twice(trace.get("output"))
    return told.model_copy(
        update={
            "inputs": told.inputs if inputs is None else inputs,
            "output": told.output if output is None else output,
            "session_id": session and str(session),
            "user": user and str(user),
            "started_at": at,
            "assessed": tuple(_assessed(one) for one in trace.get("scores") or [] if isinstance(one, dict)),
            "prompts": tuple(_prompts(entries)),
            "identity": ["langfuse", _get(trace, "id")],
        }
    )


def _prompts(entries: Iterable[Mapping[str, Any]]) -> Iterator[LinkedPrompt]:
    named = {(_get(one, "promptName"), _get(one, "promptVersion")) for one in entries}
    for name, version in sorted((str(n), str(v)) for n, v in named if n and v is not None):
        yield LinkedPrompt(name=name, version=version)


def _span(one: Mapping[str, Any]) -> RawSpan:
    failed = one.get("level") == "ERROR"
    return RawSpan(
        span_id=str(_get(one, "id")),
        parent_id=str(_get(one, "parentObservationId") or "") or None,
        name=str(one.get("name") or ""),
        start_ns=_nanoseconds(_get(one, "startTime")),
        end_ns=_nanoseconds(_get(one, "endTime")) or _nanoseconds(_get(one, "startTime")),
        attributes={},
        error=str(_get(one, "statusMessage") or "the observation ended with an error") if failed else None,
    )


def _facts(one: Mapping[str, Any]) -> SpanFacts:
    inputs, output = _twice(one.get("input")), _twice(one.get("output"))
    facts = SpanFacts(inputs=inputs, output=output, usage=_usage(one))
    kind = str(one.get("type") or "").upper()
    if kind in _GENERATIONS:
        notes: Counter[str] = Counter()
        asked, tools = _without_definitions(inputs)
        facts.lm = lm_call_of(asked, output, notes, tools=tools or None)
        if facts.lm is not None:
            model = _get(one, "model") or _get(one, "providedModelName")
            facts.lm = facts.lm.model_copy(update={"model": str(model) if model else facts.lm.model})
            facts.notes = notes
    elif kind == "TOOL":
        call_id = inputs.get("id") if isinstance(inputs, dict) else None
        result = None if output is None else as_text(output)
        facts.tool = ToolRun(str(one.get("name") or ""), call_id and str(call_id), inputs, result)
    return facts


def _without_definitions(inputs: Any) -> tuple[Any, list[Any]]:
    """Definitions of tools may stand among the messages, as role `tool` with a schema that answers no call."""
    given = inputs.get("messages") if isinstance(inputs, dict) else inputs
    if isinstance(given, str):
        return [{"role": "user", "content": given}], []
    if not isinstance(given, list):
        return inputs, []
    tools = [one["content"] for one in given if _is_definition(one)]
    rest = [one for one in given if not _is_definition(one)]
    return ({**inputs, "messages": rest} if isinstance(inputs, dict) else rest), tools


def _is_definition(one: Any) -> bool:
    if not isinstance(one, dict) or one.get("role") != "tool" or one.get("tool_call_id"):
        return False
    held = decoded(one.get("content"))
    return isinstance(held, dict) and ("function" in held or {"name", "parameters"} <= held.keys())


def _usage(one: Mapping[str, Any]) -> Usage | None:
    told = decoded(_get(one, "usageDetails") or one.get("usage"))
    if not isinstance(told, dict):
        return None
    sent = next(
        (told[k] for k in ("input", "promptTokens", "input_tokens", "prompt_tokens") if told.get(k)), None
    )
    got = next(
        (
            told[k]
            for k in ("output", "completionTokens", "output_tokens", "completion_tokens")
            if told.get(k)
        ),
        None,
    )
    return tokens_of(told, sent, got)


def _assessed(score: Mapping[str, Any]) -> Assessed:
    kind, text = _get(score, "dataType"), _get(score, "stringValue")
    value = score.get("value")
    if kind == "BOOLEAN" and value in (0, 1):
        value = bool(value)
    elif value is None or (kind in ("CORRECTION", "CATEGORICAL") and text):
        value = text
    return Assessed(
        name=str(score.get("name") or ""),
        value=value,
        kind="expected" if kind == "CORRECTION" else None,
        source=_SOURCES.get(str(score.get("source")), "environment"),
        rater=str(_get(score, "authorUserId") or score.get("source") or ""),
        comment=str(score.get("comment") or ""),
        at=parse_time(_get(score, "timestamp") or _get(score, "createdAt")),
    )


def _twice(value: Any) -> Any:
    return decoded(decoded(value))


def _nanoseconds(value: Any) -> int:
    at = parse_time(value)
    return 0 if at is None else int(at.timestamp() * 1e9)


def _get(entry: Mapping[str, Any], name: str) -> Any:
    snake = "".join(f"_{one.lower()}" if one.isupper() else one for one in name)
    return entry[name] if name in entry else entry.get(snake)
