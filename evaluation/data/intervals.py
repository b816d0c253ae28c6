"""A mean with its interval, and how many cases it leaves out.

Why `None` is excluded and counted, never 0: an unscored case says nothing, and a mean over few of many cases
must show it.
"""

import math
from collections.abc import Sequence
from typing import Final

from pydantic import Field

from ratchet.agent.errors import BadInput
from ratchet.agent.record import Record

_LOG_2_OVER_ALPHA: Final = math.log(2 / 0.05)


class Interval(Record):
    """A mean of scores in [0, 1] with its 95 % interval, for one fixed set of cases."""

    mean: float = Field(ge=0, le=1)
    low: float = Field(ge=0, le=1)
    high: float = Field(ge=0, le=1)
    n: int = Field(ge=1)
    """Scored cases."""
    excluded: int = Field(default=0, ge=0)
    """Cases without a score."""

    def __str__(self) -> str:
        left_out = f", {self.excluded} excluded" if self.excluded else ""
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}] (n={self.n}{left_out})"


def mean_interval(scores: Sequence[float | None]) -> Interval:
    """Mean and 95 % interval: Wilson's for scores that are all 0 or 1, empirical Bernstein otherwise.

    Raises:
        BadInput: no case has a score, or a score is outside [0, 1].
    """
    known = known_scores(scores)
    mean = math.fsum(known) / len(known)
    low, high = _wilson(known) if set(known) <= {0, 1} else _bernstein(known, mean)
    low, high = max(0.0, min(low, mean)), min(1.0, max(high, mean))
    return Interval(mean=mean, low=low, high=high, n=len(known), excluded=len(scores) - len(known))


def known_scores(scores: Sequence[float | None]) -> list[float]:
    """Those that there are; BadInput where there are none, or one is outside [0, 1]."""
    known = [score for score in scores if score is not None]
    if not known:
        raise BadInput(
            f"no score among {len(scores)} cases: an empty set has no mean; label or score some first"
        )
    wrong = [score for score in known if not 0 <= score <= 1]
    if wrong:
        raise BadInput(f"score {wrong[0]!r} is outside [0, 1]: rescale it")
    return known


def _wilson(known: Sequence[float]) -> tuple[float, float]:
    """Wilson (1927): keeps its coverage near 0 and 1, where the normal interval collapses."""
    from scipy.stats import binomtest

    found = binomtest(round(sum(known)), len(known)).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def _bernstein(scores: Sequence[float], mean: float) -> tuple[float, float]:
    """Maurer & Pontil (2009), theorem 4, both sides: holds for any bounded score and any n > 1."""
    n = len(scores)
    if n == 1:
        return 0.0, 1.0
    variance = math.fsum((score - mean) ** 2 for score in scores) / (n - 1)
    log_term = math.log(2) + _LOG_2_OVER_ALPHA  # ln(2/δ) with δ = α/2 on each side
    half = math.sqrt(2 * variance * log_term / n) + 7 * log_term / (3 * (n - 1))
    return mean - half, mean + half
