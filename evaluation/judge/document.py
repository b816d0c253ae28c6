"""A judge as it is stored: JSON, whose hash is the judge's id.

Why never a pickle: whoever may write to the store could otherwise run code wherever a judge is loaded.
"""

from typing import Literal

from pydantic import Field

from ratchet.agent.record import Json, Record, content_hash
from ratchet.evaluation.judge.graded import Graded


class JudgeDocument(Record):
    """All that a judge's grades follow from."""

    kind: Literal["classifier", "likelihood", "rubric"]
    rubric: str
    rubric_version: str = "1"
    n_labels: int = Field(default=0, ge=0)
    """From how many graded answers it was made."""
    content: dict[str, Json]
    """What its kind needs: weights, a model's name, instructions."""

    @property
    def judge_id(self) -> str:
        """Content hash."""
        return content_hash(self.model_dump(mode="json"))


def even_odds(margins: list[float], graded: list[Graded]) -> tuple[float, float]:
    """Slope and offset that turn a judge's margin into P(right), as if half of all answers were right.

    Platt's logistic (1999). Even odds, because a licence asks for TPR and TNR: where nine of ten answers are right, a
    grade of plain P(right) would call all of them right.
    """
    from sklearn.linear_model import LogisticRegression

    right = [one.is_right for one in graded]
    if len(set(right)) < 2:
        return 1.0, 0.0
    fitted = LogisticRegression(class_weight="balanced", C=10.0).fit([[m] for m in margins], right)
    return float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
