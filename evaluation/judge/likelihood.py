"""The judge that is an LM's likelihood of "yes": no text is written, so none has to be read.

Made from labels only in its scale: what a small LM thinks of "yes" leans one way, and people's grades say where its
middle is.
"""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Final

from ratchet.agent.case import Case
from ratchet.agent.lm.lm import LM, Prompt
from ratchet.agent.lm.prompt_format import ASSISTANT, USER, data
from ratchet.agent.record import Json
from ratchet.evaluation.judge.document import JudgeDocument, even_odds
from ratchet.evaluation.judge.graded import Graded
from ratchet.evaluation.judge.judge import by_grade, request_and_answer

_CHOICES: Final = ("yes", "no")


class LikelihoodJudge:
    """A judge that asks an LM which of two words comes next."""

    def __init__(self, document: JudgeDocument, lm: LM) -> None:
        self.document, self._lm = document, lm
        self._even = document.content["even"]

    @cached_property
    def judge_id(self) -> str:
        """Content hash."""
        return self.document.judge_id

    def grade(self, case: Case, answer: Json) -> float:
        """P(right) at even odds."""
        slope, offset = self._even
        margin = _margin(self._lm, self.document.rubric, case, answer)
        return 1 / (1 + math.exp(-max(min(slope * margin + offset, 700.0), -700.0)))

    def prefer(self, case: Case, left: Json, right: Json) -> float:
        """By its grades."""
        return by_grade(self, case, left, right)


def made_likelihood(graded: Sequence[Graded], lm: LM, *, rubric: str, rubric_version: str) -> JudgeDocument:
    """Fit its scale to what people graded."""
    margins = [_margin(lm, rubric, one.case, one.answer) for one in graded]
    return JudgeDocument(
        kind="likelihood",
        rubric=rubric,
        rubric_version=rubric_version,
        n_labels=len(graded),
        content={"model": lm.model, "even": list(even_odds(margins, list(graded)))},
    )


def _margin(lm: LM, rubric: str, case: Case, answer: Json) -> float:
    """Nats between yes and no."""
    asked, said = request_and_answer(case, answer)
    room = lm.room.request
    prompt = Prompt(
        prefix=f"{USER}You check answers by this rule: {data(rubric, room)}\n",
        suffix=f"Request: {data(asked, room)}\nAnswer to be checked: {data(said, room)}\n"
        f"Is this answer right? Say yes or no.{ASSISTANT}",
        choices=_CHOICES,
    )
    yes, no = lm.score(prompt).log_probs
    return float(yes - no)
