"""Conformal ranks, bets on them, and the Shiryaev–Roberts sum: the arithmetic of drift, exact and bounded.

A score's rank among all earlier scores is uniform while the traffic stays the same, whatever the score
(Vovk, Gammerman & Shafer, *Algorithmic Learning in a Random World*, 2005, §2). A bet that low ranks come too
often then has mean one, and R = (R + 1)·E has mean equal to the number of windows, so that the mean time to a
false alarm at R ≥ 1/rate is at least 1/rate windows (Shin, Ramdas & Rinaldo, *E-detectors*, 2023, Prop. 2.3).

Messages of one conversation are not independent, and its first message is not like its last. So a message weighs
the same wherever it stands in its session and in whichever window it comes, on both sides, and all messages of a
session share one bet: its mean is one for any dependence among them, as long as sessions are exchangeable.

Memory is bounded without loss: a score is rounded to the gaps between the scores of the fitting half, and the
past is the count in each gap. Rounding is part of the score, so the ranks stay exact.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from ratchet.evaluation.data.arrays import Floats, Ints

QUANTILES: Final = np.array([0.02, 0.05, 0.1, 0.2, 0.3])
STAKES: Final = np.array([0.06, 0.15, 0.35, 0.7])
N_BETS: Final = len(QUANTILES) * len(STAKES)

_BLOCK: Final = 256


@dataclass(frozen=True)
class Shares:
    """What each message of a batch weighs, its session counted as one."""

    groups: Ints
    """Number of its session in the batch, in order of first appearance."""
    weights: Floats
    own: Floats
    """Weight of what was seen of its session so far, at most one."""

    def of(self, rows: Ints) -> "Shares":
        """The shares of some of the messages."""
        return Shares(self.groups[rows], self.weights[rows], self.own[rows])


def message_shares(groups: Ints, before: Ints | None = None, size: float = 1.0) -> Shares:
    """One over the usual size of a session; over its own size where that is larger, so that none counts twice.

    Why not over its own size always: of a conversation that goes on nobody knows the size, and its first messages
    would weigh more than its last ones, which is drift to a score that tells the first from the last.

    Args:
        groups: (messages,) session of each.
        before: (messages,) how many messages of its session came in earlier batches.
        size: what `usual_size` found in the reference.
    """
    sizes = np.bincount(groups)[groups] + (0 if before is None else before)
    weights = 1.0 / np.maximum(sizes, size)
    return Shares(groups, np.asarray(weights, dtype=np.float64), np.asarray(sizes * weights))


def usual_size(groups: Ints) -> float:
    """How many messages a session may have and count as one; 1 without sessions.

    Twice the size of the session of a random message (Kish's design effect, *Survey Sampling*, 1965), at most the
    longest: a stretch of traffic cuts sessions at both its ends, and shows them shorter than they are.
    """
    sizes = np.bincount(groups) if len(groups) else np.ones(1)
    return float(min(2.0 * (sizes**2).sum() / sizes.sum(), sizes.max()))


def p_values(
    scores: Floats, those: Shares, above: Floats, tied: Floats, total: float, ties: Floats
) -> Floats:
    """Conformal p-value (messages,) of each score: the weighted share of earlier scores that are as high.

    `above` and `tied` are the weights of the past scores above and equal to each, `total` that of the whole
    past; sessions that stand earlier in the batch belong to the past too. `ties` are uniform draws that split
    ties, without which the p-values would not be uniform.
    """
    groups, weights, own = those.groups, those.weights, those.own
    p = np.empty(len(scores))
    for start in range(0, len(scores), _BLOCK):
        block = slice(start, start + _BLOCK)
        earlier = np.where(groups[None, :] < groups[block, None], weights[None, :], 0.0)
        higher = (earlier * (scores[None, :] > scores[block, None])).sum(axis=1)
        equal = (earlier * (scores[None, :] == scores[block, None])).sum(axis=1)
        known = total + earlier.sum(axis=1) + own[block]
        p[block] = (above[block] + higher + ties[block] * (tied[block] + equal + own[block])) / known
    return p


def stake_floor(pool: float) -> Floats:
    """Smallest stake (quantiles,) that the sampling error of a pool of so many messages cannot pay for.

    Against a fixed pool of n, P(p ≤ q) = q(1 + ε) with sd(ε) = √((1/q − 1)/n), and a stake λ gains on average
    λε − λ²(1/q − 1)/2 a message: nothing where λ ≥ 2ε/(1/q − 1). The floor takes ε at two and a half sd.
    """
    odds = 1.0 / QUANTILES - 1.0
    return np.asarray(np.minimum(2.0 * 2.5 / np.sqrt(max(pool, 1.0) * odds), STAKES[-1]))


def low_counts(p: Floats, groups: Ints, n: int) -> Floats:
    """For each of `n` sessions (n, 1 + quantiles): its messages, and how many rank at or below each quantile."""
    counts = np.zeros((n, 1 + len(QUANTILES)))
    np.add.at(counts, groups, np.hstack([np.ones((len(p), 1)), p[:, None] <= QUANTILES[None, :]]))
    return counts


def log_bets(
    counts: Floats, *, before: Floats | None = None, size: float = 1.0, floor: Floats | None = None
) -> Floats:
    """Log evidence (bets,) of a window: the product over sessions of what their bet grew by.

    The bet on quantile q with stake λ is 1 + λ Σ(1{p ≤ q}/q − 1)/max(size, T) over the T messages of a session, of
    mean one for uniform ranks however its messages depend on each other, and over however many windows they come.

    Args:
        counts: `low_counts` of the window's sessions.
        before: those of the same sessions in the windows before.
        size: usual messages a session, as in `message_shares`.
        floor: smallest stake on each quantile, as of `stake_floor`.
    """
    stakes = np.maximum(STAKES[None, :], 0.0 if floor is None else floor[:, None])
    bets = _session_bets(counts if before is None else counts + before, size, stakes)
    if before is not None:
        bets /= _session_bets(before, size, stakes)
    return np.asarray(np.log(bets).sum(axis=0))


def _session_bets(counts: Floats, size: float, stakes: Floats) -> Floats:
    messages = counts[:, :1]
    gained = (counts[:, 1:] / QUANTILES - messages) / np.maximum(messages, size)
    return np.asarray(1.0 + (gained[:, :, None] * stakes[None, :, :]).reshape(len(counts), N_BETS))


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

    def p_values(self, values: Floats, those: Shares, ties: Floats) -> Floats:
        """Conformal p-value of each value against everything that was absorbed."""
        gaps = self.gaps(values)
        index = gaps.astype(np.int64)
        upwards = np.concatenate([np.cumsum(self.counts[::-1])[::-1], [0.0]])
        return p_values(gaps, those, upwards[index + 1], self.counts[index], float(upwards[0]), ties)

    def absorb(self, values: Floats, weights: Floats) -> None:
        """Count the values as past."""
        np.add.at(self.counts, self.gaps(values).astype(np.int64), weights)


def pool_p_values(values: Floats, those: Shares, pool: Floats, pool_weights: Floats, ties: Floats) -> Floats:
    """Conformal p-value of each value against an explicit pool of scores with weights."""
    order = np.argsort(pool, kind="stable")
    ranked = pool[order]
    downwards = np.concatenate([[0.0], np.cumsum(pool_weights[order])])
    low = downwards[np.searchsorted(ranked, values, side="left")]
    high = downwards[np.searchsorted(ranked, values, side="right")]
    return p_values(values, those, downwards[-1] - high, high - low, float(downwards[-1]), ties)
