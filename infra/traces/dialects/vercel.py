"""Spans of Vercel's AI SDK: the prompt's messages and the reply's text and calls, each in JSON."""

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
    read_messages,
    tokens_of,
)
from ratchet.infra.traces.lm_calls import LmCall

_ABOUT = "ai.telemetry.metadata."


def read(span: RawSpan) -> SpanFacts | None:
    """What it says; None where no attribute is the SDK's."""
    said = span.attributes
    if not any(name.startswith("ai.") for name in said):
        return None
    facts = SpanFacts(
        session_id=first_attribute(said, f"{_ABOUT}sessionId", f"{_ABOUT}session_id"),
        user=first_attribute(said, f"{_ABOUT}userId", f"{_ABOUT}user_id"),
        output=first_attribute(said, "ai.response.text", "ai.response.object"),
    )
    if "ai.toolCall.name" in said:
        result = decoded(said.get("ai.toolCall.result"))
        facts.tool = ToolRun(
            str(said["ai.toolCall.name"]),
            said.get("ai.toolCall.id"),
            decoded(said.get("ai.toolCall.args")),
            None if result is None else as_text(result),
        )
        return facts
    asked = decoded(first_attribute(said, "ai.prompt.messages"))
    outer = decoded(said.get("ai.prompt"))
    if asked is None and isinstance(outer, dict):
        asked = outer.get("messages") or outer.get("prompt")
    if asked is not None:
        facts.lm, facts.notes = _call(said, asked, outer if isinstance(outer, dict) else {})
    sent = first_attribute(said, "ai.usage.promptTokens", "ai.usage.inputTokens", "gen_ai.usage.input_tokens")
    got = first_attribute(
        said, "ai.usage.completionTokens", "ai.usage.outputTokens", "gen_ai.usage.output_tokens"
    )
    facts.usage = tokens_of(None, sent, got)
    return facts


def _call(said: Mapping[str, Any], asked: Any, outer: Mapping[str, Any]) -> tuple[LmCall, Counter[str]]:
    notes: Counter[str] = Counter()
    given = asked if isinstance(asked, list) else [{"role": "user", "content": asked}]
    system, messages = read_messages([_message(one) for one in given], notes, otherwise="user")
    answer = {
        "role": "assistant",
        "content": first_attribute(said, "ai.response.text", "ai.response.object"),
        "reasoning": first_attribute(said, "ai.response.reasoning"),
        "tool_calls": [_part(one) for one in decoded(said.get("ai.response.toolCalls")) or []],
    }
    _, replies = read_messages([answer], notes, otherwise="assistant")
    told = outer.get("system")
    tools = [decoded(one) for one in said.get("ai.prompt.tools") or []]
    call = LmCall(
        system="\n".join(filter(None, (told if isinstance(told, str) else "", system))),
        given=tuple(messages),
        answer=replies[0] if replies[0].parts else None,
        tools=tuple(tools),
        model=first_attribute(said, "ai.model.id", "gen_ai.request.model"),
    )
    return call, notes


def _message(one: Any) -> Any:
    if not isinstance(one, dict):
        return one
    content = one.get("content")
    parts = [_part(part) for part in content] if isinstance(content, list) else content
    return {"role": one.get("role"), "content": parts}


def _part(part: Any) -> Any:
    """Their parts' names in OpenTelemetry's."""
    of = part.get("type") if isinstance(part, dict) else None
    if of == "tool-result":
        output = part.get("output", part.get("result"))
        if isinstance(output, dict) and set(output) == {"type", "value"}:
            output = output["value"]
        told = {"id": part.get("toolCallId"), "name": part.get("toolName")}
        return {"type": "tool_call_response", **told, "response": as_text(output)}
    if isinstance(part, dict) and "toolName" in part:
        arguments = part.get("input", part.get("args"))
        told = {"id": part.get("toolCallId"), "name": part["toolName"]}
        return {"type": "tool_call", **told, "arguments": decoded(arguments)}
    if of == "reasoning":
        return {"type": "reasoning", "content": part.get("text")}
    return part
