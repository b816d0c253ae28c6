"""OpenLLMetry (Traceloop) before it took up the conventions: messages flattened by number into attributes."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ratchet.agent.record import as_text
from ratchet.infra.traces.dialects.span import (
    RawSpan,
    SpanFacts,
    ToolRun,
    decoded,
    first_attribute,
    nested,
    read_messages,
    tokens_of,
)
from ratchet.infra.traces.lm_calls import LmCall

_SESSION = "traceloop.association.properties.session_id"
_USER = "traceloop.association.properties.user_id"


def read(span: RawSpan) -> SpanFacts | None:
    """What it says; None where no attribute is OpenLLMetry's."""
    said = span.attributes
    has_messages = any(name.startswith(("gen_ai.prompt.", "gen_ai.completion.")) for name in said)
    if not has_messages and not any(name.startswith("traceloop.") for name in said):
        return None
    inputs, output = _entity(said.get("traceloop.entity.input")), _value(said.get("traceloop.entity.output"))
    facts = SpanFacts(session_id=said.get(_SESSION), user=said.get(_USER), inputs=inputs, output=output)
    if said.get("traceloop.span.kind") == "tool":
        name = str(first_attribute(said, "traceloop.entity.name") or span.name)
        facts.tool = ToolRun(name, None, inputs, None if output is None else as_text(output))
    elif has_messages:
        facts.lm, facts.notes = _call(said)
        sent = first_attribute(
            said, "gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.usage.prompt_tokens"
        )
        got = first_attribute(
            said,
            "gen_ai.usage.output_tokens",
            "gen_ai.usage.completion_tokens",
            "llm.usage.completion_tokens",
        )
        facts.usage = tokens_of(None, sent, got)
    return facts


def _call(said: Mapping[str, Any]) -> tuple[LmCall, Counter[str]]:
    notes: Counter[str] = Counter()
    system, given = read_messages([_message(m) for m in _all(said, "prompt")], notes, otherwise="user")
    _, replies = read_messages([_message(m) for m in _all(said, "completion")], notes, otherwise="assistant")
    functions = nested(said, "llm.request.functions.")
    tools = [
        {"type": "function", "function": {**one, "parameters": decoded(one.get("parameters"))}}
        for one in (functions if isinstance(functions, list) else [])
        if isinstance(one, dict)
    ]
    model = first_attribute(said, "gen_ai.request.model", "gen_ai.response.model")
    answer = replies[0] if replies else None
    return LmCall(system=system, given=tuple(given), answer=answer, tools=tuple(tools), model=model), notes


def _all(said: Mapping[str, Any], what: str) -> list[Any]:
    found = nested(said, f"gen_ai.{what}.")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _message(one: Mapping[str, Any]) -> dict[str, Any]:
    content = decoded(one.get("content"))
    message = {"role": one.get("role"), "tool_call_id": one.get("tool_call_id")}
    message["content"] = content if isinstance(content, list) else one.get("content")
    calls = one.get("tool_calls")
    message["tool_calls"] = calls if isinstance(calls, list) else []
    if message["role"] is None:
        del message["role"]
    return message


def _entity(given: Any) -> Any:
    """What a decorated function was given: its arguments by name, where all have one."""
    told = decoded(given)
    if isinstance(told, dict) and isinstance(told.get("kwargs"), dict) and not told.get("args"):
        return told["kwargs"]
    return told.get("inputs", told) if isinstance(told, dict) else told


def _value(given: Any) -> Any:
    told = decoded(given)
    return told.get("outputs", told) if isinstance(told, dict) else told
