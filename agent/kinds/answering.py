"""The world of an agent that answers a case whole: one question, one answer, text or JSON, and what it is worth.

Why an environment: the loop, the gate and the proposers play every kind of agent by the same three methods.
"""

from collections.abc import Mapping
from typing import Any

from ratchet.agent.case import Case
from ratchet.agent.environment import Action, Observation, Outcome
from ratchet.agent.kinds.scoring import Score
from ratchet.agent.memory.steps import goal_of
from ratchet.agent.record import Json, as_text


class Answering:
    """One case, one answer."""

    def __init__(self, score: Score | None = None) -> None:
        self._score = score
        self._case = Case(inputs={})
        self._answer: Json = None

    def reset(self, case: Case) -> Observation:
        """Show what is asked."""
        self._case = case
        return Observation(text=asked(case.inputs))

    def step(self, action: Action) -> tuple[Observation, bool]:
        """Take the answer; it is over then."""
        self._answer = action.said
        return Observation(text=""), True

    def outcome(self) -> Outcome:
        """What the project's scorer says; nothing where it has none, or cannot tell."""
        return Outcome(score=None if self._score is None else self._score(self._case, self._answer))


def asked(inputs: Mapping[str, Any]) -> str:
    """What a case asks, as one text: the last user message of a conversation, the request, the only input, or all."""
    messages = inputs.get("messages")
    if isinstance(messages, list):
        said = [m for m in messages if isinstance(m, dict) and m.get("role") == "user"]
        return text_of(said[-1].get("content")) if said else ""
    if len(inputs) == 1:
        return as_text(next(iter(inputs.values())))
    return goal_of(Case(inputs=dict(inputs))) or as_text(dict(inputs))


def text_of(content: Json) -> str:
    """The text of a message: of one in parts (text, images) its text parts."""
    if isinstance(content, list):
        texts = (part.get("text") if isinstance(part, dict) else part for part in content)
        return "\n".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else "" if content is None else as_text(content)
