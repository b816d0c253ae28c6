"""Evidence as conversations to train on: what people corrected or approved, and whole runs that won.

Decision: a conversation is what the served model would read and should write. Of a chat endpoint that is the request
as the version sends it, prompt and tools in place; of the built-in agent its own prompt; of an agent in Python, whose
code alone knows what its LM is told, the request and the answer, with what a trace tells of system message and tools.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NotRequired, TypedDict

from ratchet.agent.candidate import Candidate
from ratchet.agent.kinds.chat import request_of
from ratchet.agent.kinds.chat_endpoint import Chat
from ratchet.agent.kinds.chat_request import CALLS, rendered
from ratchet.agent.kinds.program import Program
from ratchet.agent.lm.embedded import Embedded
from ratchet.agent.lm.of_candidate import lm_type
from ratchet.agent.lm.prompt_format import in_words
from ratchet.agent.memory.steps import WON
from ratchet.agent.optimize.evidence import Example, Preference, Thumb
from ratchet.agent.part_values import PartValues
from ratchet.agent.record import Json, as_text, content_hash
from ratchet.agent.trace import Step, Trace

LEAST_HUMAN: Final = 1.0
"""Weight that what a person said has at least: nothing that the agent graded itself outweighs it."""
OWN: Final = 0.5
"""Weight of a run that won and that no person looked at, as curation gives it."""

Message = dict[str, Json]
Piece = tuple[Literal["read", "own"], str]
"""A piece of a text that is ready for the model, and whose it is."""


class Conversation(TypedDict):
    """What is trained on: messages in OpenAI's format, or `pieces` of a text that needs no template."""

    messages: NotRequired[list[Message]]
    tools: NotRequired[list[Json] | None]
    """Definitions of the tools that the LM could call."""
    pieces: NotRequired[list[Piece]]
    weight: NotRequired[float]
    """1 where it is not said."""


def conversations(
    candidate: Candidate, examples: Iterable[Example], rollouts: Iterable[Trace]
) -> list[Conversation]:
    """Each once: examples whose whole answer is known, then runs of other cases that won.

    Args:
        candidate: whose prompt and tools stand before what was asked.
        examples: what people or the world said is right, with its weight.
        rollouts: whole runs, won and lost; none that a person refused.
    """
    found = [
        _asked(candidate, one.view.inputs, weight_of(one))
        | {"messages": [*_asked(candidate, one.view.inputs)["messages"], message_of(one.call)]}
        for one in examples
        if one.call is not None
    ]
    known = {one.view.case_id for one in examples}
    found += [
        whole_run(candidate, run)
        for run in rollouts
        if run.error is None and run.attempts and (run.score or 0.0) >= WON and run.case.case_id not in known
    ]
    each = {content_hash([one["messages"], one.get("tools")]): one for one in reversed(found)}
    return list(reversed(each.values()))


def weight_of(example: Example) -> float:
    """How much the example counts: a person's word at least `LEAST_HUMAN`, the rest as curated."""
    return max(example.weight, LEAST_HUMAN) if example.source == "human" else example.weight


def decisions(program: Program, examples: Iterable[Example]) -> list[Conversation]:
    """Of the built-in agent: its own prompt for each view, as its LM reads it, and the name of the right option."""
    found: list[Conversation] = []
    for one in examples:
        prompt, observation, _ = program.prompt(one.view)
        names = [option.name for option in observation.options]
        answer = prompt.choices[names.index(one.answer)] if one.answer in names else one.answer
        if lm_type(program.candidate.base_model) is Embedded:
            pieces: list[Piece] = [("read", prompt.text), ("own", f"{answer}<|im_end|>")]
            found.append({"pieces": pieces, "weight": weight_of(one)})
        else:  # it has a chat template of its own
            asked: list[Message] = [{"role": "user", "content": in_words(prompt)}, message_of(answer)]
            found.append({"messages": asked, "weight": weight_of(one)})
    return found


def whole_run(candidate: Candidate, run: Trace) -> Conversation:
    """The last attempt of a run as messages: what was asked, each call of a tool and what came of it, the answer."""
    begun = _asked(candidate, run.case.inputs, OWN)
    messages, tools = begun["messages"], begun.get("tools") or list(run.tools) or None
    if run.system and messages[0].get("role") not in ("system", "developer"):
        messages = [{"role": "system", "content": run.system}, *messages]
    for index, step in enumerate(run.attempts[-1].steps):
        messages += _turns(step, f"call{index}")
    return {"messages": messages, "tools": tools, "weight": OWN}


Tell = Callable[[str, Mapping[str, Json], Json], Conversation | None]
"""Case id, inputs and an answer → the conversation that ends with it; None where it cannot be told."""


def teller(candidate: Candidate, program: Program | None, examples: Iterable[Example]) -> Tell:
    """How an answer to a case is told: as messages, or, of the built-in agent, behind its own prompt.

    Args:
        candidate: whose prompt and tools stand before what was asked.
        program: the built-in agent, else None.
        examples: what it would have seen of each case.
    """
    views = {one.view.case_id: one.view for one in examples}

    def tell(case_id: str, inputs: Mapping[str, Json], answer: Json) -> Conversation | None:
        if program is None:
            begun = _asked(candidate, inputs)
            return {"messages": [*begun["messages"], message_of(answer)], "tools": begun.get("tools")}
        if case_id not in views:
            return None
        prompt, _, _ = program.prompt(views[case_id])
        return {"pieces": [("read", prompt.text), ("own", f"{as_text(answer)}<|im_end|>")]}

    return tell


def pairs_of(tell: Tell, found: Iterable[Preference]) -> list[tuple[Conversation, Conversation]]:
    """The same request with the answer that people preferred, and with the other."""
    both = ((tell(p.case_id, p.inputs, p.better), tell(p.case_id, p.inputs, p.worse)) for p in found)
    return [(better, worse) for better, worse in both if better is not None and worse is not None]


def judged(tell: Tell, thumbs: Iterable[Thumb]) -> list[tuple[Conversation, bool]]:
    """The request with the answer that a person judged, and whether it is good."""
    told = ((tell(one.case_id, one.inputs, one.answer), one.is_good) for one in thumbs)
    return [(one, is_good) for one, is_good in told if one is not None]


def message_of(answer: Json) -> Message:
    """An answer as the assistant's message: its text, or the calls of tools that it is."""
    if isinstance(answer, dict) and isinstance(answer.get(CALLS), list):
        return _calling([(one["name"], one.get("arguments")) for one in answer[CALLS]])
    if isinstance(answer, dict) and set(answer) == {"tool", "arguments"}:
        return _calling([(answer["tool"], answer["arguments"])])
    return {"role": "assistant", "content": as_text(answer)}


def _asked(candidate: Candidate, inputs: Mapping[str, Json], weight: float = 1.0) -> Conversation:
    body: dict[str, Any] = dict(request_of(inputs))
    if candidate.kind == "chat":  # neither address nor LM stand in what is read
        body, _ = rendered(body, Chat(upstream="http://localhost", model="any"), PartValues(candidate))
    return {"messages": list(body["messages"]), "tools": body.get("tools"), "weight": weight}


def _turns(step: Step, call_id: str) -> list[Message]:
    """A free answer is a message; any other action the call of a tool, with what it answered."""
    if step.action.is_free:
        said: list[Message] = [message_of(step.action.said)]
        return said
    calling = _calling([(step.action.name, step.action.arguments)], call_id) | {"content": step.thought or ""}
    return [calling, {"role": "tool", "tool_call_id": call_id, "content": step.result or ""}]


def _calling(calls: Sequence[tuple[str, Json]], call_id: str = "call") -> Message:
    made: list[Json] = [
        {
            "id": call_id,
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(given or {}, ensure_ascii=False)},
        }
        for name, given in calls
    ]
    return {"role": "assistant", "content": "", "tool_calls": made}
