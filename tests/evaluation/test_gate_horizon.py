"""The horizon: one exact sign test at L decisive labels, paid with part of the share, watched after every label."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.evaluation.gate.gate import Gate, GatePolicy, Pair
from ratchet.evaluation.gate.horizon import Horizon, plan_horizon, win_rate
from ratchet.evaluation.gate.remaining import remaining_labels

SHARE = 0.03
HORIZON = plan_horizon(SHARE, 0.1)
POLICY = GatePolicy(alpha=SHARE, horizon=HORIZON, reject_alpha=1e-9)


def played(gains, start=0, **more):
    """Pairs with these differences."""
    return [
        Pair(case_id=f"c{start + i}", champion=(1 - d) / 2, challenger=(1 + d) / 2, **more)
        for i, d in enumerate(gains)
    ]


def gate_after(gains, policy=POLICY):
    gate = Gate(policy)
    gate.extend(played(gains))
    return gate


def e_value(gate):
    return gate.snapshot().e_value


def crossing_chance(policy, q, bets):
    """Exact probability that e ever reaches 1/a in `bets` decisive labels, each a win with probability q."""
    gate, reach, crossed = Gate(policy), np.ones(1), 0.0
    for n in range(1, bets + 1):
        reach = np.append((1 - q) * reach, 0.0) + np.append(0.0, q * reach)
        wins = np.arange(n + 1)
        there = gate.log_e_after(wins, n - wins) >= -math.log(policy.alpha)
        crossed, reach[there] = crossed + float(reach[there].sum()), 0.0
    return crossed


def test_a_horizon_is_planned_from_the_share_and_the_gain_worth_finding():
    assert win_rate(0.1) == pytest.approx(0.63, abs=0.002)
    planned = [plan_horizon(share, 0.1) for share in (0.05, 0.03, 0.003)]
    assert [(one.labels, one.wins) for one in planned] == [(94, 56), (112, 67), (192, 116)]
    assert plan_horizon(0.05, 0.2).labels < 25
    assert plan_horizon(0.05, 0.02) is None
    assert plan_horizon(0.05, 0.1, most=60) is None
    assert plan_horizon(0.05, 0.0) is None


@pytest.mark.parametrize("share", [0.05, 0.0304, 0.003, 1e-5])
def test_the_sign_test_is_exact_and_takes_at_most_four_fifths_of_the_share(share):
    horizon = plan_horizon(share, 0.1)
    exact = Fraction(
        sum(math.comb(horizon.labels, j) for j in range(horizon.wins, horizon.labels + 1)), 2**horizon.labels
    )
    assert horizon.size == pytest.approx(float(exact), rel=1e-12)
    assert (
        exact
        <= Fraction(share) * 4 / 5
        < exact + Fraction(math.comb(horizon.labels, horizon.wins - 1), 2**horizon.labels)
    )


def test_false_promotions_stay_below_the_share_and_a_gain_worth_finding_is_proven_in_four_of_five():
    assert crossing_chance(POLICY, 0.5, 1500) <= SHARE
    assert crossing_chance(POLICY, win_rate(0.1), HORIZON.labels) >= 0.8
    assert crossing_chance(GatePolicy(alpha=SHARE), win_rate(0.1), HORIZON.labels) < 0.75


def test_the_wins_that_were_wanted_promote_with_the_last_label_and_after_it_no_longer():
    lost = HORIZON.labels - HORIZON.wins
    in_turn = [-1] * (lost - 20) + [-1, 1] * 20 + [1] * (HORIZON.wins - 20)
    in_time = gate_after(in_turn)
    assert in_time.verdict().decision == "promote"
    assert in_time.verdict().e_value >= 1 / SHARE
    assert in_time.verdict().decided_at == HORIZON.labels
    late = gate_after([-1, *in_turn])
    assert late.verdict().decision == "continue"
    assert late.verdict().e_value < 1
    late.extend(played([1] * 200, start=1000))
    assert late.verdict().decision == "promote", "after a lost horizon it stays open on the mixture"
    assert late.verdict().decided_at > HORIZON.labels + 1


def test_ties_move_nothing_and_do_not_use_the_horizon_up():
    gains = [1, -1, 1, 1, -1, 1]
    tied = [x for d in gains for x in (0, d, 0, 0)]
    assert e_value(gate_after(tied)) == pytest.approx(e_value(gate_after(gains)), rel=1e-12)


@given(
    st.lists(st.sampled_from([-1.0, 0.0, 1.0, 1.0]), max_size=150),
    st.floats(-1, 1).filter(lambda x: x > 0.01),
    st.floats(0.01, 1),
)
@settings(max_examples=80, deadline=None)
def test_whatever_bounded_bet_comes_next_e_is_a_supermartingale(gains, up, down):
    """A two-point gain of mean 0: e is expected to stay, on the sign test's lattice and when it leaves it."""
    before = gate_after([*gains, 0.0])
    after = []
    for gain in (up, -down):
        gate = before.copy()
        gate.update(Pair(case_id="next", champion=(1 - gain) / 2, challenger=(1 + gain) / 2))
        after.append(e_value(gate))
    expected = (down * after[0] + up * after[1]) / (up + down)
    assert expected <= e_value(before) * (1 + 1e-9)


def test_a_graded_score_moves_the_sign_tests_money_to_a_mixture_and_loses_little():
    graded, plain = gate_after([0.5] * 40), gate_after([0.5] * 40, GatePolicy(alpha=SHARE))
    assert e_value(graded) == pytest.approx(e_value(plain), rel=0.25)
    gate = gate_after([1, -1, 0.25], POLICY)
    money = json.loads(gate.to_json())["sign_test"]
    gate.extend(played([1] * HORIZON.wins, start=50))
    assert json.loads(gate.to_json())["sign_test"] == money, "it never comes back to the sign test"
    assert money["wins"] == money["losses"] == 1


def leaves(gate):
    return json.loads(gate.to_json())["sign_test"]["money"]


def test_a_judged_bet_leaves_the_sign_test_by_the_label_alone():
    money = []
    for f in (0.1, 0.9):
        gate = gate_after([1.0])
        gate.update(Pair(case_id="u", champion_judge=0.5, challenger_judge=0.5))
        gate.update(Pair(case_id="l", champion=0, challenger=1, champion_judge=0.0, challenger_judge=f))
        money.append(leaves(gate))
    assert money[0] == money[1] > 0


def test_a_session_of_several_cases_leaves_it_whatever_they_come_to():
    for gains in ([1, 1], [1, -1], [1, 0]):
        gate = gate_after([1.0])
        gate.extend(played(gains, start=10, cluster="s"))
        gate.finish()
        assert leaves(gate) is not None
    gate.extend(played([1], start=20, cluster="t"))
    alone = gate_after([1.0])
    alone.extend(played([1], start=20, cluster="t"))
    alone.finish()
    assert leaves(alone) is None, "a session of one case is a case"


@given(
    st.lists(st.tuples(st.sampled_from([-1, 0, 1]), st.booleans(), st.booleans()), max_size=120),
    st.integers(0, 120),
)
@settings(max_examples=60, deadline=None)
def test_counting_the_unanswered_as_losses_never_makes_more_of_the_evidence(labels, off):
    """At every prefix, on the lattice and off it: what waits counts as a loss, and e is at most what it will be."""
    horizon = Horizon(labels=30, wins=22)
    policy = GatePolicy(alpha=0.03, horizon=horizon)
    truth, known = Gate(policy), Gate(policy)
    for n, (d, waits, pair) in enumerate(labels):
        cluster = "s" if n == off and pair else None
        for gate, gain in ((truth, d), (known, -1 if waits else d)):
            gate.extend(played([gain], start=2 * n, cluster=cluster))
            if cluster:
                gate.extend(played([d], start=2 * n + 1, cluster=cluster))
            gate.finish()
            if n == off and not pair:
                gate.extend(played([0.3], start=2 * n + 1))
        assert e_value(known) <= e_value(truth) * (1 + 1e-9)


bets = st.lists(st.sampled_from([-1.0, 0.0, 1.0, 1.0, 0.5]), min_size=1, max_size=200)


@given(bets, st.integers(0, 200), st.booleans())
@settings(max_examples=60, deadline=None)
def test_one_at_a_time_restored_copied_or_all_at_once_is_the_same(gains, cut, whole_numbers):
    horizon = Horizon(labels=20, wins=17)
    policy = GatePolicy(alpha=0.05, horizon=horizon)
    gains = [float(round(d)) for d in gains] if whole_numbers else gains
    pairs = played(gains)
    whole, parts = Gate(policy), Gate(policy)
    whole.extend(pairs)
    for pair in pairs[:cut]:
        parts.update(pair)
    state = parts.to_json()
    twin = parts.copy()
    twin.extend(pairs[cut:])
    assert parts.to_json() == state, "a copy shares nothing that moves"
    parts = Gate.from_json(state)
    parts.extend(pairs[cut:])
    assert parts.to_json() == whole.to_json() == twin.to_json()


def test_a_horizon_needs_a_plain_test_and_its_own_share():
    for wrong in ({"min_gain": 0.01}, {"min_gain": -0.02}, {"min_propensity": 0.1}):
        with pytest.raises(ValueError, match="min_gain = 0"):
            GatePolicy(alpha=SHARE, horizon=HORIZON, **wrong)
    with pytest.raises(ValueError, match="plan it from the test's own share"):
        GatePolicy(alpha=0.01, horizon=HORIZON)


def test_a_state_from_before_there_were_horizons_goes_on_as_it_began():
    gate = gate_after([1, 1, -1], GatePolicy(alpha=SHARE))
    old = json.loads(gate.to_json()) | {"schema": 2}
    del old["sign_test"], old["policy"]["horizon"]
    again = Gate.from_json(json.dumps(old))
    assert again.to_json() == gate.to_json()


def test_labels_to_a_verdict_are_told_about_right():
    rng = np.random.default_rng(3)
    halfway = [1.0, -1.0, 1.0] * 10
    told = remaining_labels(gate_after(halfway), 0.1)
    needed = []
    for _ in range(50):
        gate, came = gate_after(halfway), np.where(rng.random(150) < win_rate(0.1), 1.0, -1.0)
        gate.extend(played(came, start=1000))
        decided = gate.verdict().decided_at
        needed.append(np.inf if decided is None else decided - len(halfway))
    assert told == pytest.approx(np.median(needed), rel=0.3)
    assert remaining_labels(gate_after([1.0] * 30), 0.1) == 0
    assert remaining_labels(gate_after(halfway), 0.0) is None
