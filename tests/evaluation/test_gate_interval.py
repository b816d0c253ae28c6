"""The interval beside a verdict: it only ever narrows, it covers whenever one stops, and it does not contradict."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.evaluation.data.intervals import mean_interval as fixed_interval
from ratchet.evaluation.gate.anytime import anytime_interval
from ratchet.evaluation.gate.betting import CELL, EVERYTHING, Wealth, bet, confidence_sequence, narrowed
from ratchet.evaluation.gate.gate import Gate, GatePolicy, Pair, decide


def pairs_of(d, start=0):
    return [
        Pair(case_id=f"c{i}", champion=(1 - x) / 2, challenger=(1 + x) / 2) for i, x in enumerate(d, start)
    ]


def intersected(d, confidence=0.95):
    """The definition: the largest lower and the smallest upper end after each bet."""
    ends = []
    for n in range(1, len(d) + 1):
        one = np.array(d[:n], dtype=float)
        ends.append(confidence_sequence(bet(Wealth.start(), one, np.zeros(n)).wealth, confidence=confidence))
    return max(float(low) for low, _ in ends), min(float(high) for _, high in ends)


@given(st.lists(st.sampled_from([-1.0, -0.3, 0.0, 0.6, 1.0]), min_size=1, max_size=50))
@settings(max_examples=40, deadline=None)
def test_the_interval_is_the_intersection_over_every_bet(d):
    a = np.array(d)
    run = bet(Wealth.start(), a, np.zeros_like(a))
    assert narrowed(EVERYTHING, run.path) == pytest.approx(intersected(d), abs=2 * CELL)


def test_a_promotion_of_a_project_never_shows_an_interval_that_holds_no_gain():
    """Guaranteed from a share of the budget of (1 − confidence)/2 down; here with evidence that fades again."""
    policy = GatePolicy(alpha=0.025)
    for seed in range(60):
        rng = np.random.default_rng(seed)
        d = [*rng.choice([-1.0, 0.0, 1.0], p=[0.1, 0.5, 0.4], size=40), *[-1.0] * 4]
        verdict = decide(pairs_of(d), policy=policy)
        if verdict.decision == "promote":
            assert verdict.ci[0] >= -CELL, seed


def test_where_the_two_sided_interval_is_wider_than_the_test_the_sentence_says_why():
    verdict = decide(pairs_of([1.0] * 7), alpha=0.05)
    assert verdict.decision == "promote"
    assert verdict.ci[0] < 0
    assert "…+1.000 (two-sided, so wider than the one-sided test at α = 0.05)" in verdict.reason
    sure = decide(pairs_of([1.0] * 20), alpha=0.05)
    assert sure.ci[0] > 0
    assert "two-sided" not in sure.reason


def test_a_gain_that_moves_during_the_test_is_named_and_gives_no_empty_interval():
    verdict = decide(pairs_of([1.0] * 40 + [-1.0] * 80))
    assert (verdict.decision, verdict.steady) == ("promote", False)
    assert verdict.ci[0] <= verdict.ci[1]
    assert "the gain moved during the test" in verdict.reason
    assert decide(pairs_of([1.0] * 40)).steady


def test_the_intersection_is_part_of_the_state():
    d = np.random.default_rng(5).choice([-1.0, 0.0, 1.0], p=[0.2, 0.4, 0.4], size=120)
    whole = Gate()
    whole.extend(pairs_of(d))
    parts = Gate()
    for pair in pairs_of(d[:50]):
        parts.update(pair)
    parts = Gate.from_json(parts.to_json())
    parts.extend(pairs_of(d[50:], 50))
    assert parts.to_json() == whole.to_json()
    assert parts.verdict() == whole.verdict()


def test_the_accuracy_of_a_promoted_challenger_is_covered_where_a_fixed_interval_is_not():
    """Stopping at a promotion picks lucky samples; simulated with a gain of 0.1 at 0.8, stopped at the verdict."""
    rng, held, fixed, promoted = np.random.default_rng(3), 0, 0, 0
    for _ in range(300):
        ours, theirs = rng.random(150) < 0.7, rng.random(150) < 0.8
        d = theirs.astype(float) - ours
        crossed = np.flatnonzero(bet(Wealth.start(), d, np.zeros(150)).log_up >= np.log(20))
        if not crossed.size:
            continue
        scores = [float(x) for x in theirs[: crossed[0] + 1]]
        promoted += 1
        anytime, wilson = anytime_interval(scores), fixed_interval(scores)
        held += anytime.low <= 0.8 <= anytime.high
        fixed += wilson.low <= 0.8 <= wilson.high
    assert promoted > 80
    assert held / promoted >= 0.95 > fixed / promoted


def test_an_anytime_interval_takes_turns_of_one_session_as_one_case():
    together = anytime_interval([1.0] * 40, clusters=["s"] * 40)
    alone = anytime_interval([1.0] * 40, clusters=[None] * 40)
    assert together.low < 0.3 < 0.7 < alone.low
    assert (together.mean, together.n, alone.n) == (1.0, 40, 40)
    mixed = anytime_interval([1.0, 0.0, None, 1.0], clusters=["s", "s", "s", None])
    assert (mixed.mean, mixed.n, mixed.excluded) == (0.75, 3, 1)
