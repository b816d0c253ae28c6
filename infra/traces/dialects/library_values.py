"""What an LM library was asked and answered, in its own words: the request and the reply as it passed them on.

Why apart from the dialects: MLflow, LangSmith and Langfuse write these values as the library gave them, so that each
of them holds OpenAI's two protocols, Anthropic's, Gemini's, LangChain's, PydanticAI's and DSPy's.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ratchet.infra.traces.chat_parts import ChatMessage
from ratchet.infra.traces.dialects.library_messages import (
    LANGCHAIN,
    chat_messages_of,
    of_gemini,
    of_items,
    one_list_deep,
)
from ratchet.infra.traces.dialects.span import decoded, read_messages
from ratchet.infra.traces.lm_calls import LmCall


def lm_call_of(asked: Any, answered: Any, notes: Counter[str], *, tools: Any = None) -> LmCall | None:
    """The call; None where the values are no LM's request and reply."""
    asked, answered = decoded(asked), decoded(answered)
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
    told = decoded(value)
    is_reply = isinstance(told, dict) and (
        {"choices", "messages"} & told.keys() or told.get("type") in LANGCHAIN or "lc" in told
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
        return one_list_deep(asked) if _are_messages(asked) else None
    if isinstance(asked, dict):
        for name in ("messages", "message_history"):
            if isinstance(asked.get(name), list) and asked[name]:
                return one_list_deep(asked[name])
        if isinstance(asked.get("contents"), list | str):
            return of_gemini(asked["contents"])
        if "input" in asked and ("model" in asked or "instructions" in asked or _are_items(asked["input"])):
            return of_items(asked["input"])
        if isinstance(asked.get("prompt"), str):
            return [{"role": "user", "content": asked["prompt"]}]
    return None


def _are_messages(given: Any) -> bool:
    one = given
    while isinstance(one, list) and one:
        one = one[0]
    return isinstance(one, dict) and bool(
        {"role", "kwargs", "parts"} & one.keys() or one.get("type") in LANGCHAIN
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
        return of_items(answered["output"])
    if isinstance(answered.get("candidates"), list):
        return of_gemini([one.get("content") or {} for one in answered["candidates"][:1]])
    if isinstance(answered.get("messages"), list) and answered["messages"]:
        return one_list_deep(answered["messages"])[-1:]
    inner = answered.get("output")
    if isinstance(inner, dict):
        return _replied(inner)
    if {"role", "content", "kwargs", "parts", "message"} & answered.keys() or answered.get(
        "type"
    ) in LANGCHAIN:
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
        return of_items(answered)
    return [{"role": "assistant", "content": first}] if isinstance(first, str) else _replied(first)


def _as_assistant(message: Any) -> Any:
    if isinstance(message, dict) and message.get("role") == "model":
        return {**message, "role": "assistant"}
    return message
