"""What an LM library was asked and answered, in its own words: the request and the reply as it passed them on.

Why apart from the dialects: MLflow, LangSmith and Langfuse write these values as the library gave them, so that each
of them holds OpenAI's two protocols, Anthropic's, Gemini's, LangChain's, PydanticAI's and DSPy's.
"""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from ratchet.infra.traces.chat_parts import ChatMessage
from ratchet.infra.traces.dialects.span import plain, read_messages
from ratchet.infra.traces.lm_calls import LmCall

_LANGCHAIN: Final = {
    "human": "user",
    "ai": "assistant",
    "system": "system",
    "tool": "tool",
    "function": "tool",
}
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


def lm_call_of(asked: Any, answered: Any, notes: Counter[str], *, tools: Any = None) -> LmCall | None:
    """The call; None where the values are no LM's request and reply."""
    asked, answered = plain(asked), plain(answered)
    given = _request(asked)
    if given is None:
        return None
    system, messages = read_messages(given, notes, otherwise="user")
    told = _instructions(asked)
    answer = _reply(answered, notes)
    fields = asked if isinstance(asked, dict) else {}
    replied = answered if isinstance(answered, dict) else {}
    known = tools if isinstance(tools, list) else _tools(fields)
    return LmCall(
        system="\n".join(filter(None, (told, system))),
        given=tuple(messages),
        answer=answer,
        tools=tuple(known) if isinstance(known, list) else (),
        model=_text(replied.get("model")) or _text(fields.get("model")),
        response_id=_text(replied.get("id")),
        follows=_text(fields.get("previous_response_id")),
    )


def answer_in(value: Any) -> Any:
    """What was said, where the value is a library's reply or list of messages; any other value as it is."""
    told = plain(value)
    is_reply = isinstance(told, dict) and (
        {"choices", "messages"} & told.keys() or told.get("type") in _LANGCHAIN or "lc" in told
    )
    message = _reply(told, Counter()) if is_reply else None
    return value if message is None else message.text


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _tools(fields: Mapping[str, Any]) -> Any:
    asked = fields.get("model_request_parameters")  # PydanticAI's
    if isinstance(asked, dict) and isinstance(asked.get("function_tools"), list):
        kept = ("name", "description", "parameters_json_schema")
        return [
            {key: tool.get(key) for key in kept} for tool in asked["function_tools"] if isinstance(tool, dict)
        ]
    return fields.get("tools")


def _request(asked: Any) -> list[Any] | None:
    """The messages as chat messages; None where it asks nothing of an LM."""
    if isinstance(asked, list):
        return _messages(asked) if _are_messages(asked) else None
    if isinstance(asked, dict):
        for name in ("messages", "message_history"):
            if isinstance(asked.get(name), list) and asked[name]:
                return _messages(asked[name])
        if isinstance(asked.get("contents"), list | str):
            return _gemini(asked["contents"])
        if "input" in asked and ("model" in asked or "instructions" in asked or _are_items(asked["input"])):
            return _items(asked["input"])
        if isinstance(asked.get("prompt"), str):
            return [{"role": "user", "content": asked["prompt"]}]
    return None


def _are_messages(given: Any) -> bool:
    one = given
    while isinstance(one, list) and one:
        one = one[0]
    return isinstance(one, dict) and bool(
        {"role", "kwargs", "parts"} & one.keys() or one.get("type") in _LANGCHAIN
    )


def _are_items(given: Any) -> bool:
    return isinstance(given, list) and any(
        isinstance(one, dict) and {"role", "type"} & one.keys() for one in given
    )


def _instructions(asked: Any) -> str:
    """What stands beside the messages: `system` (Anthropic, Bedrock), `instructions` (OpenAI's Responses)."""
    if not isinstance(asked, dict):
        return ""
    config = asked.get("config")
    told = asked.get("system") or asked.get("instructions")
    if told is None and isinstance(config, dict):  # Gemini
        told = config.get("system_instruction")
    if isinstance(told, list):
        return "\n".join(str(one.get("text", "")) if isinstance(one, dict) else str(one) for one in told)
    return told if isinstance(told, str) else ""


def _messages(given: list[Any]) -> list[Any]:
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
    if one.get("role") is None and one.get("type") in _LANGCHAIN:
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
        "role": _LANGCHAIN.get(str(one.get("type")), one.get("type")),
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


def _gemini(contents: Any) -> list[Any]:
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


def _items(given: Any) -> list[Any]:
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


def _reply(answered: Any, notes: Counter[str]) -> ChatMessage | None:
    """The assistant's message; None where there is none."""
    messages = _replied(answered)
    _, read = read_messages(messages, notes, otherwise="assistant")
    mine = [message for message in read if message.role == "assistant"]
    if not mine:
        return None
    return mine[-1] if len(mine) == 1 else ChatMessage("assistant", tuple(p for m in mine for p in m.parts))


def _replied(answered: Any) -> list[Any]:
    if isinstance(answered, str):
        return [{"role": "assistant", "content": answered}]
    if isinstance(answered, list):
        return _replied_list(answered)
    if not isinstance(answered, dict):
        return []
    if isinstance(answered.get("choices"), list):
        one: dict[str, Any] = next(iter(answered["choices"]), {})
        return chat_messages_of(one.get("message") or {"role": "assistant", "content": one.get("text")})
    if isinstance(answered.get("generations"), list):
        return _replied_list(answered["generations"])
    if isinstance(answered.get("output"), list) and answered.get("role") is None:
        return _items(answered["output"])
    if isinstance(answered.get("candidates"), list):
        return _gemini([one.get("content") or {} for one in answered["candidates"][:1]])
    if isinstance(answered.get("messages"), list) and answered["messages"]:
        return _messages(answered["messages"])[-1:]
    inner = answered.get("output")
    if isinstance(inner, dict):
        return _replied(inner)
    if {"role", "content", "kwargs", "parts", "message"} & answered.keys() or answered.get(
        "type"
    ) in _LANGCHAIN:
        return [_as_assistant(one) for one in chat_messages_of(answered)]
    return (
        [{"role": "assistant", "content": answered["text"]}] if isinstance(answered.get("text"), str) else []
    )


def _replied_list(answered: list[Any]) -> list[Any]:
    """The first of several replies: DSPy's texts, LangChain's generations, a list of messages."""
    while answered and isinstance(answered[0], list):
        answered = answered[0]
    if not answered:
        return []
    first = answered[0]
    if isinstance(first, dict) and first.get("type") in ("message", "function_call", "reasoning"):
        return _items(answered)
    return [{"role": "assistant", "content": first}] if isinstance(first, str) else _replied(first)


def _as_assistant(message: Any) -> Any:
    if isinstance(message, dict) and message.get("role") == "model":
        return {**message, "role": "assistant"}
    return message
