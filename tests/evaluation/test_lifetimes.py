"""Whole lifetimes at once, held to the gate and the ledger that they stand for."""

from datetime import UTC, datetime

import numpy as np
import pytest

from ratchet.evaluation.gate.betting import NO_PRIOR, TrustPrior
from ratchet.evaluation.gate.characteristics.lifetimes import (
    Bets,
    Plans,
    evidence,
    false_lifetimes,
    given_back,
)
from ratchet.evaluation.gate.evidence import Bet
from ratchet.evaluation.gate.gate import Gate, GatePolicy
from ratchet.evaluation.gate.horizon import plan_horizon
from ratchet.evaluation.gate.ledger import Ledger, close_test, open_test
from ratchet.evaluation.gate.provenance import Registration

NOW = datetime(2026, 11, 1, tzinfo=UTC)
SHARES = np.array([0.03, 0.0051, 0.0123, 0.03, 0.00071, 0.02])


def plain(rng):
    return Bets(rng.choice([-1.0, 0.0, 1.0, 1.0], (6, 150)))


def plain_and_long(rng):
    return Bets(np.pad(rng.choice([-1.0, 0.0, 1.0], (6, 60)), ((0, 0), (0, 460))))


def sessions(rng):
    return Bets(rng.choice([-1.0, 0.0, 1.0, 0.5], (6, 60)), alone=False)


def graded_late(rng):
    a = rng.choice([-1.0, 1.0, 1.0], (6, 80))
    a[:, 40:] = rng.uniform(-1, 1, (6, 40))
    return Bets(a)


def judged(rng):
    a, c = rng.choice([-1.0, 0.0, 1.0], (6, 60)), rng.uniform(-1, 1, (6, 60))
    c[:3, :20] = 0.0
    return Bets(a, c, prior=TrustPrior(50.0, 20.0, 25.0))


@pytest.mark.parametrize(
    "draw", [plain, plain_and_long, sessions, graded_late, judged], ids=lambda d: d.__name__
)
def test_evidence_is_that_of_the_gate_after_every_bet(draw):
    bets = draw(np.random.default_rng(1))
    e = evidence(bets, SHARES, Plans.of(SHARES, 0.1))
    for row, share in enumerate(SHARES.tolist()):
        trust = Registration(champion="a", challenger="b", trust=bets.prior)
        gate = Gate(GatePolicy(alpha=share, horizon=plan_horizon(share, 0.1)), trust)
        assert gate.policy.horizon is not None
        for t in range(min(bets.a.shape[1], 150)):
            c = 0.0 if bets.c is None else float(bets.c[row, t])
            gate._bet([Bet(float(bets.a[row, t]), c, (), alone=bets.alone)])
            assert e[row, t] == pytest.approx(gate.snapshot().e_value, rel=1e-9)


def test_without_a_horizon_it_is_the_mixture():
    bets = plain(np.random.default_rng(2))
    e = evidence(bets, SHARES, Plans.of(SHARES, 0.0))
    gate = Gate(GatePolicy(alpha=0.03))
    gate._bet([Bet(float(a), 0.0, ()) for a in bets.a[0]])
    assert e[0, -1] == pytest.approx(gate.snapshot().e_value)
    assert bets.prior is NO_PRIOR


def test_reserves_are_those_of_the_ledger():
    rng = np.random.default_rng(3)
    e_values = rng.exponential(0.6, 30)
    ledger, reserve = Ledger(), np.full(1, 0.05)
    for k, e_value in enumerate(e_values):
        ledger = open_test(ledger, candidate=str(k), now=NOW)
        share = np.array([ledger.entries[-1].alpha_k])
        wins = k % 7 == 0
        ledger = close_test(
            ledger,
            candidate=str(k),
            decision="promote" if wins else "continue",
            e_value=1e9 if wins else float(e_value),
            now=NOW,
        )
        reserve = given_back(reserve - share, share, np.array([wins]), np.array([e_value]))
        assert reserve[0] == pytest.approx(ledger.reserve)


def test_lifetimes_of_equal_candidates_seldom_promote_and_those_of_better_ones_nearly_always():
    rng = np.random.default_rng(4)

    def draw(win, rng, lifetimes, at_once):
        return [Bets(np.where(rng.random((lifetimes, 100)) < win, 1.0, -1.0)) for _ in range(at_once)]

    for win, low, high in ((0.5, 0.0, 0.05), (0.7, 0.99, 1.0)):
        wrong = false_lifetimes(lambda *how, w=win: draw(w, *how), lifetimes=200, rng=rng, candidates=3)
        assert low <= wrong.mean() <= high
