"""What a verdict costs in labels, and how often whole lifetimes promote falsely: one table each, and their goals.

python tests/bench/bench_labels.py [--tests 2000] [--lifetimes 10000] [--only labels|worlds] [--seed 1]
Exits with 1 when a goal is missed. The defaults take about fifteen minutes on one core.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from label_worlds import World, worlds

from ratchet.evaluation.data.arrays import Floats
from ratchet.evaluation.gate.betting import NO_PRIOR, TrustPrior
from ratchet.evaluation.gate.characteristics.lifetimes import Bets, Plans, evidence
from ratchet.evaluation.gate.characteristics.simulation import (
    GAINS,
    Counts,
    first_crossings,
    promoted_in_lifetimes,
)
from ratchet.evaluation.gate.horizon import Flags
from ratchet.evaluation.gate.settings import GateSettings

RATE, OPTIONS, ALPHA, CANDIDATES = 0.7, 4, 0.05, 60
CORRELATIONS: Final = (0.6, 0.9)
UNLABELLED: Final = 9
"""Judged cases for each that a person sees: π = 0.1."""
LICENCE: Final = 50
"""Labels that the judge's licence rests on; the trust in it begins there."""
AFTER: Final = {0.05: 6000, 0.1: 2000, 0.2: 600}
"""Cases that a test may take."""
GOALS: Final = {"+ horizon": 0.40, "+ judge of ρ = 0.9": 0.25}
"""Most labels at gain 0.1, in units of the gate before."""


class Played(NamedTuple):
    """Both versions at N × T cases."""

    d: Floats
    """Challenger − champion."""
    differs: Flags


def play(rng: np.random.Generator, shape: tuple[int, int], gain: float) -> Played:
    """Four options, independent errors: the champion is right in 70 %, the challenger in `gain` more."""

    def choice(rate: float) -> Counts:
        wrong = rng.integers(1, OPTIONS, shape)
        return np.where(rng.random(shape) < rate, 0, wrong)

    ours, theirs = choice(RATE), choice(RATE + gain)
    return Played((theirs == 0).astype(np.float64) - (ours == 0), ours != theirs)


def labels_to_verdict(rng: np.random.Generator, tests: int, gain: float) -> dict[str, float]:
    """Median human labels to a promotion, by what was added."""
    world = play(rng, (tests, AFTER[gain]), gain)
    at = first_crossings(world.d, np.zeros_like(world.d), ALPHA).at
    asked = np.cumsum(world.differs, axis=1)
    found = {
        "the gate before": _median(at),
        "+ differing only": _median(_asked_at(asked, at)),
        "+ horizon": _median(_with_horizon(world, asked, GateSettings().gain_worth_finding)),
        "  (planned for the true gain)": _median(_with_horizon(world, asked, gain)),
    }
    for correlation in CORRELATIONS:
        found[f"+ judge of ρ = {correlation:g}"] = _median(_with_judge(rng, world, gain, correlation))
    return found


def _median(at: Counts) -> float:
    """Of the labels at a promotion; a test without one took more than all others."""
    return float(np.median(np.where(at > 0, at, np.inf)))


def _asked_at(asked: Counts, at: Counts) -> Counts:
    """Labels that people gave up to case `at`, from 1; 0 stays 0."""
    rows = np.arange(at.size)
    return np.where(at > 0, asked[rows, np.maximum(at, 1) - 1], 0)


def _with_horizon(world: Played, asked: Counts, planned_for: float) -> Counts:
    shares = np.full(world.d.shape[0], ALPHA)
    order = np.argsort(world.d == 0, axis=1, kind="stable")
    most = int((world.d != 0).sum(axis=1).min())
    decisive = np.take_along_axis(world.d, order[:, :most], axis=1)
    e = evidence(Bets(decisive), shares, Plans.of(shares, planned_for))
    crossed = e >= 1 / ALPHA
    place = np.take_along_axis(order[:, :most], crossed.argmax(axis=1)[:, None], axis=1)[:, 0]
    return _asked_at(asked, np.where(crossed.any(axis=1), place + 1, 0))


def _with_judge(rng: np.random.Generator, world: Played, gain: float, correlation: float) -> Counts:
    """Labels on differing cases alone, nine judged ones beside each; the trust begins with the licence's labels."""
    order = np.argsort(~world.differs, axis=1, kind="stable")
    most = int(world.differs.sum(axis=1).min())
    d = np.take_along_axis(world.d, order[:, :most], axis=1)
    pool = world.d[world.differs]

    def judge(people: Floats) -> Floats:
        other = rng.choice(pool, people.shape)
        return np.where(rng.random(people.shape) < correlation, people, other)

    unlabelled = np.zeros_like(d)
    for _ in range(UNLABELLED):
        unlabelled += judge(rng.choice(pool, d.shape))
    before = play(rng, (1, 10 * LICENCE), 0.0)
    people = before.d[before.differs][:LICENCE]
    prior = TrustPrior.of(people.tolist(), judge(people).tolist()) if correlation else NO_PRIOR
    return first_crossings(d, judge(d) - unlabelled / UNLABELLED, ALPHA, prior=prior).at


def show_labels(rows: dict[float, dict[str, float]]) -> list[tuple[str, float, float]]:
    """Print the table; return (goal, measured, most)."""
    names = list(rows[GAINS[0]])
    print(f"\nmedian human labels to a promotion, α = {ALPHA:g}, four options, champion right in {RATE:.0%}")
    print(f"{'true gain':32}" + "".join(f"{gain:>8g}" for gain in GAINS) + "   × the gate before, at 0.1")
    for name in names:
        ratio = rows[0.1][name] / rows[0.1]["the gate before"]
        print(f"{name:32}" + "".join(f"{rows[gain][name]:8.0f}" for gain in GAINS) + f"   {ratio:.3f}")
    return [
        (f"labels at gain 0.1, {name.strip()}", rows[0.1][name] / rows[0.1]["the gate before"], most)
        for name, most in GOALS.items()
    ]


def show_worlds(rates: Sequence[tuple[str, float]], lifetimes: int) -> list[tuple[str, float, float]]:
    """Print the table; return (goal, measured, most)."""
    print(f"\nlifetimes with a false promotion, of {lifetimes:,} with 60 candidates each; promised: 0.05")
    for name, rate in rates:
        error = (max(rate * (1 - rate), 1 / lifetimes) / lifetimes) ** 0.5
        print(f"{name:32}{rate:8.4f}   ± {error:.4f}")
    return [(f"false promotions: {name}", rate, 0.05) for name, rate in rates]


def show_found(rng: np.random.Generator, lifetimes: int) -> list[tuple[str, float, float]]:
    """Of the truly better candidates those that a lifetime of 60 promotes, M alone; print, return the goals."""
    print(
        "\nshare of truly better candidates that are promoted over 60; with a false promotion, of lifetimes"
    )
    goals = []
    for part, gain, cases in ((0.2, 0.2, 100), (0.2, 0.1, 300), (0.1, 0.2, 200)):
        better = rng.random((lifetimes, CANDIDATES)) < part
        d = play_many(rng, better.reshape(-1, 1), gain, cases)
        tests = first_crossings(d, np.zeros_like(d), ALPHA)
        old_shares = 6 * ALPHA / (np.pi * np.arange(1, CANDIDATES + 1)) ** 2
        before = tests.peak.reshape(better.shape) >= -np.log(old_shares)
        now = promoted_in_lifetimes(tests, candidates=CANDIDATES)
        false = float((now & ~better).any(axis=1).mean())
        name = f"{part:.0%} better by {gain:g}, {cases} cases"
        print(
            f"{name:32}{before[better].mean():8.3f} before {now[better].mean():8.3f} now; false {false:.4f}"
        )
        goals.append(
            (f"promoted before / now: {name}", float(before[better].mean() / now[better].mean()), 1.0)
        )
    return goals


def play_many(rng: np.random.Generator, better: Flags, gain: float, cases: int) -> Floats:
    """Differences of independent versions, [N, cases]; those of `better`, [N, 1], gain."""
    ours = rng.random((better.size, cases), dtype=np.float32) < RATE
    theirs = rng.random((better.size, cases), dtype=np.float32) < RATE + gain * better
    return theirs.astype(np.float64) - ours


def measure_world(world: World, rng: np.random.Generator, lifetimes: int) -> float:
    """Share of lifetimes with a false promotion; in portions, so that memory stays bounded."""
    wrong = [world(rng, min(1000, lifetimes - start)) for start in range(0, lifetimes, 1000)]
    return float(np.concatenate(wrong).mean())


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tests", type=int, default=2_000)
    parser.add_argument("--lifetimes", type=int, default=10_000)
    parser.add_argument("--only", choices=("labels", "worlds"))
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    start = time.monotonic()

    def step(name: str) -> None:
        print(f"{time.monotonic() - start:6.0f} s  {name}", file=sys.stderr, flush=True)

    goals: list[tuple[str, float, float]] = []
    if chosen.only != "worlds":
        rows = {}
        for gain in GAINS:
            step(f"labels to a verdict at gain {gain:g}")
            rows[gain] = labels_to_verdict(np.random.default_rng(chosen.seed), chosen.tests, gain)
        goals += show_labels(rows)
    if chosen.only != "labels":
        rates = []
        for name, world in worlds():
            step(f"false promotions: {name}")
            rng = np.random.default_rng(chosen.seed)
            rates.append((name, measure_world(world, rng, chosen.lifetimes)))
        goals += show_worlds(rates, chosen.lifetimes)
        step("truly better ones promoted in a lifetime")
        goals += show_found(np.random.default_rng(chosen.seed), max(chosen.lifetimes // 30, 10))
    print()
    for name, value, most in goals:
        print(f"{'ok' if value <= most else 'MISSED':6}  {value:7.4f} ≤ {most:.4f}  {name}")
    return 0 if all(value <= most for _, value, most in goals) else 1


if __name__ == "__main__":
    sys.exit(main())
