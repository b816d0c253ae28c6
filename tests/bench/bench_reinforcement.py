"""Sixty rounds of learning from itself, with and without what people said, beside what theory says.

python tests/bench/bench_reinforcement.py [--rounds 60] [--runs 200] [--seed 1] [--out figure.png]
Exits with 1 where a simulation leaves its theory, or where people's default share does not stay below the bound.
Under a minute on one core.

Error: linear regression as in Gerstgrasser et al., "Is model collapse inevitable?" (2024, arXiv 2404.01413): d features,
T answers a round by the model before, noise σ². Where each round's data replace the last the error is n · σ²d/(T − d − 1)
after n fits; where all are kept it is σ²d/(T − d − 1) · Σ 1/i² ≤ σ²d/(T − d − 1) · π²/6, whatever n (their theorem on
accumulated data). Ours: h labels of people stay, m own answers of weight w beside them come anew each round from the model
before, so many that people keep the share s = h / (h + m·w) (`ratchet.evaluation.data.curate.own_room`). The mean of the
fits moves by (1 − s) of the last round's deviation, which with h ≫ d sums to 1 + w (1 − s)/(2 − s) times the error of
people's labels alone: 1.125 by default, below the bound for every s > 0.

Variety: answers to one request, of which people gave h. The expected Gini–Simpson index of what the model answers is
H − V_n with V_n = (1 − s)² (V_{n−1} (1 − 1/m) + H/m): with s = 0 it dies out as (1 − 1/m)ⁿ (Wright–Fisher drift).
"""

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ratchet.evaluation.data.curate import CurateSettings, own_room
from ratchet.infra.pictures.reinforcement import Curve, draw_reinforcement

BOUND = math.pi**2 / 6
FEATURES, HUMAN, ANSWERS = 10, 400, 40
"""Features, people's labels, and different answers to one request."""
SHARES = {
    "people keep 2/3 by weight (default)": CurateSettings(),
    "people keep 1/5": CurateSettings(human_share=0.2, own_per_human=10, max_cases=100_000),
}
NONE, ALL = "no human data: each round replaces the last", "all data kept, people's first"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    random = np.random.default_rng(chosen.seed)
    error = errors(random, chosen.rounds, chosen.runs)
    variety = varieties(random, chosen.rounds, chosen.runs)
    table("error, people's data alone = 1", error, chosen.rounds)
    table("variety of answers that is left", variety, chosen.rounds)
    if chosen.out:
        draw_reinforcement(error, variety, BOUND, chosen.out)
    missed = [
        f"{name}: simulated {curve.simulated[-1]:.3f}, theory {curve.theory[-1]:.3f}"
        for curves in (error, variety)
        for name, curve in curves.items()
        if abs(curve.simulated[-1] - curve.theory[-1])
        > 0.05 + 4 * curve.theory[-1] / math.sqrt(chosen.runs * 4)
    ]
    default = next(iter(SHARES))
    if max(error[default].simulated[1:]) >= BOUND:
        missed.append(f"{default}: {max(error[default].simulated):.3f} is not below the bound {BOUND:.3f}")
    print("\n".join(missed) or f"all as theory says; the default stays below the bound π²/6 = {BOUND:.3f}")
    return int(bool(missed))


def errors(random: np.random.Generator, rounds: int, runs: int) -> dict[str, Curve]:
    """Test error of each way of learning, round by round, mean over runs."""
    alone = FEATURES / (HUMAN - FEATURES - 1)
    ways: dict[str, tuple[Callable[[], np.ndarray], list[float]]] = {
        NONE: (lambda: replaced(random, rounds), [float(n + 1) for n in range(rounds)]),
        ALL: (lambda: accumulated(random, rounds), np.cumsum(1.0 / np.arange(1, rounds + 1) ** 2).tolist()),
    }
    for name, rules in SHARES.items():
        share, w = share_of(rules), rules.own_weight
        decay = np.array([sum((1 - share) ** (2 * k) for k in range(1, n + 1)) for n in range(rounds)])
        ratio = HUMAN / own_room(HUMAN, rules)
        ways[name] = (lambda rules=rules: kept(random, rounds, rules), (1 + decay * ratio).tolist())
        assert abs((1 - share) ** 2 / (share * (2 - share)) * ratio - w * (1 - share) / (2 - share)) < 1e-9
    return {
        name: Curve((np.mean([way() for _ in range(runs)], axis=0) / alone).tolist(), theory)
        for name, (way, theory) in ways.items()
    }


def share_of(rules: CurateSettings) -> float:
    """People's share by weight with as many own answers as the settings leave room for."""
    return HUMAN / (HUMAN + own_room(HUMAN, rules) * rules.own_weight)


def sample(random: np.random.Generator, n: int, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x = random.standard_normal((n, FEATURES))
    return x, x @ truth + random.standard_normal(n)


def replaced(random: np.random.Generator, rounds: int) -> np.ndarray:
    """The truth is 0, so the squared norm of the fit is its test error beyond the noise, [rounds]."""
    model, found = np.zeros(FEATURES), []
    for _ in range(rounds):
        x, y = sample(random, HUMAN, model)
        model = np.linalg.lstsq(x, y, rcond=None)[0]
        found.append(model @ model)
    return np.array(found)


def accumulated(random: np.random.Generator, rounds: int) -> np.ndarray:
    """All that was ever said is kept: its moments are."""
    model, found = np.zeros(FEATURES), []
    gram, moment = np.zeros((FEATURES, FEATURES)), np.zeros(FEATURES)
    for _ in range(rounds):
        x, y = sample(random, HUMAN, model)
        gram, moment = gram + x.T @ x, moment + x.T @ y
        model = np.linalg.solve(gram, moment)
        found.append(model @ model)
    return np.array(found)


def kept(random: np.random.Generator, rounds: int, rules: CurateSettings) -> np.ndarray:
    """People's labels stay whole; own answers come anew each round, as many and as heavy as the settings allow."""
    x, y = sample(random, HUMAN, np.zeros(FEATURES))
    gram, moment, room, w = x.T @ x, x.T @ y, own_room(HUMAN, rules), rules.own_weight
    model = np.linalg.solve(gram, moment)
    found = [model @ model]
    for _ in range(rounds - 1):
        own_x, own_y = sample(random, room, model)
        model = np.linalg.solve(gram + w * own_x.T @ own_x, moment + w * own_x.T @ own_y)
        found.append(model @ model)
    return np.array(found)


def varieties(random: np.random.Generator, rounds: int, runs: int) -> dict[str, Curve]:
    """Gini–Simpson index of the answers, as a share of the first round's, mean over runs."""
    usual = 1.0 / np.arange(1, ANSWERS + 1)
    first = random.multinomial(ANSWERS, usual / usual.sum()) / ANSWERS  # few labels: tails are thin
    whole = 1 - first @ first
    found = {}
    ways = {NONE: (0.0, ANSWERS)} | {
        name: (share_of(rules), own_room(ANSWERS, rules)) for name, rules in SHARES.items()
    }
    for name, (share, room) in ways.items():
        simulated = np.mean([spread(random, first, share, room, rounds) for _ in range(runs)], axis=0)
        v, theory = 0.0, [1.0]
        for _ in range(rounds - 1):
            v = (1 - share) ** 2 * (v * (1 - 1 / room) + whole / room)
            theory.append(1 - v / whole)
        found[name] = Curve((simulated / whole).tolist(), theory)
    return found


def spread(
    random: np.random.Generator, first: np.ndarray, share: float, room: int, rounds: int
) -> np.ndarray:
    model, found = first, [1 - first @ first]
    for _ in range(rounds - 1):
        own = random.multinomial(room, model / model.sum()) / room
        model = share * first + (1 - share) * own
        found.append(1 - model @ model)
    return np.array(found)


def table(title: str, curves: dict[str, Curve], rounds: int) -> None:
    shown = [n for n in (1, 2, 10, 30, 60) if n <= rounds]
    print(f"\n{title}\n{'':45}" + "".join(f"{f'round {n}':>16}" for n in shown))
    for name, curve in curves.items():
        told = (f"{curve.simulated[n - 1]:8.3f} ({curve.theory[n - 1]:.3f})" for n in shown)
        print(f"{name:45}" + "".join(f"{cell:>16}" for cell in told))
    print(f"{'(in brackets: theory)':45}")


if __name__ == "__main__":
    raise SystemExit(main())
