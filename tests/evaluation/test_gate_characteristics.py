import math
from datetime import UTC, datetime

import numpy as np
import pytest

from ratchet.evaluation.gate.characteristics import promotion_rules as rules
from ratchet.evaluation.gate.characteristics.coverage import coverage, ppi_plus_plus
from ratchet.evaluation.gate.characteristics.operating import false_promotions, labels_needed
from ratchet.evaluation.gate.characteristics.rule_comparison import compare_rules
from ratchet.evaluation.gate.characteristics.simulation import (
    bernoulli,
    binary,
    continuous,
    first_crossings,
    promoted_in_lifetimes,
    rare_disaster,
)
from ratchet.evaluation.gate.ledger import Ledger, close_test, open_test

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def quiet(name: str) -> None:
    """No progress."""


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def test_a_lifetime_of_equal_candidates_seldom_sees_a_false_promotion(rng):
    row = false_promotions(binary(0.5, 0.0), lifetimes=200, rng=rng, step=quiet, bets=100)
    assert (row.lifetimes, row.candidates) == (200, 50)
    assert row.rate <= 0.05


def test_labels_to_a_verdict_stay_within_1_3_times_a_fixed_n_test(rng):
    row = labels_needed(binary(0.7, 0.2), tests=600, rng=rng, step=quiet)
    assert row.fixed_n == pytest.approx(47, abs=3)
    assert row.ratio <= 1.3


def test_interval_covers_where_the_normal_one_does_not(rng):
    rows = coverage(tests=150, rng=rng, step=quiet, sizes=(20,))
    rate = next(row for row in rows if row.target == "success rate 0.9")
    assert rate.normal == pytest.approx(0.87, abs=0.05)
    assert all(row.gate >= 0.95 for row in rows)


@pytest.mark.parametrize(
    "population", [binary(0.9, 0.05), continuous(0.1), rare_disaster()], ids=lambda p: p.name
)
def test_interval_covers_at_every_n_at_once(rng, population):
    a, c = population.draw(rng, (1000, 200))
    above = first_crossings(a, c, 0.025, null=population.gain).at > 0
    below = first_crossings(-a, -c, 0.025, null=-population.gain).at > 0
    assert (above | below).mean() <= 0.05


def test_ppi_interval_shrinks_with_a_good_judge(rng):
    d = rng.normal(size=(50, 200))
    f = 0.9 * d + 0.4 * rng.normal(size=d.shape)
    pool = rng.normal(size=(50, 2000))
    _, with_judge = ppi_plus_plus(d, f, pool)
    _, useless = ppi_plus_plus(d, rng.normal(size=d.shape), pool)
    assert with_judge.mean() < 0.7 * useless.mean()


def test_simulated_lifetimes_promote_what_the_ledger_promotes(rng):
    d = np.sign(rng.random((60, 80)) - np.where(np.arange(60) % 3 == 0, 0.25, 0.5)[:, None])
    tests = first_crossings(d, np.zeros_like(d), 0.05)
    expected = []
    for start in range(0, 60, 20):
        ledger = Ledger()
        for place in range(start, start + 20):
            ledger = open_test(ledger, candidate=str(place), now=NOW)
            peak, last = math.exp(tests.peak[place]), math.exp(tests.log_e[place])
            wins = peak >= ledger.entries[-1].threshold
            ledger = close_test(
                ledger,
                candidate=str(place),
                decision="promote" if wins else "continue",
                e_value=peak if wins else last,
                now=NOW,
            )
            expected.append(wins)
    promoted = promoted_in_lifetimes(tests, candidates=20)
    assert promoted.ravel().tolist() == expected
    assert 5 < promoted.sum() < 30


def test_published_failures_of_other_rules_are_reproduced(rng):
    champion = bernoulli(0.7, (2000, 400), rng)
    equal = bernoulli(0.7, (2000, 400), rng)
    ten = bernoulli(0.7, (2000, 10, 50), rng)
    assert rules.best_of_k(champion, ten).mean() == pytest.approx(0.88, abs=0.05)
    peeking = rules.z_test(champion, equal, looks=np.arange(20, 401, 20)) > 0
    assert peeking.mean() == pytest.approx(0.23, abs=0.04)
    assert (rules.mcnemar(champion, equal) > 0).mean() <= 0.05 / 2 + 0.01
    assert 0.005 < (rules.likelihood_ratio(champion, equal) > 0).mean() < 0.06


def test_mcnemar_promotes_mbpp_rust_where_the_gate_continues():
    d = np.array([[1.0] * 31 + [-1.0] * 15 + [0.0] * 308])
    assert rules.mcnemar(np.zeros_like(d), d, cases=354)[0] == 354


def test_other_bets_are_valid_too_and_the_mixture_is_not_slower(rng):
    null = bernoulli(0.5, (600, 200), rng), bernoulli(0.5, (600, 200), rng)
    for bets in (rules.agrapa, rules.online_newton, rules.gate_rule):
        assert (bets(*null) > 0).mean() <= 0.05 + 0.02
    better = bernoulli(0.5, (600, 800), rng), bernoulli(0.6, (600, 800), rng)
    medians = [
        np.median(np.where(at > 0, at, np.inf)) for at in (rules.gate_rule(*better), rules.agrapa(*better))
    ]
    assert medians[0] <= medians[1]


def test_every_rule_is_measured_on_the_same_terms(rng):
    rows = {row.rule: row for row in compare_rules(tests=100, rng=rng, step=quiet)}
    assert rows["higher mean wins (50 cases)"].false_lifetime == 1.0
    assert rows["gate with ledger"].false_lifetime <= 0.1
    assert rows["gate with ledger"].power >= 0.95
