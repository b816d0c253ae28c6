"""What the gate promises, measured: false promotions, labels to a verdict, judges, coverage, other rules.

Every number comes with the size of the simulation that gave it; `measure` runs all of them.
"""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from ratchet.evaluation.gate.characteristics import promotion_rules as rules
from ratchet.evaluation.gate.characteristics.coverage import Coverage, coverage
from ratchet.evaluation.gate.characteristics.rule_comparison import (
    BetComparison,
    RuleRow,
    compare_bets,
    compare_rules,
)
from ratchet.evaluation.gate.characteristics.simulation import (
    CANDIDATES,
    GAINS,
    Judge,
    OnMeasurement,
    Population,
    ResultRow,
    actively_labelled,
    better_populations,
    binary,
    continuous,
    first_crossings,
    labels_to_promotion,
    promoted_in_lifetimes,
    rare_disaster,
    with_flattering_judge,
    with_judge,
)

_CHUNK: Final = 10_000
"""Tests drawn at a time: bounds memory."""


class FalsePromotion(ResultRow):
    """Share of lifetimes with at least one promotion although no candidate is better."""

    population: str
    lifetimes: int
    candidates: int
    bets: int
    """Bets per candidate, with a look after each."""
    rate: float
    standard_error: float


class LabelsNeeded(ResultRow):
    """Labels to a promotion at one true gain, beside a fixed-n test with 80 % power at the same alpha."""

    population: str
    gain: float
    fixed_n: int
    median: float
    ninetieth: float
    power_at_fixed_n: float
    tests: int

    @property
    def ratio(self) -> float:
        """Median over fixed n."""
        return self.median / self.fixed_n


class JudgeSaving(ResultRow):
    """Labels with a judge relative to labels without, over populations."""

    correlation: float
    ratios: dict[str, float]

    @property
    def geometric_mean(self) -> float:
        """Over all populations."""
        return math.exp(float(np.mean(np.log(list(self.ratios.values())))))


class OperatingCharacteristics(ResultRow):
    """All tables."""

    false_promotions: tuple[FalsePromotion, ...]
    labels_needed: tuple[LabelsNeeded, ...]
    judges: tuple[JudgeSaving, ...]
    coverage: tuple[Coverage, ...]
    bets: tuple[BetComparison, ...]
    rules: tuple[RuleRow, ...]


def measure(
    *, lifetimes: int = 1000, tests: int = 1000, seed: int = 0, step: OnMeasurement = print
) -> OperatingCharacteristics:
    """Run everything; 10,000 lifetimes and 2,000 tests take about twenty minutes on one core."""
    rng = np.random.default_rng(seed)
    return OperatingCharacteristics(
        false_promotions=tuple(
            false_promotions(population, lifetimes=lifetimes, rng=rng, step=step)
            for population in null_populations()
        ),
        labels_needed=tuple(
            labels_needed(population, tests=tests, rng=rng, step=step)
            for gain in GAINS
            for population in better_populations(gain)
        ),
        judges=judge_savings(tests=tests, rng=rng, step=step),
        coverage=coverage(tests=tests, rng=rng, step=step),
        bets=compare_bets(tests=tests, rng=rng, step=step),
        rules=compare_rules(tests=tests, rng=rng, step=step),
    )


def null_populations() -> tuple[Population, ...]:
    """Gain exactly 0, as different as production is."""
    coin, strong, tied = binary(0.5, 0.0), binary(0.9, 0.0), binary(0.7, 0.0, shared=0.8)
    return (
        coin,
        strong,
        tied,
        continuous(0.0),
        rare_disaster(),
        with_judge(tied, Judge(0.6, per_label=5)),
        with_flattering_judge(coin, per_label=5),
        actively_labelled(tied, Judge(0.6)),
    )


def false_promotions(
    population: Population,
    *,
    lifetimes: int,
    rng: np.random.Generator,
    step: OnMeasurement,
    bets: int = 200,
    alpha: float = 0.05,
) -> FalsePromotion:
    """Lifetimes of 50 candidates that are exactly as good, each tested at its share of the ledger."""
    step(f"false promotions: {population.name}")
    batch = max(_CHUNK // CANDIDATES, 1)
    wrong = 0
    for start in range(0, lifetimes, batch):
        a, c = population.draw(rng, (min(batch, lifetimes - start) * CANDIDATES, bets))
        tests = first_crossings(a, c, alpha, bounds=population.bounds)
        wrong += int(promoted_in_lifetimes(tests, alpha=alpha).any(axis=1).sum())
    rate = wrong / lifetimes
    return FalsePromotion(
        population=population.name,
        lifetimes=lifetimes,
        candidates=CANDIDATES,
        bets=bets,
        rate=rate,
        standard_error=math.sqrt(max(rate * (1 - rate), 1 / lifetimes) / lifetimes),
    )


def labels_needed(
    population: Population, *, tests: int, rng: np.random.Generator, step: OnMeasurement
) -> LabelsNeeded:
    """Median labels of a single test at alpha 0.05, looking after every label."""
    step(f"labels needed: {population.name}, gain {population.gain:g}")
    sample = population.draw(rng, (2000, 200))[0]
    n = rules.fixed_n(population.gain, float(sample.var()))
    d, c = population.draw(rng, (tests, 4 * n + 50))
    at = labels_to_promotion(first_crossings(d, c, 0.05).at)
    return LabelsNeeded(
        population=population.name,
        gain=population.gain,
        fixed_n=n,
        median=float(np.median(at)),
        ninetieth=float(np.quantile(at, 0.9)),
        power_at_fixed_n=float((at <= n).mean()),
        tests=tests,
    )


def judge_savings(
    *,
    tests: int,
    rng: np.random.Generator,
    step: OnMeasurement,
    correlations: Sequence[float] = (0.9, 0.6, 0.3, 0.0),
) -> tuple[JudgeSaving, ...]:
    """Ratio of median labels with and without a judge, ten judged pairs per label, on the same labels."""
    ratios: dict[float, dict[str, float]] = {correlation: {} for correlation in correlations}
    for population in (population for gain in GAINS for population in better_populations(gain)):
        n = rules.fixed_n(population.gain, float(population.draw(rng, (2000, 200))[0].var()))
        for correlation in correlations:
            step(f"judge ρ = {correlation:g}: {population.name}, gain {population.gain:g}")
            d, c = with_judge(population, Judge(correlation)).draw(rng, (tests, 3 * n + 50))
            with_c, without = first_crossings(d, c, 0.05).at, first_crossings(d, np.zeros_like(c), 0.05).at
            ratio = float(np.median(labels_to_promotion(with_c)) / np.median(labels_to_promotion(without)))
            ratios[correlation][f"{population.name}, gain {population.gain:g}"] = ratio
    return tuple(JudgeSaving(correlation=key, ratios=value) for key, value in ratios.items())
