"""Conformal ranks, bets on them, and the Shiryaev–Roberts sum: the arithmetic of drift, exact and bounded.

A score's rank among all earlier scores is uniform while the traffic stays the same, whatever the score
(Vovk, Gammerman & Shafer, *Algorithmic Learning in a Random World*, 2005, §2). A bet that low ranks come too
often then has mean one, and R = (R + 1)·E has mean equal to the number of windows, so that the mean time to a
false alarm at R ≥ 1/rate is at least 1/rate windows (Shin, Ramdas & Rinaldo, *E-detectors*, 2023, Prop. 2.3).

Memory is bounded without loss: a score is rounded to the gaps between the scores of the fitting half, and the
past is the count in each gap. Rounding is part of the score, so the ranks stay exact.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

QUANTILES: Final = np.array([0.02, 0.05, 0.1, 0.2, 0.3])
STAKES: Final = np.array([0.06, 0.15, 0.35, 0.7])
N_BETS: Final = len(QUANTILES) * len(STAKES)

_BLOCK: Final = 256


def session_weights(groups: Ints) -> Floats:
    """Weight (messages,) one over the size of the session: each session counts as one message."""
    return np.asarray(1.0 / np.bincount(groups)[groups], dtype=np.float64)


def p_values(scores: Floats, groups: Ints, above: Floats, tied: Floats, total: float, ties: Floats) -> Floats:
    """Conformal p-value (messages,) of each score: the weighted share of earlier scores that are as high.

    `above` and `tied` are the weights of the past scores above and equal to each, `total` that of the whole
    past; sessions that stand earlier in the batch belong to the past too. `ties` are uniform draws that split
    ties, without which the p-values would not be uniform.
    """
    weights = session_weights(groups)
    p = np.empty(len(scores))
    for start in range(0, len(scores), _BLOCK):
        block = slice(start, start + _BLOCK)
        earlier = np.where(groups[None, :] < groups[block, None], weights[None, :], 0.0)
        higher = (earlier * (scores[None, :] > scores[block, None])).sum(axis=1)
        equal = (earlier * (scores[None, :] == scores[block, None])).sum(axis=1)
        known = total + earlier.sum(axis=1) + 1.0
        p[block] = (above[block] + higher + ties[block] * (tied[block] + equal + 1.0)) / known
    return p


def stake_floor(pool: float) -> Floats:
    """Smallest stake (quantiles,) that the sampling error of a pool of so many messages cannot pay for.

    Against a fixed pool of n, P(p ≤ q) = q(1 + ε) with sd(ε) = √((1/q − 1)/n), and a stake λ gains on average
    λε − λ²(1/q − 1)/2 a message: nothing where λ ≥ 2ε/(1/q − 1). The floor takes ε at two and a half sd.
    """
    odds = 1.0 / QUANTILES - 1.0
    return np.asarray(np.minimum(2.0 * 2.5 / np.sqrt(max(pool, 1.0) * odds), STAKES[-1]))


def log_bets(p: Floats, groups: Ints, floor: Floats | None = None) -> Floats:
    """Log evidence (bets,) of a window: the product over sessions of the mean bet of their messages.

    The bet on quantile q with stake λ is 1 + λ(1{p ≤ q}/q − 1), of mean one for a uniform p.
    """
    low = (p[:, None] <= QUANTILES[None, :]) / QUANTILES[None, :] - 1.0
    stakes = np.maximum(STAKES[None, :], 0.0 if floor is None else floor[:, None])
    bets = 1.0 + (low[:, :, None] * stakes[None, :, :]).reshape(len(p), N_BETS)
    sizes = np.bincount(groups)
    sums = np.zeros((len(sizes), N_BETS))
    np.add.at(sums, groups, bets)
    present = sizes > 0
    return np.asarray(np.log(sums[present] / sizes[present, None]).sum(axis=0))


def shiryaev_roberts(evidence: Floats, log_bet: Floats, ceiling: float) -> Floats:
    """R = (R + 1)·E for each bet, cut at `ceiling` so that it comes down again when a drift ends."""
    headroom = np.log(ceiling) - np.log1p(evidence)
    return np.asarray(
        np.where(log_bet >= headroom, ceiling, (evidence + 1.0) * np.exp(np.minimum(log_bet, 50.0)))
    )


class RankCounts:
    """All past scores as session-weighted counts in the gaps between `cuts`."""

    def __init__(self, cuts: Floats, counts: Floats | None = None) -> None:
        self.cuts = np.sort(np.asarray(cuts, dtype=np.float64))
        self.counts = np.zeros(2 * len(self.cuts) + 1) if counts is None else np.asarray(counts)

    def gaps(self, values: Floats) -> Floats:
        """Which gap, or which cut exactly, each value falls on; ordered as the values are."""
        left = np.searchsorted(self.cuts, values, side="left")
        return np.asarray(left + np.searchsorted(self.cuts, values, side="right"), dtype=np.float64)

    def p_values(self, values: Floats, groups: Ints, ties: Floats) -> Floats:
        """Conformal p-value of each value against everything that was absorbed."""
        gaps = self.gaps(values)
        index = gaps.astype(np.int64)
        upwards = np.concatenate([np.cumsum(self.counts[::-1])[::-1], [0.0]])
        return p_values(gaps, groups, upwards[index + 1], self.counts[index], float(upwards[0]), ties)

    def absorb(self, values: Floats, groups: Ints) -> None:
        """Count the values as past."""
        np.add.at(self.counts, self.gaps(values).astype(np.int64), session_weights(groups))


def pool_p_values(values: Floats, groups: Ints, pool: Floats, pool_weights: Floats, ties: Floats) -> Floats:
    """Conformal p-value of each value against an explicit pool of scores with weights."""
    order = np.argsort(pool, kind="stable")
    ranked = pool[order]
    downwards = np.concatenate([[0.0], np.cumsum(pool_weights[order])])
    low = downwards[np.searchsorted(ranked, values, side="left")]
    high = downwards[np.searchsorted(ranked, values, side="right")]
    return p_values(values, groups, downwards[-1] - high, high - low, float(downwards[-1]), ties)
