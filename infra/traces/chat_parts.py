"""One message of a conversation, whatever format it is in, as what was said, thought, called and answered.

Read are OpenAI's chat format and its older one, Anthropic's content blocks, flat tool calls (tau2), the parts of
OpenTelemetry's GenAI conventions, and ShareGPT's from/value. Why a part of another type is kept as data: a name in
brackets in its place would read as something that the agent saw or said.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ratchet.infra.files.cells import excerpt, kind

_ROLES: Final = {
    "system": "system", "developer": "system", "user": "user", "human": "user", "assistant": "assistant",
    "ai": "assistant", "gpt": "assistant", "model": "assistant", "tool": "tool", "function": "tool",
    "observation": "tool", "function_call": "assistant",
}  # fmt: skip
_TEXTS: Final = ("text", "input_text", "output_text")
_THOUGHTS: Final = ("thinking", "reasoning", "reasoning_content")
_CALLS: Final = ("tool_use", "tool_call", "server_tool_use")
_ANSWERS: Final = ("tool_result", "tool_call_response")
_MEDIA: Final = (
    "image", "image_url", "input_image", "audio", "input_audio", "file", "input_file", "document", "video", "blob",
    "uri",
)  # fmt: skip
_INSIDE: Final = ("text", "content", *_THOUGHTS, "refusal")
_READ: Final = {
    "role", "content", "parts", "name", "id", "tool_call_id", "tool_calls", "function_call", "refusal", "requestor",
    "from", "value", *_THOUGHTS,
}  # fmt: skip


@dataclass(frozen=True)
class Call:
    """A tool that was called: its arguments are what the model wrote, an object or not."""

    call_id: str | None
    name: str
    arguments: Any


@dataclass(frozen=True)
class ToolResult:
    """What came back, and what it says that it answers: a call's id, a tool's name, both or neither."""

    call_id: str | None
    name: str | None
    text: str
    own_id: str | None = None
    """The message's, which in tau2 is the call's."""


@dataclass
class ChatMessage:
    """What one message holds."""

    role: str
    """system, user, assistant or tool."""
    text: str = ""
    thought: str = ""
    calls: list[Call] = field(default_factory=list)
    answers: list[ToolResult] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    """What was not kept whole, in words, with how often."""


def to_message(given: Any) -> ChatMessage:
    """Read one message.

    Raises:
        ValueError: it is none; says why.
    """
    if not isinstance(given, dict):
        raise ValueError(f"{kind(given)} instead of an object")
    said = _from_sharegpt(given) if "from" in given and "role" not in given else given
    role = _ROLES.get(said["role"]) if isinstance(said.get("role"), str) else None
    if role is None:
        raise ValueError(f"role {excerpt(said.get('role'))} is none of {', '.join(_ROLES)}")
    message = ChatMessage(role)
    message.notes.update(f"field {name!r} of messages not read" for name in _unread(said))
    _add_content(message, said)
    for name in _THOUGHTS:
        if said.get(name):
            message.thought = _joined(message.thought, _text(said[name], message))
    if said.get("refusal"):
        message.text = _joined(message.text, _text(said["refusal"], message))
    message.calls += _calls(said)
    if role == "tool" and not message.answers:
        ids = _id(said.get("tool_call_id")), _id(said.get("id"))
        message.answers.append(ToolResult(ids[0], _id(said.get("name")), message.text, ids[1]))
    return message


def _from_sharegpt(given: Mapping[str, Any]) -> dict[str, Any]:
    said = {**given, "role": given["from"], "content": given.get("value")}
    if given["from"] == "function_call":
        try:
            call = json.loads(given["value"])
        except (TypeError, ValueError):
            raise ValueError(
                f"function_call {excerpt(given.get('value'))} is not JSON with name and arguments"
            ) from None
        said |= {"content": None, "tool_calls": [call]}
    return said


def _unread(said: Mapping[str, Any]) -> list[str]:
    return [name for name, value in said.items() if name not in _READ and value not in (None, [], {}, "")]


def _add_content(message: ChatMessage, said: Mapping[str, Any]) -> None:
    content = said.get("content") if said.get("content") is not None else said.get("parts")
    if not isinstance(content, str | list | None):
        raise ValueError(f"content is {kind(content)}, not text, parts or null")
    for part in [content] if isinstance(content, str) else content or []:
        _add_part(message, part)


def _add_part(message: ChatMessage, part: Any) -> None:
    if isinstance(part, str):
        message.text = _joined(message.text, part)
        return
    if not isinstance(part, dict):
        raise ValueError(f"a part is {kind(part)}, not text or an object")
    of = part.get("type")
    inner = next((part[name] for name in _INSIDE if part.get(name) is not None), "")
    if of in _TEXTS or of == "refusal" or (of is None and isinstance(part.get("text"), str)):
        message.text = _joined(message.text, _text(inner, message))
    elif of in _THOUGHTS:
        message.thought = _joined(message.thought, _text(inner, message))
    elif of in _CALLS:
        message.calls.append(_call(part))
    elif of in _ANSWERS:
        result = next((part[n] for n in ("content", "response", "result") if part.get(n) is not None), "")
        call_id = next((part[n] for n in ("tool_use_id", "tool_call_id", "id") if part.get(n)), None)
        message.answers.append(ToolResult(_id(call_id), _id(part.get("name")), _text(result, message)))
    elif of in _MEDIA:
        message.text = _joined(message.text, f"[{of}]")
        message.notes[f"{of} part named only"] += 1
    else:
        message.text = _joined(message.text, json.dumps(part, ensure_ascii=False))
        message.notes[f"part of type {excerpt(of)} kept as JSON"] += 1


def _text(value: Any, within: ChatMessage) -> str:
    """The text of a text, of parts, or of any other data as JSON; what was not kept whole is noted within."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(part, str | dict) for part in value):
        inner = ChatMessage("tool")
        for part in value:
            _add_part(inner, part)
        within.notes += inner.notes
        return inner.text
    return json.dumps(value, ensure_ascii=False)


def _calls(said: Mapping[str, Any]) -> list[Call]:
    calls = said.get("tool_calls")
    if not isinstance(calls, list | None):
        raise ValueError(f"tool_calls is {kind(calls)}, not a list")
    older = said.get("function_call")
    return [*map(_call, calls or []), *([_call({"function": older})] if older else [])]


def _call(call: Any) -> Call:
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ValueError("a tool call without function.name")
    arguments = function.get("arguments", function.get("input"))
    return Call(_id(call.get("id")), function["name"], arguments)


def _id(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)


def _joined(before: str, more: str) -> str:
    return f"{before}\n{more}" if before and more else before or more
