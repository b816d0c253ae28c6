"""What a person may set about the gate; here, so that who only reads settings needs no pipeline."""

from pydantic import Field

from ratchet.agent.record import StageSettings
from ratchet.evaluation.gate.ledger import Spending
from ratchet.evaluation.gate.questions import MOST_ANSWERS


class GateSettings(StageSettings):
    """How sure to be, and in what portions to look."""

    alpha: float = Field(default=0.05, gt=0, lt=1)
    """Probability of any false promotion in the project's lifetime; fixed by its first test."""
    spending: Spending = "family-wise"
    """What alpha bounds: any false promotion, or with e-LOND the share of false ones; fixed by the first test."""
    min_gain: float = Field(default=0.0, gt=-1, lt=1)
    """Promote only above this mean gain in score; negative: as good will do."""
    gain_worth_finding: float = Field(default=0.1, ge=0, lt=1)
    """True gain that a test shall prove with the fewest labels: its horizon, where `min_gain` is 0; 0: no horizon."""
    batch: int = Field(default=16, ge=1)
    """Cases between two looks; a session is not cut."""
    max_cases: int = Field(default=400, ge=1)
    """Fresh cases that one test may use, the newest; the rest is left for later ones."""
    min_cases: int = Field(default=20, ge=1)
    """Fewer fresh cases than this and no test opens: it would spend budget for nothing."""
    max_open: int = Field(default=6, ge=1, le=MOST_ANSWERS - 1)
    """Tests that may be open at once; no further one opens before one of them ends."""
    audit_share: float = Field(default=0.05, ge=0, le=1)
    """Share of the cases whose answers count as the same, though written otherwise, that people are asked about."""
    judge: bool = False
    """Let the judge made last take part in new tests where nobody but people can score: fewer answers, more cases."""
    judge_share: float = Field(default=0.25, ge=0.02, le=1)
    """Share of the cases at which a test with a judge asks people; the judge alone sees the others."""
