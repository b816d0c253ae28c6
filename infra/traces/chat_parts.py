"""One message of a conversation, whatever format it is in, as what was said, thought, called and answered.

Read are OpenAI's chat format and its older one, Anthropic's content blocks, flat tool calls (tau2), the parts of
OpenTelemetry's GenAI conventions, and ShareGPT's from/value. Why a part of another type is kept as data: a name in
brackets in its place would read as something that the agent saw or said.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
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


@dataclass(frozen=True)
class ChatMessage:
    """One message in OpenTelemetry's form; `to_message` reads it back equal."""

    role: str
    """system, user, assistant or tool."""
    parts: tuple[dict[str, Any], ...] = ()
    """In order, each with its `type`: `text` and `reasoning` (`content`), `tool_call` (`id`, `name`, `arguments`),
    `tool_call_response` (`id`, `name`, `response`); any other as it was given."""
    name: str | None = None
    """Who spoke, or which tool answered, where the message says so."""
    notes: Mapping[str, int] = field(default_factory=dict, compare=False)
    """What was not kept whole, in words, with how often."""

    @cached_property
    def text(self) -> str:
        """What was said; a part that is no text stands in it as JSON, a medium by its name alone."""
        return "\n".join(filter(None, (_said(part) for part in self.parts)))

    @cached_property
    def thought(self) -> str:
        """What was reasoned before."""
        return "\n".join(p["content"] for p in self.parts if p["type"] == "reasoning" and p["content"])

    @cached_property
    def calls(self) -> list[Call]:
        """Tools that were called, in order."""
        return [Call(p["id"], p["name"], p["arguments"]) for p in self.parts if p["type"] == "tool_call"]

    @cached_property
    def answers(self) -> list[ToolResult]:
        """Tools' results in it, in order."""
        return [
            ToolResult(p["id"], p.get("name"), p["response"], p.get("own_id"))
            for p in self.parts
            if p["type"] == "tool_call_response"
        ]


def _said(part: Mapping[str, Any]) -> str:
    of = part.get("type")
    if of == "text":
        return str(part["content"])
    if of in ("reasoning", "tool_call", "tool_call_response"):
        return ""
    return f"[{of}]" if of in _MEDIA else json.dumps(part, ensure_ascii=False)


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
    read = _Parts()
    read.notes.update(f"field {name!r} of messages not read" for name in _unread(said))
    _add_content(read, said)
    for name in _THOUGHTS:
        if said.get(name):
            read.add("reasoning", content=_text(said[name], read))
    if said.get("refusal"):
        read.add("text", content=_text(said["refusal"], read))
    for call in _calls(said):
        read.add("tool_call", id=call.call_id, name=call.name, arguments=call.arguments)
    speaker = _id(said.get("name"))
    if role == "tool" and not any(part["type"] == "tool_call_response" for part in read.parts):
        whole = ChatMessage(role, tuple(read.parts)).text
        read.parts = []
        _add_answer(read, said.get("tool_call_id"), speaker, whole, said.get("id"))
    return ChatMessage(role, tuple(read.parts), speaker, dict(read.notes))


@dataclass
class _Parts:
    """A message while it is read."""

    parts: list[dict[str, Any]] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)

    def add(self, of: str, **what: Any) -> None:
        self.parts.append({"type": of, **what})


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


def _add_content(read: _Parts, said: Mapping[str, Any]) -> None:
    content = said.get("content") if said.get("content") is not None else said.get("parts")
    if not isinstance(content, str | list | tuple | None):
        raise ValueError(f"content is {kind(content)}, not text, parts or null")
    for part in [content] if isinstance(content, str) else content or []:
        _add_part(read, part)


def _add_part(read: _Parts, part: Any) -> None:
    if isinstance(part, str):
        read.add("text", content=part)
        return
    if not isinstance(part, dict):
        raise ValueError(f"a part is {kind(part)}, not text or an object")
    of = part.get("type")
    inner = next((part[name] for name in _INSIDE if part.get(name) is not None), "")
    if of in _TEXTS or of == "refusal" or (of is None and isinstance(part.get("text"), str)):
        read.add("text", content=_text(inner, read))
    elif of in _THOUGHTS:
        read.add("reasoning", content=_text(inner, read))
    elif of in _CALLS:
        call = _call(part)
        read.add("tool_call", id=call.call_id, name=call.name, arguments=call.arguments)
    elif of in _ANSWERS:
        result = next((part[n] for n in ("content", "response", "result") if part.get(n) is not None), "")
        call_id = next((part[n] for n in ("tool_use_id", "tool_call_id", "id") if part.get(n)), None)
        _add_answer(read, call_id, _id(part.get("name")), _text(result, read), part.get("own_id"))
    else:
        read.parts.append({"type": None, **part})
        told = f"{of} part named only" if of in _MEDIA else f"part of type {excerpt(of)} kept as JSON"
        read.notes[told] += 1


def _add_answer(read: _Parts, call_id: Any, name: str | None, text: str, own_id: Any) -> None:
    known = {"name": name, "own_id": _id(own_id)}
    told = {key: value for key, value in known.items() if value is not None}
    read.add("tool_call_response", id=_id(call_id), response=text, **told)


def _text(value: Any, within: _Parts) -> str:
    """The text of a text, of parts, or of any other data as JSON; what was not kept whole is noted within."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(part, str | dict) for part in value):
        inner = _Parts()
        for part in value:
            _add_part(inner, part)
        within.notes += inner.notes
        return ChatMessage("tool", tuple(inner.parts)).text
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
