"""The messages of one conversation in OpenAI's chat format, as the steps of an agent.

Why a message to the user is an action like a tool call: it is what the agent chose to do, and what the user said
next is what came of it.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from agent.environment import Action
from agent.trace import Step

RESPOND: Final = "respond"
"""Action of an assistant's message to the user; its text is the argument `content`."""
_THINK: Final = "think"
"""A tool that only writes down a thought (as in tau-bench): its argument is the step's reasoning."""
_ROLES: Final = ("system", "developer", "user", "assistant", "tool", "function")


def to_steps(messages: list[dict[str, Any]]) -> list[Step]:
    """Each tool call, and each message to the user, as a step: what was seen, thought and done, what came of it."""
    steps: list[Step] = []
    seen: list[str] = []
    waiting: list[tuple[str | None, int]] = []
    """Calls without a result yet: id and place of the step."""
    answered = True
    for message in messages:
        role, text = message["role"], text_of(message)
        if role == "assistant":
            observation = "\n".join(seen)
            waiting = []
            for call_id, action, thought in _actions(message, text):
                waiting.append((call_id, len(steps)))
                steps.append(Step(observation=observation, action=action, thought=thought))
            seen, answered = [], False
        elif role in ("tool", "function"):
            seen.append(text)
            place = _answered_step(waiting, message.get("tool_call_id"))
            if place is not None:
                steps[place] = steps[place].model_copy(update={"result": text})
        elif role == "user":
            seen.append(text)
            if not answered and steps and steps[-1].action.name == RESPOND:
                steps[-1] = steps[-1].model_copy(update={"result": text})
            answered = True
    return steps


def _answered_step(waiting: list[tuple[str | None, int]], call_id: Any) -> int | None:
    """Place of the step that a tool's message answers: that with its id, else the first without an answer."""
    named = [pair for pair in waiting if call_id is not None and pair[0] == call_id]
    chosen = (named or waiting)[:1]
    if not chosen:
        return None
    waiting.remove(chosen[0])
    return chosen[0][1]


def _actions(message: Mapping[str, Any], text: str) -> Iterator[tuple[str | None, Action, str | None]]:
    calls = list(message.get("tool_calls") or [])
    if message.get("function_call"):
        calls.append({"function": message["function_call"]})
    for call in calls:
        function = call["function"]
        arguments = _arguments(function.get("arguments"))
        said = arguments.get("thought") if function["name"] == _THINK else None
        thought = said if isinstance(said, str) else text or None
        yield call.get("id"), Action(name=function["name"], arguments=arguments), thought
    if not calls:
        yield None, Action(name=RESPOND, arguments={"content": text}), None


def _arguments(given: Any) -> dict[str, Any]:
    """As an object; what the model wrote that is none is kept under `unparsed`."""
    try:
        parsed = json.loads(given) if isinstance(given, str) else given
    except ValueError:
        parsed = None
    return parsed if isinstance(parsed, dict) else {"unparsed": given} if given else {}


def fault_of(message: Any) -> str | None:
    """What keeps it from being a message, in words; None = nothing."""
    if not isinstance(message, dict):
        return f"{type(message).__name__} instead of an object"
    if message.get("role") not in _ROLES:
        return f"role {message.get('role')!r} is none of {', '.join(_ROLES)}"
    if not isinstance(message.get("content"), str | list | None):
        return f"content is {type(message['content']).__name__}, not text, parts or null"
    calls = message.get("tool_calls")
    if calls is None and message.get("function_call") is not None:
        calls = [{"function": message["function_call"]}]
    if not isinstance(calls, list | None):
        return f"tool_calls is {type(calls).__name__}, not a list"
    for call in calls or []:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            return "a tool call without function.name"
    return None


def text_of(message: Mapping[str, Any]) -> str:
    """Its text; parts that are none are named."""
    content = message.get("content")
    if not isinstance(content, list):
        return content or ""
    parts = (
        part.get("text") or f"[{part.get('type')}]" if isinstance(part, dict) else str(part)
        for part in content
    )
    return "\n".join(parts)
