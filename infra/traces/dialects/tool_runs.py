"""What tools gave back, from their own spans, put where the calls that they answer have no result yet.

Why by the call's id, else by name and arguments, and never by place: tools that run side by side end in any order.
"""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ratchet.infra.traces.chat_parts import Call, ChatMessage
from ratchet.infra.traces.dialects.span import ToolRun
from ratchet.infra.traces.lm_calls import LmCall


def with_results(
    calls: Sequence[tuple[int, LmCall]], runs: Sequence[tuple[int, ToolRun]]
) -> tuple[list[LmCall], Counter[str]]:
    """The calls of the LM with the tools' results that no message of theirs repeats.

    A run that answers no call (a tool that the agent's own code ran, as DSPy's do) stands among them in their order.

    Args:
        calls: each with its beginning.
        runs: each with its beginning.

    Returns:
        The calls in order, and in words what could not be joined, with how often.
    """
    told = list(calls)
    left: list[tuple[int, ToolRun]] = []
    notes: Counter[str] = Counter()
    for start, run in runs:
        if not _join(told, start, run):
            left.append((start, run))
    for start, run in left:
        if run.arguments is None and run.result is None:
            notes["tool's span without arguments and result, which says nothing of a call"] += 1
            continue
        told.append((start, LmCall(given=_pair(run))))
    return [call for _, call in sorted(told, key=lambda pair: pair[0])], notes


def _join(told: list[tuple[int, LmCall]], start: int, run: ToolRun) -> bool:
    """Whether a call of the LM asked for this run; if nothing came back for it in the messages, it does now."""
    for place in reversed(range(len(told))):
        began, lm_call = told[place]
        if began > start or lm_call.answer is None:
            continue
        asked = _asked(lm_call.answer.calls, run)
        if asked is None:
            continue
        if run.result is not None and not _is_answered(told, place, asked):
            named = _numbered(lm_call.answer)
            its = named.calls[lm_call.answer.calls.index(asked)]
            more = {"answer": named, "results": (*lm_call.results, _result(its, run))}
            told[place] = began, lm_call.model_copy(update=more)
        return True
    return run.result is not None and any(
        answer.text == run.result for _, call in told for message in call.given for answer in message.answers
    )


def _numbered(answer: ChatMessage) -> ChatMessage:
    """The message, calls without an id by their number: two of one tool are told apart by nothing else."""
    parts = tuple(
        {**part, "id": part["id"] or f"call {number}"} if part["type"] == "tool_call" else part
        for number, part in enumerate(answer.parts)
    )
    return ChatMessage(answer.role, parts, answer.name, answer.notes)


def _asked(calls: Sequence[Call], run: ToolRun) -> Call | None:
    """The call that the run answers: by id, else by name and arguments, else the only one of that name."""
    if run.call_id is not None and all(one.call_id is not None for one in calls):
        return next((one for one in calls if one.call_id == run.call_id), None)
    named = [one for one in calls if one.name == run.name]
    same = [one for one in named if run.arguments is not None and _same(one.arguments, run.arguments)]
    return same[0] if same else named[0] if len(named) == 1 else None


def _same(written: Any, given: Any) -> bool:
    try:
        parsed = json.loads(written) if isinstance(written, str) else written
    except ValueError:
        return False
    return bool(parsed == given)


def _is_answered(told: Sequence[tuple[int, LmCall]], place: int, asked: Call) -> bool:
    """Whether a message of a later call, or a span before this one, holds its result already."""
    earlier = [message for _, call in told[place:] for message in (*call.given, *call.results)]
    results = [answer for message in earlier for answer in message.answers]
    if asked.call_id is not None:
        return any(answer.call_id == asked.call_id for answer in results)
    return any(answer.name == asked.name for answer in results)


def _result(asked: Call, run: ToolRun) -> ChatMessage:
    part = {"type": "tool_call_response", "id": asked.call_id, "name": asked.name, "response": run.result}
    return ChatMessage("tool", (part,))


def _pair(run: ToolRun) -> tuple[ChatMessage, ...]:
    call = {"type": "tool_call", "id": run.call_id, "name": run.name, "arguments": run.arguments}
    asked = ChatMessage("assistant", (call,))
    if run.result is None:
        return (asked,)
    return asked, _result(asked.calls[0], run)
