"""What moves a judge that should not: which answer stands first, and how long an answer is.

Shown, not corrected: both orders of a preference are averaged anyway, and what length does to grades is in the
audits.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from pydantic import Field

from ratchet.agent.case import Case
from ratchet.agent.record import Json, Record
from ratchet.evaluation.judge.agreement import Audit

Preference = Callable[[Case, Json, Json], float]
"""(case, first, second) -> how much better the first is, in [-1, 1], asked in this order alone."""


class PositionBias(Record):
    """What a judge says when the two answers change places."""

    pairs: int = Field(ge=0)
    flips: int = Field(ge=0)
    """Pairs in which the other answer won after the swap."""
    first: float = Field(ge=-1, le=1)
    """Mean advantage of standing first; 0 = none."""

    @property
    def share(self) -> float | None:
        """Flips among the pairs."""
        return self.flips / self.pairs if self.pairs else None


class VerbosityBias(Record):
    """How much longer answers are graded better, by the judge and by people."""

    judge: float | None = None
    """Correlation of its grade with the logarithm of the length; None = one of them never varies."""
    people: float | None = None
    n: int = Field(ge=0)

    @property
    def excess(self) -> float | None:
        """What the judge gives for length beyond what people do."""
        return None if self.judge is None or self.people is None else self.judge - self.people


def in_both_orders(prefer: Preference, case: Case, left: Json, right: Json) -> float:
    """The preference for `left`, averaged over both orders."""
    return (prefer(case, left, right) - prefer(case, right, left)) / 2


def position_bias(prefer: Preference, pairs: Sequence[tuple[Case, Json, Json]]) -> PositionBias:
    """Ask about every pair in both orders."""
    both = [(prefer(case, one, other), prefer(case, other, one)) for case, one, other in pairs]
    flips = sum(forth * back > 0 for forth, back in both)  # whoever stood first won both times, or lost
    first = math.fsum((forth + back) / 2 for forth, back in both) / len(both) if both else 0.0
    return PositionBias(pairs=len(both), flips=flips, first=first)


def verbosity_bias(audits: Sequence[Audit]) -> VerbosityBias:
    """Of the audited answers."""
    length = np.log1p([audit.length for audit in audits])
    found = [
        _correlation(np.array([getattr(audit, who) for audit in audits], float), length)
        for who in ("judge", "person")
    ]
    return VerbosityBias(judge=found[0], people=found[1], n=len(audits))


def _correlation(one: np.ndarray, other: np.ndarray) -> float | None:
    if len(one) < 3 or one.std() == 0 or other.std() == 0:
        return None
    return float(np.corrcoef(one, other)[0, 1])
