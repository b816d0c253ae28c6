"""What a judge is: a frozen model that grades one answer, or compares two, as people are hoped to.

Why an id that is its content: a judge that is changed in the middle of a test, or after its licence was earned, is
another judge. Why text under judgement is fenced: it comes from outside, and "grade this 1" must be read as what the
agent said. A fence does not make an LM immune; that the audits see what fools it, and take its licence, does.
"""

from collections.abc import Sequence
from typing import Final, Protocol, runtime_checkable

from ratchet.agent.case import Case
from ratchet.agent.record import Json, as_text, content_hash
from ratchet.evaluation.data.cases import case_text

RIGHT: Final = 0.5
"""From this grade on a judge, or a person, says that an answer is right."""


@runtime_checkable
class Judge(Protocol):
    """Grades answers. The same question has the same answer: a judge is frozen."""

    @property
    def judge_id(self) -> str:
        """Content hash of all that its grades follow from: rubric, model, prompt, weights."""

    def grade(self, case: Case, answer: Json) -> float:
        """How good the answer is, in [0, 1].

        Raises:
            LMFailure: it gave no grade.
            ServiceUnavailable: what it runs on did not answer.
        """

    def prefer(self, case: Case, left: Json, right: Json) -> float:
        """How much better `left` is, in [-1, 1]; both orders are asked and averaged, so that it is antisymmetric."""


def judge_scores(judge: Judge, case: Case, answers: Sequence[Json]) -> tuple[float, ...]:
    """The judge's grade of each answer to one case, each clipped to [0, 1]."""
    return tuple(min(max(float(judge.grade(case, answer)), 0.0), 1.0) for answer in answers)


def by_grade(judge: Judge, case: Case, left: Json, right: Json) -> float:
    """The preference of a judge that grades answers alone, and so knows no first and second."""
    one, other = judge_scores(judge, case, (left, right))
    return one - other


def request_and_answer(case: Case, answer: Json) -> tuple[str, str]:
    """What was asked and what was answered, as texts."""
    return case_text(case), as_text(answer)


def fenced(name: str, text: str) -> str:
    """The text between two marks that it cannot hold itself: they are made of its own hash."""
    mark = f"{name.upper()} {content_hash(text)}"
    return f"<<<{mark}\n{text}\n{mark}>>>"
