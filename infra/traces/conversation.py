"""One conversation, whatever it came from: the form in which live spans and files end, and its way into a `Trace`.

Why a form between: each of a dozen dialects says the same twenty facts; who reads one says them here once, and what
follows (steps, results by their call's id, the actor of each, the trace) is written once. What a dialect does not say
is None, never a guess; what was said and is not kept whole is counted in `notes`.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final, Literal

from pydantic import Field

from ratchet.agent.case import Case
from ratchet.agent.environment import RESPOND, Action, Outcome, respond
from ratchet.agent.errors import BadInput
from ratchet.agent.record import Json, Record
from ratchet.agent.trace import Attempt, RunError, Step, Trace, Usage
from ratchet.evaluation.data.labels import Source
from ratchet.infra.traces.chat_messages import to_steps
from ratchet.infra.traces.chat_parts import ChatMessage
from ratchet.infra.traces.lm_calls import LmCall, threads

_NOT_ITS_FAULT: Final = ("connection", "timeout", "ratelimit", "rate limit", "unavailable", "internalserver")
"""Words in an error that say that a service failed, not the agent."""


class Assessed(Record):
    """What somebody said about a conversation, as it was written; whether it is read as a label, its name decides."""

    name: str
    value: Json
    kind: Literal["score", "expected", "comment"] | None = None
    """What the format itself says that it is; None = its name says it (see `FeedbackNames`)."""
    source: Source
    rater: str = ""
    comment: str = ""
    at: datetime | None = None


class LinkedPrompt(Record):
    """A version of a prompt that was loaded on the way."""

    name: str
    version: str


class FunctionCall(Record):
    """One span that is neither an LM's nor a tool's."""

    name: str
    inputs: Json = None
    output: Json = None


class Conversation(Record):
    """What a trace or a file's record tells of one interaction with an agent."""

    messages: tuple[ChatMessage, ...] = ()
    """In order, without the system's that stand before all others; the agent's last answer is the last."""
    system: str = ""
    """What the LM was told before the messages."""
    tools: tuple[Json, ...] = ()
    """Definitions of the tools that could be called, as they were given."""
    lm_calls: tuple[LmCall, ...] = ()
    """Every call of the LM, in order; empty where only the messages are known."""
    inputs: Json = None
    """What the outermost span was given: a function's arguments by name, or anything else; None = not known."""
    output: Json = None
    """What it gave back."""
    functions: tuple[FunctionCall, ...] = ()
    """Functions of somebody's code, the outermost span first."""
    expected: Json | None = None
    """The right answer, where the record has it."""
    score: float | None = Field(default=None, ge=0, le=1)
    """The environment's."""
    feedback: str = ""
    """What the environment said about it."""
    assessed: tuple[Assessed, ...] = ()
    usage: Usage = Usage()
    model: str | None = None
    session_id: str | None = None
    user: str | None = None
    started_at: datetime | None = None
    latency_s: float = Field(default=0.0, ge=0)
    error: str | None = None
    candidate_id: str | None = None
    """The version that made it, where its own tag says so."""
    prompts: tuple[LinkedPrompt, ...] = ()
    identity: Json = None
    """What makes it the same conversation in two files."""
    notes: Counter[str] = Field(default_factory=Counter)
    """What was dropped or not kept whole, in words, with how often."""

    @property
    def request(self) -> str:
        """What the user said first."""
        users = (one for one in self.messages if one.role == "user")
        return next((one.text for one in users if one.text or not one.answers), "")

    @property
    def last_request(self) -> str:
        """What the user said last."""
        users = [one for one in self.messages if one.role == "user" and (one.text or not one.answers)]
        return users[-1].text if users else ""


def trace_of(
    conversation: Conversation,
    *,
    trace_id: str,
    candidate_id: str,
    seen_at: datetime,
    case: Case | None = None,
    answer: Json = None,
    actor_of: Callable[[str], str | None] = lambda _: None,
) -> tuple[Trace, Counter[str]]:
    """The conversation as a trace with one attempt, and in words what of it was not kept.

    Args:
        conversation: what was read.
        trace_id: 32 hex digits.
        candidate_id: who acted.
        seen_at: when it was, where it does not say so itself.
        case: what the agent was asked; None = the first thing that the user said.
        answer: what the agent gave back, where that is known apart from its messages (a function's value): it ends
            the steps unless they end with it already.
        actor_of: by the text of a system message, who acts in calls under it; None = `agent`.

    Raises:
        BadInput: nobody acted in it.
    """
    steps, notes = _steps(conversation, actor_of)
    if answer is not None and not (steps and _says(steps[-1].action, answer)):
        steps.append(Step(observation=_seen_last(conversation, steps), action=respond(answer)))
    if not steps and conversation.error is None:
        raise BadInput("no message of the assistant: nobody acted")
    trace = Trace(
        trace_id=trace_id,
        case=case or Case(inputs={"request": conversation.request}, expected=conversation.expected),
        candidate_id=candidate_id,
        session_id=conversation.session_id,
        user=conversation.user,
        started_at=conversation.started_at or seen_at,
        latency_s=conversation.latency_s,
        usage=conversation.usage,
        attempts=(
            Attempt(
                steps=tuple(steps),
                outcome=Outcome(score=conversation.score, feedback=conversation.feedback),
            ),
        ),
        error=_error(conversation.error),
        system=conversation.system,
        tools=conversation.tools,
    )
    return trace, conversation.notes + notes


def _steps(
    conversation: Conversation, actor_of: Callable[[str], str | None]
) -> tuple[list[Step], Counter[str]]:
    """Of an agent with several prompts, those of each; else those of the one list of messages."""
    found = threads(conversation.lm_calls)
    if len(found) < 2:
        steps, notes = to_steps(conversation.messages)
        return _by(actor_of(conversation.system), steps), notes
    steps, notes = [], Counter[str]()
    for thread in found:
        more, told = to_steps(thread.messages)
        steps += _by(actor_of(thread.system), more)
        notes += told
    return steps, notes


def _by(actor: str | None, steps: Sequence[Step]) -> list[Step]:
    return [one if actor is None else one.model_copy(update={"actor": actor}) for one in steps]


def _says(action: Action, answer: Json) -> bool:
    return action.name == RESPOND and (action.arguments or {}).get("content") == answer


def _seen_last(conversation: Conversation, steps: Sequence[Step]) -> str:
    """What stood before an answer that is no message: what came last, else what was asked."""
    if not steps:
        return conversation.request or _text_of(conversation.inputs)
    last = steps[-1]
    return last.result or _text_of((last.action.arguments or {}).get("content"))


def _text_of(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(str(one) for one in value.values())
    return "" if value is None else str(value)


def _error(told: str | None) -> RunError | None:
    if told is None:
        return None
    of_service = any(word in told.casefold() for word in _NOT_ITS_FAULT)
    return RunError(kind="infrastructure" if of_service else "agent", message=told[:500])
