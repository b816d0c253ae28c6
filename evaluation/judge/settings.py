"""What a person may set about the judge; here, so that who only reads settings needs no pipeline."""

from typing import Final, Literal

from pydantic import Field

from ratchet.agent.record import StageSettings

JudgeKind = Literal["off", "classifier", "likelihood", "rubric"]
RUBRIC: Final = "The answer does what the request asks for, and nothing in it is wrong."


class JudgeSettings(StageSettings):
    """Who judges, and what it must show before it may teach."""

    kind: JudgeKind = "classifier"
    """`classifier`: on text features, needs no endpoint; `likelihood`: the embedded LM's yes or no; `rubric`: the LM
    that `model` names; `off`: nobody."""
    model: str | None = None
    """A LiteLLM model string for `rubric`, asked at `RATCHET_LM_API_BASE`."""
    align: bool = False
    """Let MLflow reword the rubric by what people graded (GEPA; some four calls of `model` a label)."""
    rubric: str = Field(default=RUBRIC, min_length=1, max_length=4000)
    """What a right answer is, in words. Another rubric is another judge: its licence is lost."""
    rubric_version: str = Field(default="1", min_length=1, max_length=80)
    """Which of the labels were given by this rubric; others neither make nor audit the judge."""
    min_labels: int = Field(default=40, ge=10)
    """Labels on the training side that make a judge; fewer, and there is none."""
    rate_floor: float = Field(default=0.7, ge=0.5, lt=1)
    """Bound that both its TPR and its TNR must clear for a licence to grade training data."""
    kappa_floor: float = Field(default=0.4, ge=0, lt=1)
    """Bound that Cohen's κ must clear."""
    alpha: float = Field(default=0.05, gt=0, lt=1)
    """Probability that any judge of the project ever holds a licence that it does not deserve."""
    window: int = Field(default=200, ge=20)
    """Audits after which the oldest no longer count: a licence rests on the newest, one to two windows of them."""
    most_graded: int = Field(default=500, ge=0)
    """Unlabelled traces that a judge with a licence grades in a round."""
