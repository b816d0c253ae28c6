"""What people are asked for the gate: which of the answers to one case are right, shown blind, in random order.

Why of a case and not of a version: the same answer of two versions needs no label, and one question serves all
versions that answered the case. Which version gave which answer is nowhere in it.
"""

import random
from collections.abc import Sequence
from datetime import datetime
from string import ascii_uppercase
from typing import Final, Literal, Self

from pydantic import Field, model_validator

from ratchet.agent.case import Case
from ratchet.agent.record import Json, Record, content_hash

Outcome = Literal["answered", "skip", "unclear"]
"""`skip`: somebody else shall say; `unclear`: the rubric does not say what is right here."""
MOST_ANSWERS: Final = 8
"""Distinct answers that one person can compare."""


class Question(Record):
    """One case and the answers to it that differ."""

    case: Case
    trace_id: str
    """The production trace of the case: its conversation is what the reviewer sees."""
    answers: tuple[Json, ...] = Field(min_length=2, max_length=MOST_ANSWERS)
    """In the order in which they are shown."""
    reason: str = ""
    """Why a person is asked this, in words."""
    audit: bool = False
    """The answers count as the same already; a random share of such cases is asked about all the same."""

    @property
    def question_id(self) -> str:
        """Of the case and its answers; the order in which they are shown is another matter."""
        return content_hash([self.case.case_id, sorted(content_hash(one) for one in self.answers)])

    @property
    def names(self) -> tuple[str, ...]:
        """What each answer is called on screen: LEFT and RIGHT, or A, B, C where there are more."""
        return ("LEFT", "RIGHT") if len(self.answers) == 2 else tuple(ascii_uppercase[: len(self.answers)])

    @staticmethod
    def shuffled(
        case: Case,
        trace_id: str,
        answers: Sequence[Json],
        *,
        salt: str,
        reason: str = "",
        audit: bool = False,
    ) -> "Question":
        """The answers in an order that follows from the case and `salt` alone, and so not from who gave which."""
        order = sorted(answers, key=content_hash)
        random.Random(content_hash([salt, case.case_id])).shuffle(order)
        return Question(case=case, trace_id=trace_id, answers=tuple(order), reason=reason, audit=audit)


class Reply(Record):
    """What one person said to one question."""

    question_id: str
    rater: str
    outcome: Outcome = "answered"
    good: tuple[int, ...] = ()
    """Places in `Question.answers` of those that are right, or better; none of them: neither is."""
    better: Json | None = None
    """The right answer in the person's own words; then `good` is empty, and an answer that says the same is right."""
    comment: str = ""
    created_at: datetime

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.outcome != "answered" and (self.good or self.better is not None):
            raise ValueError(f"a reply that says {self.outcome!r} holds no answer")
        if self.better is not None and self.good:
            raise ValueError("a reply picks answers or writes a better one, not both")
        return self


class Settled(Record):
    """What all replies to a question come to."""

    question_id: str
    good: tuple[int, ...] = ()
    better: Json | None = None
    settled_at: datetime
    """When it was decided: an answer after its deadline teaches and does not judge."""
    raters: tuple[str, ...] = ()
