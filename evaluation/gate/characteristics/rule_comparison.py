"""The gate beside what others do, and its bets beside two other ways to bet, on the same simulated cases."""

import numpy as np
from numpy.typing import NDArray

from ratchet.evaluation.data.arrays import Floats
from ratchet.evaluation.gate.characteristics import promotion_rules as rules
from ratchet.evaluation.gate.characteristics.simulation import (
    CANDIDATES,
    GAINS,
    OnMeasurement,
    ResultRow,
    bernoulli,
    better_populations,
    continuous,
    first_crossings,
    labels_to_promotion,
    promoted_in_lifetimes,
)
from ratchet.evaluation.gate.ledger import Ledger


class BetComparison(ResultRow):
    """Median labels to a promotion by how bets are chosen."""

    population: str
    gain: float
    mixture: float
    agrapa: float
    online_newton: float


class RuleRow(ResultRow):
    """One promotion rule: how often it errs, and what it costs to be right."""

    rule: str
    false_one: float
    """One candidate with gain 0, 400 cases."""
    false_lifetime: float
    """At least one of 50 candidates with gain 0."""
    power: float
    """One candidate with gain 0.1, 2,000 cases at most."""
    labels: float | None
    """Median over promotions at gain 0.1."""


def compare_bets(*, tests: int, rng: np.random.Generator, step: OnMeasurement) -> tuple[BetComparison, ...]:
    """Mixture, aGRAPA and online Newton step on the same labels."""
    rows = []
    for population in (p for gain in GAINS for p in (*better_populations(gain), continuous(gain))):
        step(f"bets: {population.name}, gain {population.gain:g}")
        n = rules.fixed_n(population.gain, float(population.draw(rng, (2000, 200))[0].var()))
        d = population.draw(rng, (tests, 6 * n + 300))[0]
        zero = np.zeros_like(d)
        rows.append(
            BetComparison(
                population=population.name,
                gain=population.gain,
                mixture=float(np.median(labels_to_promotion(rules.gate_rule(zero, d)))),
                agrapa=float(np.median(labels_to_promotion(rules.agrapa(zero, d)))),
                online_newton=float(np.median(labels_to_promotion(rules.online_newton(zero, d)))),
            )
        )
    return tuple(rows)


def compare_rules(
    *, tests: int, rng: np.random.Generator, step: OnMeasurement, p: float = 0.7
) -> tuple[RuleRow, ...]:
    """The gate beside what others do, binary outcomes, champion right with probability p."""
    looks = np.arange(20, 401, 20)
    n = rules.fixed_n(0.1, p * (1 - p) + (p + 0.1) * (0.9 - p))
    compared: dict[str, rules.Rule] = {
        "higher mean wins (50 cases)": rules.higher_mean,
        "z-test, a look every 20 labels": lambda a, b: rules.z_test(a, b, looks=looks),
        "McNemar, once, 400 cases": rules.mcnemar,
        "likelihood ratio (TensorZero)": rules.likelihood_ratio,
        f"fixed-n z-test ({n} cases)": lambda a, b: rules.z_test(a, b, looks=np.array([n])),
        "gate without ledger (0.05 each)": rules.gate_rule,
    }
    rows = [_rule_row(name, rule, p, tests, rng, step) for name, rule in compared.items()]
    return (*rows, _gate_with_ledger(p, tests, rng, step), _best_of_ten(p, tests, rng, step))


def _rule_row(
    name: str, rule: rules.Rule, p: float, tests: int, rng: np.random.Generator, step: OnMeasurement
) -> RuleRow:
    step(f"rule: {name}")
    lifetimes = max(tests // 5, 20)
    wrong = np.concatenate([rule(*_scores(p, 0.0, CANDIDATES, 400, rng)) > 0 for _ in range(lifetimes)])
    at = rule(*_scores(p, 0.1, tests, 2000, rng))
    return RuleRow(
        rule=name,
        false_one=float(wrong.mean()),
        false_lifetime=float(wrong.reshape(lifetimes, CANDIDATES).any(axis=1).mean()),
        power=float((at > 0).mean()),
        labels=float(np.median(at[at > 0])) if (at > 0).any() else None,
    )


def _gate_with_ledger(p: float, tests: int, rng: np.random.Generator, step: OnMeasurement) -> RuleRow:
    """A lifetime shares a ledger; power and labels are those of its first test."""
    step("rule: gate with ledger")
    lifetimes = max(tests // 5, 20)
    wrong = np.concatenate(
        [_promoted_in_a_lifetime(*_scores(p, 0.0, CANDIDATES, 400, rng)) for _ in range(lifetimes)]
    )
    at = rules.gate_rule(*_scores(p, 0.1, tests, 2000, rng), alpha=Ledger().next_alpha)
    return RuleRow(
        rule="gate with ledger",
        false_one=float(wrong[:, 0].mean()),
        false_lifetime=float(wrong.any(axis=1).mean()),
        power=float((at > 0).mean()),
        labels=float(np.median(at[at > 0])),
    )


def _promoted_in_a_lifetime(champion: Floats, challenger: Floats) -> NDArray[np.bool_]:
    d = challenger - champion
    return promoted_in_lifetimes(first_crossings(d, np.zeros_like(d), 0.05))


def _best_of_ten(p: float, tests: int, rng: np.random.Generator, step: OnMeasurement) -> RuleRow:
    """Ten candidates on the champion's 50 cases, best promoted; at gain 0.1 one of the ten is better."""
    step("rule: best of 10")
    champion = bernoulli(p, (tests, 50), rng)
    equal = bernoulli(p, (tests, 10, 50), rng)
    false_one = float(rules.best_of_k(champion, equal).mean())
    better = bernoulli(p + 0.1, (tests, 50), rng).mean(axis=1)
    chosen = better >= np.maximum(equal[:, 1:].mean(axis=2).max(axis=1), champion.mean(axis=1))
    return RuleRow(
        rule="best of 10 (50 cases)",
        false_one=false_one,
        false_lifetime=1 - (1 - false_one) ** (CANDIDATES // 10),
        power=float(chosen.mean()),
        labels=50.0,
    )


def _scores(p: float, gain: float, tests: int, cases: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    return bernoulli(p, (tests, cases), rng), bernoulli(p + gain, (tests, cases), rng)
