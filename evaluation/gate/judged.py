"""A judge in a test: people are asked at a random share of the cases, and its scores make each answer tell more.

The share is constant and drawn by hash before the first case, whole sessions together, whatever the versions answer.
Cases that are not drawn are no labels, whoever could score them: they only tell what the judge says where people do
not, X = D − ρ(F − F̄_U). So the labelled cases are a random sample of all, those answered alike included.

Alone, a case that both answered alike needs no judge, drawn or not: F and F̄_U are both of cases that differ. In a
session it counts as F = 0, so that a session's mean is of the same turns whether it was drawn or not. Where the
judge fails at one turn the session has no F at all. A judge never learns which cases were drawn.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from pydantic import Field

from ratchet.agent.case import Case
from ratchet.agent.record import Json, Record, content_hash
from ratchet.evaluation.data.cases import LabelledCase
from ratchet.evaluation.gate.order import sessions
from ratchet.evaluation.gate.plays import Compared

GateScores = Callable[[str, Case, tuple[Json, Json]], tuple[float, float] | None]
"""(judge id, case, both answers) -> its grades in [0, 1]; None = it failed."""
_ALIKE: Final = 0.5


class JudgePlan(Record):
    """What of a judge a test fixes before its first case."""

    judge_id: str
    share: float = Field(gt=0, le=1)
    """Of the cases, at which people are asked."""
    salt: str
    """Decides which."""

    def draws(self, case_id: str, session_id: str | None) -> bool:
        """Whether people are asked about this case, or about all of its session."""
        unit = ["case", case_id] if session_id is None else ["session", session_id]
        return int(content_hash([self.salt, *unit], length=13), 16) < self.share * 16**13


def judged(
    plan: JudgePlan, batch: Sequence[LabelledCase], sides: Sequence[Compared], scores: GateScores
) -> list[Compared]:
    """What both did at these cases, with the judge's scores, and without labels where none were drawn."""
    by_case = {one.play.case_id: one for one in sides}
    found: list[Compared] = []
    for session in sessions(batch):
        mine = [(case, by_case[case.case_id]) for case in session]
        grades = [_grades(plan, case, one, scores) for case, one in mine]
        alone = session[0].session_id is None
        failed = any(grade is None for grade, (_, one) in zip(grades, mine, strict=True) if _counts(one))
        for grade, (_, one) in zip(grades, mine, strict=True):
            told = None if failed or (alone and one.play.alike) else grade
            found.append(_told(plan, one, told))
    return found


def _counts(one: Compared) -> bool:
    return not one.pair.is_broken


def _grades(
    plan: JudgePlan, case: LabelledCase, one: Compared, scores: GateScores
) -> tuple[float, float] | None:
    """The judge's, 0 for a side that gave no answer; of two answers that are alike any will do."""
    if not _counts(one):
        return None
    if one.play.alike:
        return _ALIKE, _ALIKE
    ours, theirs = one.answers
    if ours is None and theirs is None:
        return 0.0, 0.0
    found = scores(plan.judge_id, case.case, (ours, theirs))
    if found is None:
        return None
    return (0.0 if ours is None else found[0]), (0.0 if theirs is None else found[1])


def _told(plan: JudgePlan, one: Compared, grades: tuple[float, float] | None) -> Compared:
    pair: dict[str, Any] = {"propensity": plan.share}
    if grades is not None:
        pair |= {"champion_judge": grades[0], "challenger_judge": grades[1], "judge_id": plan.judge_id}
    if plan.draws(one.play.case_id, one.play.session_id):
        return one._replace(pair=one.pair.model_copy(update=pair))
    if _counts(one):  # else it stays the pair at which all broke, which is excluded wherever it stands
        nothing = {"champion": None, "challenger": None}
        pair |= nothing | {"champion_failed": None, "challenger_failed": None}
        play = one.play.model_copy(update=nothing | {"alike": False, "undrawn": True})
        return one._replace(pair=one.pair.model_copy(update=pair), play=play)
    return one._replace(pair=one.pair.model_copy(update=pair))
