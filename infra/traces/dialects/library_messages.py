"""Messages in the words of the libraries that wrote them, as chat messages that `chat_parts.to_message` reads.

Why apart from it: LangChain, PydanticAI, Gemini and OpenAI's Responses nest what they say, so that one of theirs may
be several messages, and several of theirs one.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

LANGCHAIN: Final = {
    "human": "user",
    "ai": "assistant",
    "system": "system",
    "tool": "tool",
    "function": "tool",
}
"""LangChain's types of messages, and their roles."""
_PYDANTIC: Final = {
    "system-prompt": "system",
    "user-prompt": "user",
    "tool-return": "tool",
    "retry-prompt": "tool",
}
_SILENT: Final = (
    "finish_reason",
    "annotations",
    "audio",
    "status",
    "id",
    "index",
    "weight",
    "requestor",
    "type",
)
"""Fields of a message that say nothing about what was said."""


def one_list_deep(given: list[Any]) -> list[Any]:
    """Chat messages of any library, one list deep."""
    while len(given) == 1 and isinstance(given[0], list):  # LangChain's batches
        given = given[0]
    return [message for one in given for message in chat_messages_of(one)]


def chat_messages_of(one: Any) -> list[Any]:
    """One library's message as the chat messages that it is."""
    if not isinstance(one, dict):
        return [{"role": "user", "content": one}] if isinstance(one, str) else [one]
    if isinstance(one.get("kwargs"), dict) and "lc" in one:
        kind = str((one.get("id") or [""])[-1]).removesuffix("Chunk").removesuffix("Message").lower()
        return [_langchain({"type": kind, **one["kwargs"]})]
    if one.get("role") is None and one.get("type") in LANGCHAIN:
        return [_langchain(one)]
    if one.get("kind") in ("request", "response") and isinstance(one.get("parts"), list):
        return _pydantic(one)
    if isinstance(one.get("message"), dict) and "role" not in one:
        return chat_messages_of(one["message"])
    return [{key: value for key, value in one.items() if key not in _SILENT or _is_tool(one, key)}]


def _is_tool(message: Mapping[str, Any], key: str) -> bool:
    return key == "id" and message.get("role") in ("tool", "function")


def _langchain(one: Mapping[str, Any]) -> dict[str, Any]:
    more = one.get("additional_kwargs") if isinstance(one.get("additional_kwargs"), dict) else {}
    calls = one.get("tool_calls") or (more or {}).get("tool_calls") or []
    return {
        "role": LANGCHAIN.get(str(one.get("type")), one.get("type")),
        "content": [part for part in one["content"] if not _is_call(part)]
        if isinstance(one.get("content"), list)
        else one.get("content"),
        "name": one.get("name"),
        "tool_call_id": one.get("tool_call_id"),
        "tool_calls": [
            {"id": call.get("id"), "name": call["name"], "arguments": call["args"]}
            if "args" in call
            else call
            for call in calls
            if isinstance(call, dict)
        ],
    }


def _is_call(part: Any) -> bool:
    """Whether a part repeats what stands in LangChain's `tool_calls`, too."""
    return isinstance(part, dict) and part.get("type") in ("tool_use", "function_call", "tool_call")


def _pydantic(one: Mapping[str, Any]) -> list[Any]:
    """PydanticAI's request is several messages, its response one."""
    if one["kind"] == "response":
        return [{"role": "assistant", "parts": [_pydantic_part(part) for part in one["parts"]]}]
    messages = []
    for part in one["parts"]:
        of = part.get("part_kind")
        if of in ("tool-return", "retry-prompt") and part.get("tool_name"):
            told = {"tool_call_id": part.get("tool_call_id"), "name": part["tool_name"]}
            content = part.get("content")
            messages.append(
                {
                    "role": "tool",
                    "content": content if isinstance(content, str) else json.dumps(content),
                    **told,
                }
            )
        else:
            role = _PYDANTIC.get(str(of), "user")
            messages.append({"role": "user" if role == "tool" else role, "content": part.get("content")})
    if one.get("instructions"):
        messages.insert(0, {"role": "system", "content": one["instructions"]})
    return messages


def _pydantic_part(part: Any) -> Any:
    of = part.get("part_kind") if isinstance(part, dict) else None
    if of == "text":
        return {"type": "text", "content": part.get("content")}
    if of == "thinking":
        return {"type": "reasoning", "content": part.get("content")}
    if of == "tool-call":
        return {
            "type": "tool_call",
            "id": part.get("tool_call_id"),
            "name": part.get("tool_name"),
            "arguments": part.get("args"),
        }
    return part


def of_gemini(contents: Any) -> list[Any]:
    """Gemini's contents: text, or a role with parts."""
    if isinstance(contents, str):
        return [{"role": "user", "content": contents}]
    return [
        {"role": one.get("role") or "user", "parts": [_gemini_part(part) for part in one.get("parts") or []]}
        if isinstance(one, dict)
        else {"role": "user", "content": one}
        for one in contents
    ]


def _gemini_part(part: Any) -> Any:
    if isinstance(part, dict) and isinstance(part.get("function_call"), dict):
        call = part["function_call"]
        return {
            "type": "tool_call",
            "id": call.get("id"),
            "name": call.get("name"),
            "arguments": call.get("args"),
        }
    if isinstance(part, dict) and isinstance(part.get("function_response"), dict):
        got = part["function_response"]
        return {
            "type": "tool_call_response",
            "id": got.get("id"),
            "name": got.get("name"),
            "response": got.get("response"),
        }
    if isinstance(part, dict) and isinstance(part.get("text"), str):
        return {"type": "reasoning" if part.get("thought") else "text", "content": part["text"]}
    return part


def of_items(given: Any) -> list[Any]:
    """OpenAI's Responses: text, or items; calls that stand one after the other are one message."""
    if not isinstance(given, list):
        return [{"role": "user", "content": given}]
    messages: list[dict[str, Any]] = []
    for item in given:
        if not isinstance(item, dict) or item.get("type") in (None, "message"):
            messages += chat_messages_of(item)
        elif item["type"] == "function_call_output":
            output = item.get("output")
            text = output if isinstance(output, str | list) else json.dumps(output)
            messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": text})
        else:
            part = _item_part(item)
            last = messages[-1] if messages else {}
            if last.get("role") == "assistant" and isinstance(last.get("parts"), list):
                last["parts"].append(part)
            else:
                messages.append({"role": "assistant", "parts": [part]})
    return messages


def _item_part(item: Mapping[str, Any]) -> Any:
    if item["type"] == "function_call":
        return {
            "type": "tool_call",
            "id": item.get("call_id"),
            "name": item.get("name"),
            "arguments": item.get("arguments"),
        }
    if item["type"] == "reasoning":
        said = [*(item.get("summary") or []), *(item.get("content") or [])]
        texts = [str(one.get("text", "")) if isinstance(one, dict) else str(one) for one in said]
        return {"type": "reasoning", "content": "\n".join(texts)}
    return dict(item)
