"""The messages of one conversation, as the steps of an agent.

Why a message to the user is an action like a tool call: it is what the agent chose to do, and what the user said
next is what came of it. Why a result is joined by its call's id, else by the tool's name, and never by its place:
two results the wrong way round are two wrong examples.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

from ratchet.agent.environment import RESPOND, Action, respond
from ratchet.agent.trace import Step
from ratchet.infra.traces.chat_parts import Call, ChatMessage, ToolResult

_THINK: Final = "think"
"""A tool that only writes down a thought (as in tau-bench): its argument is the step's reasoning."""


def to_steps(messages: Sequence[ChatMessage]) -> tuple[list[Step], Counter[str]]:
    """Each tool call, and each message to the user, as a step: what was seen, thought and done, what came of it.

    Returns:
        The steps, and in words what could not be told, with how often.
    """
    steps: list[Step] = []
    notes: Counter[str] = Counter()
    seen: list[str] = []
    waiting: list[tuple[Call, int]] = []
    """Calls without a result yet, and the place of their step."""
    answered = True
    for message in messages:
        notes.update(message.notes)
        if message.role == "assistant":
            observation = "\n".join(seen)
            waiting = []
            for call, action, thought in _actions(message):
                if call is not None:
                    waiting.append((call, len(steps)))
                steps.append(Step(observation=observation, action=action, thought=thought))
            seen, answered = [], False
        for answer in message.answers:
            seen.append(answer.text)
            place = _answered_step(waiting, answer)
            if place is not None:
                steps[place] = steps[place].model_copy(update={"result": answer.text})
            elif waiting:
                notes["result that does not say which call it answers, kept as what was seen next"] += 1
        if message.role == "user" and (message.text or not message.answers):
            seen.append(message.text)
            if not answered and steps and steps[-1].action.name == RESPOND:
                steps[-1] = steps[-1].model_copy(update={"result": message.text})
            answered = True
    return steps, notes


def _answered_step(waiting: list[tuple[Call, int]], answer: ToolResult) -> int | None:
    """Place of the step that it answers: by the call's id, else by the tool's name, else the only one there is."""
    its_id = answer.call_id or answer.own_id
    same_id = [pair for pair in waiting if its_id is not None and pair[0].call_id == its_id]
    nameless = [pair for pair in waiting if answer.call_id is None or pair[0].call_id is None]
    same_name = [pair for pair in nameless if pair[0].name == answer.name]
    only = nameless if len(waiting) == 1 and answer.name in (None, waiting[0][0].name) else []
    chosen = (same_id or same_name or only)[:1]
    if not chosen:
        return None
    waiting.remove(chosen[0])
    return chosen[0][1]


def _actions(message: ChatMessage) -> Iterator[tuple[Call | None, Action, str | None]]:
    for call in message.calls:
        arguments = _arguments(call.arguments)
        said = arguments.get("thought") if call.name == _THINK else None
        thought = said if isinstance(said, str) else "\n".join(filter(None, (message.thought, message.text)))
        yield call, Action(name=call.name, arguments=arguments), thought or None
    if not message.calls:
        yield None, respond(message.text), message.thought or None


def _arguments(given: Any) -> dict[str, Any]:
    """As an object; what the model wrote that is none is kept under `unparsed`."""
    try:
        parsed = json.loads(given) if isinstance(given, str) else given
    except ValueError:
        parsed = None
    return parsed if isinstance(parsed, dict) else {"unparsed": given} if given else {}
