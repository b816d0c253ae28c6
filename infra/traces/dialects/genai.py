"""OpenTelemetry's GenAI conventions: messages as parts on the span, or, older, as events beside it.

Why both at once: the same instrumentation writes one or the other by a variable of its process, and PydanticAI and
OpenLLMetry write the new one under attributes of their own, too.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from ratchet.agent.record import as_text
from ratchet.infra.traces.dialects.library_messages import chat_messages_of
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

_ROLES: Final = {f"gen_ai.{role}.message": role for role in ("system", "user", "assistant", "tool")}
_CHOICE: Final = "gen_ai.choice"
_IN, _OUT, _SYSTEM = "gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions"
_DETAILS: Final = "gen_ai.client.inference.operation.details"
_NOT_RECORDED: Final = (
    "call of an LM whose messages were not recorded: set OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
)
_LM: Final = ("chat", "generate_content", "text_completion")


def read(span: RawSpan) -> SpanFacts | None:
    """What it says; None where nothing in it is of these conventions."""
    said = dict(span.attributes)
    for name, event in span.events:
        if name == _DETAILS:
            said |= {key: value for key, value in event.items() if key.startswith("gen_ai.")}
    if not any(name.startswith(("gen_ai.", "pydantic_ai.")) for name in said) and not _has_events(span):
        return None
    facts = SpanFacts(session_id=_session(said), usage=_usage(said))
    if said.get("gen_ai.operation.name") == "execute_tool" or "gen_ai.tool.call.result" in said:
        facts.tool = _tool(said, span)
        return facts
    asked, answered = _messages(said, span)
    notes: Counter[str] = Counter()
    if asked or answered:
        call = _call(said, asked, answered, notes)
        is_agent = said.get("gen_ai.operation.name") in ("invoke_agent", "create_agent", "invoke_workflow")
        if is_agent:
            facts.history = call
        elif _has_content(call):
            facts.lm = call
    whole = decoded(said.get("pydantic_ai.all_messages") or said.get("all_messages_events"))
    if facts.history is None and isinstance(whole, list):
        facts.history = _call(said, whole, [], notes)
    facts.output = decoded(said.get("final_result"))
    facts.notes = notes
    if facts.lm is None and said.get("gen_ai.operation.name") in _LM:
        facts.notes[_NOT_RECORDED] += 1
    return facts


def _call(said: Mapping[str, Any], asked: Any, answered: Any, notes: Counter[str]) -> LmCall:
    told = _instructions(decoded(said.get(_SYSTEM)))
    system, given = read_messages(_known(asked), notes, otherwise="user")
    _, replies = read_messages(_known(answered), notes, otherwise="assistant")
    tools = decoded(said.get("gen_ai.tool.definitions"))
    return LmCall(
        system="\n".join(filter(None, (told, system))),
        given=tuple(given),
        answer=replies[0] if replies else None,
        tools=tuple(tools) if isinstance(tools, list) else (),
        model=_model(said),
        response_id=first_attribute(said, "gen_ai.response.id"),
    )


def _has_content(call: LmCall) -> bool:
    """Whether what was said is there: by default these instrumentations leave it out."""
    return any(message.text or message.answers for message in call.given) or (
        call.answer is not None and bool(call.answer.text)
    )


def _model(said: Mapping[str, Any]) -> str | None:
    named = first_attribute(said, "gen_ai.request.model", "gen_ai.response.model", "model_name")
    return None if named is None else str(named)


def _known(given: Any) -> list[Any]:
    found = decoded(given)
    if isinstance(found, dict):
        found = [found]
    return [one for message in found or [] for one in chat_messages_of(decoded(message))]


def _instructions(given: Any) -> str:
    if isinstance(given, list):
        return read_messages([{"role": "system", "parts": given}], Counter(), otherwise="system")[0]
    return given if isinstance(given, str) else ""


def _messages(said: Mapping[str, Any], span: RawSpan) -> tuple[Any, Any]:
    """What the LM was asked and answered, by whatever name."""
    if said.get(_IN) is not None or said.get(_OUT) is not None:
        return decoded(said.get(_IN)) or [], decoded(said.get(_OUT)) or []
    events = [*span.events, *_events_attribute(said.get("events"))]
    if any(name in _ROLES or name == _CHOICE for name, _ in events):
        asked = [_event_message(_ROLES[name], event) for name, event in events if name in _ROLES]
        replies = [_choice(event) for name, event in events if name == _CHOICE]
        return asked, replies
    prompt, completion = decoded(said.get("gen_ai.prompt")), decoded(said.get("gen_ai.completion"))
    for _, event in events:  # before 1.28
        prompt = decoded(event.get("gen_ai.prompt")) or prompt
        completion = decoded(event.get("gen_ai.completion")) or completion
    return _as_messages(prompt, "user"), _as_messages(completion, "assistant")


def _events_attribute(given: Any) -> list[tuple[str, Mapping[str, Any]]]:
    """PydanticAI's first way: the events as one attribute in JSON."""
    events = decoded(given)
    if not isinstance(events, list):
        return []
    return [(str(one.get("event.name")), one) for one in events if isinstance(one, dict)]


def _event_message(role: str, event: Mapping[str, Any]) -> dict[str, Any]:
    message = {key: decoded(event[key]) for key in ("tool_calls",) if event.get(key)}
    message |= {"role": event.get("role") or role, "content": event.get("content")}
    if role == "tool":
        message |= {"role": "tool", "tool_call_id": event.get("id"), "name": event.get("name")}
    if message["content"] is not None and not isinstance(message["content"], str | list):
        message["content"] = as_text(message["content"])
    return message


def _choice(event: Mapping[str, Any]) -> dict[str, Any]:
    message = decoded(event.get("message"))
    if not isinstance(message, dict):
        message = {"content": message if message is not None else event.get("content")}
    calls = message.get("tool_calls") or event.get("tool_calls")
    return _event_message("assistant", {**message, "role": "assistant", "tool_calls": calls})


def _as_messages(given: Any, role: str) -> list[Any]:
    if given is None or given == "":
        return []
    if isinstance(given, list):
        return given
    return [given] if isinstance(given, dict) else [{"role": role, "content": as_text(given)}]


def _tool(said: Mapping[str, Any], span: RawSpan) -> ToolRun:
    result = first_attribute(said, "gen_ai.tool.call.result", "gen_ai.tool.output", "tool_response")
    arguments = first_attribute(said, "gen_ai.tool.call.arguments", "gen_ai.tool.input", "tool_arguments")
    if result is None:
        result = next((e.get("content") or e.get("result") for n, e in span.events if n in _ROLES), None)
    call_id = first_attribute(said, "gen_ai.tool.call.id")
    return ToolRun(
        name=str(said.get("gen_ai.tool.name") or span.name.removeprefix("execute_tool ")),
        call_id=None if call_id is None else str(call_id),
        arguments=decoded(arguments),
        result=None if result is None else as_text(result),
    )


def _usage(said: Mapping[str, Any]) -> Any:
    sent = first_attribute(
        said,
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.prompt_tokens",
        "gen_ai.aggregated_usage.input_tokens",
    )
    got = first_attribute(
        said,
        "gen_ai.usage.output_tokens",
        "gen_ai.usage.completion_tokens",
        "gen_ai.aggregated_usage.output_tokens",
    )
    return tokens_of(None, sent, got)


def _session(said: Mapping[str, Any]) -> str | None:
    found = said.get("gen_ai.conversation.id")
    return None if found in (None, "") else str(found)


def _has_events(span: RawSpan) -> bool:
    return any(name.startswith("gen_ai.") for name, _ in span.events)
