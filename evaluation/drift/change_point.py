"""When did it begin? The posterior over all messages at which the ranks may have started to be low.

Before the change point a rank is at or below q with probability near q, after it with an unknown one; both are
integrated out (Beta-binomial), and streams and quantiles are averaged by how well they explain the ranks
(Barry & Hartigan, *Product partition models for change point problems*, 1992, with one change).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import betaln

from ratchet.evaluation.data.arrays import Floats, Ints
from ratchet.evaluation.drift.conformal import (
    QUANTILES,
)

_SURE: Final = 400.0
"""Pseudo-messages behind the belief that a rank is at or below q with probability q before the change point."""
_TEMPER: Final = 0.6
"""Power of the likelihood: the window of the alarm is a lucky one and neighbouring ranks are not independent;
set so that the interval covers in `tests/bench`."""
_MASS: Final = 0.95


@dataclass(frozen=True)
class Ranks:
    """P-values of one stream: which messages have one (increasing), how low each is, what each counts."""

    messages: Ints
    p: Floats
    weights: Floats


def locate_change_point(streams: Sequence[Ranks], n: int) -> tuple[int, int, int]:
    """Most likely change point among messages 0 … n − 1, with the bounds of a 95 % interval."""
    logs = np.concatenate([_log_likelihoods(ranks, n) for ranks in streams if len(ranks.p)])
    peak = logs.max()
    posterior = np.exp(_TEMPER * (logs - peak)).sum(axis=0)
    posterior /= posterior.sum()
    below = np.cumsum(posterior)
    tail = (1.0 - _MASS) / 2.0
    low = int(np.searchsorted(below, tail))
    high = int(np.searchsorted(below, 1.0 - tail))
    return int(np.searchsorted(below, 0.5)), low, min(high, n - 1)


def _log_likelihoods(ranks: Ranks, n: int) -> Floats:
    """Log marginal likelihood (quantiles, n) of a change point at each message."""
    weight = np.zeros(n)
    weight[ranks.messages] = ranks.weights
    rows = []
    for q in QUANTILES:
        low = np.zeros(n)
        low[ranks.messages] = ranks.weights * (ranks.p <= q)
        before_low, before = np.cumsum(low) - low, np.cumsum(weight) - weight
        after_low, after = low.sum() - before_low, weight.sum() - before
        a, b = _SURE * q, _SURE * (1.0 - q)
        usual = betaln(a + before_low, b + before - before_low) - betaln(a, b)
        changed = betaln(1.0 + after_low, 1.0 + after - after_low) - betaln(1.0, 1.0)
        # A rank that became higher is no drift of this stream.
        rises = (after_low + 1.0) / (after + 2.0) > q
        constant = betaln(a + low.sum(), b + weight.sum() - low.sum()) - betaln(a, b)
        rows.append(np.where(rises, usual + changed, -np.inf) - constant)
    return np.asarray(np.nan_to_num(np.array(rows), neginf=-1e9))
