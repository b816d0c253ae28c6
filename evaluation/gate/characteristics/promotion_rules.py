"""How others promote, vectorized, to be measured beside the gate on the same cases.

Each rule takes scores of N tests, champion and challenger [N, T], in order of arrival, and returns the number
of labels after which it promotes, [N]; 0 = it never does.
"""

import math
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ratchet.evaluation.data.arrays import Floats
from ratchet.evaluation.gate.characteristics.simulation import Counts, first_crossings

Rule = Callable[[Floats, Floats], Counts]

Z_ONE_SIDED: Final = 1.6449
"""Normal quantile of 0.95."""
Z_POWER: Final = 0.8416
"""Normal quantile of 0.80."""


def higher_mean(champion: Floats, challenger: Floats, *, cases: int = 50) -> Counts:
    """Promote when the mean over a fixed set of cases is higher: what most optimizers do."""
    d = (challenger - champion)[:, :cases]
    return np.where(d.mean(axis=1) > 0, d.shape[1], 0)


def best_of_k(champion: Floats, challengers: Floats, *, cases: int = 50) -> NDArray[np.bool_]:
    """Whether the best of k challengers, [N, k, T], beats the champion, [N, T], on the same cases; [N]."""
    best = challengers[..., :cases].mean(axis=2).max(axis=1)
    better: NDArray[np.bool_] = best > champion[:, :cases].mean(axis=1)
    return better


def z_test(champion: Floats, challenger: Floats, *, looks: Counts) -> Counts:
    """One-sided paired z-test at 0.05 after each number of labels in `looks`; one look = a fixed-n test."""
    d = challenger - champion
    sums, squares = np.cumsum(d, axis=1)[:, looks - 1], np.cumsum(d * d, axis=1)[:, looks - 1]
    mean = sums / looks
    error = np.sqrt(np.maximum(squares / looks - mean**2, 1e-12) / looks)
    return _first(mean / error > Z_ONE_SIDED, looks)


def mcnemar(champion: Floats, challenger: Floats, *, cases: int = 400) -> Counts:
    """Exact two-sided McNemar test at 0.05 on binary scores, once, after a fixed number of cases."""
    d = (challenger - champion)[:, :cases]
    wins, losses = (d > 0).sum(axis=1), (d < 0).sum(axis=1)
    critical = _critical_wins(d.shape[1])
    return np.where(wins >= critical[wins + losses], d.shape[1], 0)


def likelihood_ratio(champion: Floats, challenger: Floats, *, delta: float = 0.05, least: int = 10) -> Counts:
    """TensorZero's rule, after every label: gap² / (2 · pooled variance) ≥ ln((1 + ln t)/δ)."""
    t = np.arange(1, champion.shape[1] + 1)
    ours, our_variance = _running(champion, t)
    theirs, their_variance = _running(challenger, t)
    gap = theirs - ours
    pooled = np.maximum((our_variance + their_variance) / t, 1e-12)
    crossed = (gap > 0) & (gap**2 / (2 * pooled) >= np.log((1 + np.log(t)) / delta)) & (t >= least)
    return _first(crossed, t)


def gate_rule(champion: Floats, challenger: Floats, *, alpha: float | Floats = 0.05) -> Counts:
    """This gate without a judge, after every label."""
    d = challenger - champion
    return first_crossings(d, np.zeros_like(d), alpha).at


def agrapa(champion: Floats, challenger: Floats, *, alpha: float = 0.05, cap: float = 0.75) -> Counts:
    """The same e-process with aGRAPA bets (Waudby-Smith & Ramdas 2023, sect. B.3): λ = μ̂/(σ̂² + μ̂²)."""
    d = challenger - champion
    t = np.arange(1, d.shape[1] + 1)
    mean = np.cumsum(d, axis=1) / (t + 1)
    variance = (0.25 + np.cumsum((d - mean) ** 2, axis=1)) / (t + 1)
    bets = np.clip(mean / (variance + mean**2), 0.0, cap)
    bets = np.concatenate([np.zeros((d.shape[0], 1)), bets[:, :-1]], axis=1)
    wealth = np.cumsum(np.log1p(bets * d), axis=1)
    return _first(wealth >= -math.log(alpha), t)


def online_newton(champion: Floats, challenger: Floats, *, alpha: float = 0.05) -> Counts:
    """The same e-process with online Newton step bets (Cutkosky & Orabona 2018; λ in [0, 1/2])."""
    d = challenger - champion
    rate = 2 / (2 - math.log(3))
    bets, curvature, wealth = np.zeros(d.shape[0]), np.ones(d.shape[0]), np.zeros_like(d)
    total = np.zeros(d.shape[0])
    for step in range(d.shape[1]):
        x = d[:, step]
        total += np.log1p(bets * x)
        wealth[:, step] = total
        slope = x / (1 + bets * x)
        curvature += slope**2
        bets = np.clip(bets + rate * slope / curvature, 0.0, 0.5)
    return _first(wealth >= -math.log(alpha), np.arange(1, d.shape[1] + 1))


def fixed_n(gain: float, variance: float) -> int:
    """Labels of a one-sided paired z-test at 0.05 with 80 % power: (z_α + z_β)² σ²/gain²."""
    return math.ceil((Z_ONE_SIDED + Z_POWER) ** 2 * variance / gain**2)


def _first(crossed: NDArray[np.bool_], looks: NDArray[np.int64]) -> Counts:
    return np.where(crossed.any(axis=1), looks[crossed.argmax(axis=1)], 0)


def _running(scores: Floats, t: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Mean and variance (with t − 1) over the first t scores, [N, T]."""
    mean = np.cumsum(scores, axis=1) / t
    variance = (np.cumsum(scores**2, axis=1) - t * mean**2) / np.maximum(t - 1, 1)
    return mean, np.maximum(variance, 0.0)


def _critical_wins(most: int) -> Counts:
    """Fewest wins among m discordant pairs with two-sided binomial p ≤ 0.05, for m = 0 … most, [most + 1]."""
    critical = np.zeros(most + 1, dtype=np.int64)
    log_choose = np.array([math.lgamma(i + 1) for i in range(most + 1)])
    for m in range(most + 1):
        k = np.arange(m + 1)
        mass = np.exp(log_choose[m] - log_choose[k] - log_choose[m - k] - m * math.log(2))
        tail = np.cumsum(mass[::-1])[::-1]
        significant = np.flatnonzero(2 * tail <= 0.05)
        critical[m] = significant[0] if significant.size else m + 1
    return critical
