"""Does the interval hold the true gain? The gate's confidence sequence beside the normal PPI++ interval."""

from collections.abc import Sequence

import numpy as np

from ratchet.evaluation.data.arrays import Floats
from ratchet.evaluation.gate.betting import (
    Wealth,
    bet,
    confidence_sequence,
)
from ratchet.evaluation.gate.characteristics.simulation import (
    OnMeasurement,
    Population,
    ResultRow,
    bernoulli,
    binary,
)


class Coverage(ResultRow):
    """Share of 95 % intervals that hold the true mean at n labels."""

    target: str
    n: int
    gate: float
    gate_width: float
    normal: float
    normal_width: float
    tests: int


def coverage(
    *, tests: int, rng: np.random.Generator, step: OnMeasurement, sizes: Sequence[int] = (20, 50, 100, 200)
) -> tuple[Coverage, ...]:
    """The gate's interval against the normal PPI++ interval, judge ρ = 0.6, ten judged pairs per label."""
    targets = {
        "success rate 0.9": Population("rate", 0.9, lambda rng, s: (bernoulli(0.9, s, rng), np.zeros(s))),
        "gain 0 at p = 0.9": binary(0.9, 0.0),
        "gain 0.05 at p = 0.9": binary(0.9, 0.05),
    }
    return tuple(
        _covers(name, population, n, tests * 4, rng, step)
        for name, population in targets.items()
        for n in sizes
    )


def _covers(
    name: str, population: Population, n: int, tests: int, rng: np.random.Generator, step: OnMeasurement
) -> Coverage:
    step(f"coverage: {name}, n = {n}")
    d, f, f_pool = _labels_and_judgements(population, n, tests, rng)
    low, high = confidence_sequence(bet(Wealth.start((tests,)), d, f - f_pool.mean(axis=2)).wealth)
    center, half = ppi_plus_plus(d, f, f_pool.reshape(tests, -1))
    truth = population.gain
    return Coverage(
        target=name,
        n=n,
        gate=float(((low <= truth) & (truth <= high)).mean()),
        gate_width=float((high - low).mean()),
        normal=float((np.abs(center - truth) <= half).mean()),
        normal_width=float(2 * half.mean()),
        tests=tests,
    )


def _labels_and_judgements(
    population: Population, n: int, tests: int, rng: np.random.Generator
) -> tuple[Floats, Floats, Floats]:
    """D [N, n], F on the same pairs [N, n], and F on ten unlabelled pairs per label [N, n, 10]."""
    d, copy = population.draw(rng, (tests, n))[0], population.draw(rng, (tests, n))[0]
    f = np.where(rng.random((tests, n)) < 0.6, d, copy)
    return d, f, population.draw(rng, (tests, n, 10))[0]


def ppi_plus_plus(d: Floats, f: Floats, f_pool: Floats) -> tuple[Floats, Floats]:
    """Center and half width of the normal 95 % PPI++ interval (Angelopoulos et al. 2023), [N] each."""
    n, pool = d.shape[1], f_pool.shape[1]
    everything = np.concatenate([f, f_pool], axis=1)
    spread = everything.var(axis=1, ddof=1)
    cross = ((d - d.mean(axis=1, keepdims=True)) * (f - f.mean(axis=1, keepdims=True))).sum(axis=1) / (n - 1)
    weight = cross / np.maximum((1 + n / pool) * spread, 1e-12)
    center = d.mean(axis=1) - weight * (f.mean(axis=1) - f_pool.mean(axis=1))
    residual = (d - weight[:, None] * f).var(axis=1, ddof=1)
    variance = residual / n + weight**2 * f_pool.var(axis=1, ddof=1) / pool
    return center, 1.96 * np.sqrt(variance)
