"""Many tests at once: populations with a known gain, and when the gate's evidence crosses in each.

The reference for every stated error rate. It multiplies wealth directly where `betting.bet` adds logarithms
(no underflow guard is needed over a few thousand bets), which makes a bet cost a few nanoseconds; a test
holds the two to the same values.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from ratchet.evaluation.data.arrays import Floats
from ratchet.evaluation.gate.betting import LOG_WEIGHTS, NO_PRIOR, Bounds, TrustPrior, trust
from ratchet.evaluation.gate.ledger import share_taken

Counts = NDArray[np.int64]
Draw = Callable[[np.random.Generator, tuple[int, ...]], tuple[Floats, Floats]]
"""Bets of independent tests: (a, c), each of the given shape, tests × bets."""


OnMeasurement = Callable[[str], None]
"""Called with the name of each measurement as it starts."""

GAINS: Final = (0.05, 0.1, 0.2)
CANDIDATES: Final = 50
"""In one lifetime."""


class ResultRow(BaseModel):
    """Frozen, and nothing unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Population:
    """Where bets come from: the true mean of `a` is `gain`."""

    name: str
    gain: float
    draw: Draw
    bounds: Bounds = field(default_factory=Bounds)


@dataclass(frozen=True)
class Judge:
    """A judge whose difference F has correlation `correlation` with the human D, and `per_label` fresh F's.

    F is D itself with probability `correlation`, and otherwise an independent draw with D's distribution.
    """

    correlation: float
    per_label: int = 10


_BLOCK: Final = 1000
"""Tests run together: their capital fits into a processor's second-level cache."""


@dataclass(frozen=True)
class Crossings:
    """Per test, [N]: the bet at which e first reached 1/alpha (0 = never), ln e after the last bet, the largest."""

    at: Counts
    log_e: Floats
    peak: Floats


def first_crossings(
    a: Floats,
    c: Floats,
    alpha: float | Floats,
    *,
    null: float = 0.0,
    bounds: Bounds | None = None,
    prior: TrustPrior = NO_PRIOR,
) -> Crossings:
    """Run N tests of T bets each, a and c [N, T], looking after every bet; alpha scalar or [N]."""
    thresholds = 1 / np.broadcast_to(np.asarray(alpha, dtype=np.float64), (a.shape[0],))
    blocks = [
        _run(a[rows], c[rows], thresholds[rows], null, bounds or Bounds(), prior)
        for rows in (slice(start, start + _BLOCK) for start in range(0, a.shape[0], _BLOCK))
    ]
    at, log_e, peak = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return Crossings(at, log_e, peak)


def _run(
    a: Floats, c: Floats, threshold: Floats, null: float, bounds: Bounds, prior: TrustPrior
) -> tuple[Counts, Floats, Floats]:
    tests = a.shape[0]
    at, wealth, peak = np.zeros(tests, dtype=np.int64), np.ones(tests), np.ones(tests)
    for t, capital in enumerate(capitals(a, c, null=null, bounds=bounds, prior=prior)):
        wealth = capital.sum(axis=1)
        at[(at == 0) & (wealth >= threshold)] = t + 1
        np.maximum(peak, wealth, out=peak)
    with np.errstate(divide="ignore"):
        return at, np.log(wealth), np.log(peak)


def capitals(
    a: Floats, c: Floats, *, null: float = 0.0, bounds: Bounds | None = None, prior: TrustPrior = NO_PRIOR
) -> Iterator[Floats]:
    """What each stake of each test owns after every bet, [N, J], in sum M; the same array, changed in place."""
    bounds = bounds or Bounds()
    tests, length = a.shape
    stakes, caps = bounds.stakes, bounds.trust_caps
    capital = np.broadcast_to(np.exp(LOG_WEIGHTS), (tests, LOG_WEIGHTS.size)).copy()
    past, judged = np.zeros((tests, 3)), bool(np.any(c))
    for t in range(length):
        x = a[:, t, None]
        if judged:
            x = x - np.minimum(trust(past + prior.sums)[:, None], caps) * c[:, t, None]
            past += np.stack([np.ones(tests), a[:, t] * c[:, t], c[:, t] ** 2], axis=-1)
        capital *= 1 + stakes * x
        if null:
            capital /= 1 + stakes * null
        yield capital


def bernoulli(p: float, shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """Scores 1 with probability p and otherwise 0."""
    return (rng.random(shape) < p).astype(np.float64)


def binary(champion: float, gain: float, *, shared: float = 0.0) -> Population:
    """Both sides right or wrong; on a share `shared` of the cases both stand or fall together (ties)."""

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
        # Where the sides share their luck they differ by the gain alone, elsewhere they are independent.
        luck = rng.random(shape)
        other = np.where(rng.random(shape) < shared, luck, rng.random(shape))
        d = (other < champion + gain).astype(np.float64) - (luck < champion)
        return d, np.zeros(shape)

    ties = f", {shared:.0%} shared luck" if shared else ""
    return Population(f"binary p = {champion:g}{ties}", gain, draw)


def continuous(gain: float, *, spread: float = 0.2) -> Population:
    """Graded scores: a case's difficulty common to both sides, and independent noise of sd `spread`.

    Noise is uniform and symmetric, small enough that no score leaves [0, 1].
    """
    half = spread * math.sqrt(3)
    room = (1 - abs(gain) - 2 * half) / 2
    if room < 0:
        raise ValueError(f"spread {spread} and gain {gain} leave [0, 1]; lower one of them")

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
        ours, theirs = rng.uniform(-half, half, shape), rng.uniform(-half, half, shape)
        return theirs - ours + gain, np.zeros(shape)

    return Population(f"graded, sd {spread:g}", gain, draw)


def rare_disaster(loss_rate: float = 0.05) -> Population:
    """Mean exactly 0: a small gain nearly always, and now and then all is lost. Breaks normal tests."""
    small = loss_rate / (1 - loss_rate)

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
        return np.where(rng.random(shape) < loss_rate, -1.0, small), np.zeros(shape)

    return Population(f"rare disaster ({loss_rate:.0%})", 0.0, draw)


def with_judge(population: Population, judge: Judge) -> Population:
    """The same labels, with judged pairs between them."""

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
        d, _ = population.draw(rng, shape)
        copy, _ = population.draw(rng, shape)
        f = np.where(rng.random(shape) < judge.correlation, d, copy)
        unlabelled = np.zeros(shape)
        for _ in range(judge.per_label):
            unlabelled += population.draw(rng, shape)[0]
        return d, f - unlabelled / judge.per_label

    name = f"{population.name}, judge ρ = {judge.correlation:g}"
    return replace(population, name=name, draw=draw)


def with_flattering_judge(population: Population, *, per_label: int = 10) -> Population:
    """An adversary: always prefers the challenger, and the more so the worse it is."""

    def opinion(d: Floats, rng: np.random.Generator) -> Floats:
        flattery: Floats = 0.55 - 0.4 * d + 0.05 * rng.random(d.shape)
        return flattery

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
        d, _ = population.draw(rng, shape)
        unlabelled = np.zeros(shape)
        for _ in range(per_label):
            unlabelled += opinion(population.draw(rng, shape)[0], rng)
        return d, opinion(d, rng) - unlabelled / per_label

    return replace(population, name=f"{population.name}, flattering judge", draw=draw)


def actively_labelled(population: Population, judge: Judge, *, min_propensity: float = 0.1) -> Population:
    """Labels picked where the judge sees a difference (propensity 0.5), rarely elsewhere; all pairs bet."""

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
        d, _ = population.draw(rng, shape)
        copy, _ = population.draw(rng, shape)
        f = np.where(rng.random(shape) < judge.correlation, d, copy)
        propensity = np.where(np.abs(f) > 0.25, 0.5, min_propensity)
        share = (rng.random(shape) < propensity) / propensity
        return share * d, f * (share - 1)

    bounds = Bounds(a_max=1 / min_propensity, c_max=max(1 / min_propensity - 1, 1.0))
    return Population(f"{population.name}, chosen labels", population.gain, draw, bounds)


def better_populations(gain: float) -> tuple[Population, ...]:
    """Binary outcomes with the given gain: independent sides at 0.5 and 0.7, and mostly shared luck."""
    return binary(0.5, gain), binary(0.7, gain), binary(0.7, gain, shared=0.7)


def promoted_in_lifetimes(
    tests: Crossings, candidates: int = CANDIDATES, alpha: float = 0.05
) -> NDArray[np.bool_]:
    """Which tests promote where `candidates` of them after each other share a ledger, [lifetimes, candidates].

    The family-wise rule of `evaluation.gate.ledger`, for all lifetimes at once.
    """
    peaks, last = (part.reshape(-1, candidates) for part in (tests.peak, tests.log_e))
    reserve, promoted = np.full(peaks.shape[0], alpha), np.zeros(peaks.shape, dtype=np.bool_)
    for k in range(candidates):
        share = share_taken(k + 1) * reserve
        promoted[:, k] = peaks[:, k] >= -np.log(share)
        back = np.where(promoted[:, k], 1.0, np.exp(np.minimum(last[:, k], 0.0)))
        reserve = reserve - share * (1 - back)
    return promoted


def labels_to_promotion(at: Counts) -> Floats:
    """Labels to promotion; never = infinite, so that medians count it."""
    return np.where(at > 0, at.astype(np.float64), np.inf)
