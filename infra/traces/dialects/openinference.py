"""OpenInference (Arize): everything flattened into attributes by dots and numbers."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ratchet.agent.record import as_text
from ratchet.infra.traces.dialects.library_values import lm_call_of
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


def read(span: RawSpan) -> SpanFacts | None:
    """What it says; None where no attribute is OpenInference's."""
    said = span.attributes
    kind = said.get("openinference.span.kind")
    if kind is None and "input.value" not in said:
        return None
    facts = SpanFacts(
        inputs=decoded(said.get("input.value")),
        output=decoded(said.get("output.value")),
        session_id=said.get("session.id"),
        user=said.get("user.id"),
    )
    facts.usage = tokens_of(None, said.get("llm.token_count.prompt"), said.get("llm.token_count.completion"))
    if kind == "LLM":
        facts.lm, facts.notes = _call(said)
    elif kind == "TOOL":
        facts.tool = _tool(said, span)
    return facts


def _call(said: Mapping[str, Any]) -> tuple[LmCall | None, Counter[str]]:
    notes: Counter[str] = Counter()
    asked, answered = _all(said, "input"), _all(said, "output")
    model = first_attribute(said, "llm.model_name")
    if not asked and not answered:
        return lm_call_of(said.get("input.value"), said.get("output.value"), notes), notes
    system, given = read_messages(asked, notes, otherwise="user")
    _, replies = read_messages(answered, notes, otherwise="assistant")
    tools = nested(said, "llm.tools.")
    defined = (
        [decoded(one.get("tool", {}).get("json_schema")) for one in tools] if isinstance(tools, list) else []
    )
    answer = replies[0] if replies else None
    tools_given = tuple(one for one in defined if one is not None)
    return LmCall(system=system, given=tuple(given), answer=answer, tools=tools_given, model=model), notes


def _all(said: Mapping[str, Any], which: str) -> list[dict[str, Any]]:
    found = nested(said, f"llm.{which}_messages.")
    return [_message(one.get("message", {})) for one in found] if isinstance(found, list) else []


def _message(one: Mapping[str, Any]) -> dict[str, Any]:
    contents = one.get("contents")
    message: dict[str, Any] = {
        "role": one.get("role"),
        "name": one.get("name"),
        "tool_call_id": one.get("tool_call_id"),
    }
    message["content"] = (
        [_part(part.get("message_content", {})) for part in contents]
        if isinstance(contents, list)
        else one.get("content")
    )
    calls = one.get("tool_calls")
    message["tool_calls"] = [call.get("tool_call", call) for call in calls] if isinstance(calls, list) else []
    older = one.get("function_call_name")
    if older:
        call = {"name": older, "arguments": one.get("function_call_arguments_json")}
        message["tool_calls"] = [*message["tool_calls"], call]
    return message


def _part(content: Mapping[str, Any]) -> dict[str, Any]:
    if content.get("type") == "text":
        return {"type": "text", "text": content.get("text")}
    return dict(content)


def _tool(said: Mapping[str, Any], span: RawSpan) -> ToolRun:
    arguments = first_attribute(said, "tool.parameters", "input.value")
    result, call_id = said.get("output.value"), first_attribute(said, "tool.id", "tool_call.id")
    return ToolRun(
        name=str(first_attribute(said, "tool.name") or span.name),
        call_id=None if call_id is None else str(call_id),
        arguments=decoded(arguments),
        result=None if result is None else as_text(result),
    )
