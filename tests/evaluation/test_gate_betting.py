import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.evaluation.gate.betting import (
    KAPPA,
    LOG_WEIGHTS,
    NO_PRIOR,
    Bounds,
    TrustPrior,
    Wealth,
    bet,
    confidence_sequence,
    log_e_above,
    log_e_below,
    trust,
)
from ratchet.evaluation.gate.characteristics.simulation import (
    Judge,
    actively_labelled,
    binary,
    continuous,
    first_crossings,
    rare_disaster,
    with_flattering_judge,
    with_judge,
)

POPULATIONS = [
    binary(0.7, 0.1, shared=0.5),
    continuous(0.05),
    with_judge(binary(0.5, 0.1), Judge(0.6)),
    with_flattering_judge(binary(0.5, 0.0)),
    actively_labelled(binary(0.5, 0.1), Judge(0.9), min_propensity=0.2),
]
differences = st.lists(st.floats(-1, 1), min_size=1, max_size=60)


def run(d, null=0.0):
    d = np.array(d, dtype=float)
    return bet(Wealth.start(), d, np.zeros_like(d), null=null)


def test_prior_weights_are_a_distribution_over_stakes_below_one():
    assert np.exp(LOG_WEIGHTS).sum() == pytest.approx(1)
    assert (np.diff(KAPPA) > 0).all()
    assert KAPPA.max() < 1


@pytest.mark.parametrize("population", POPULATIONS, ids=lambda p: p.name)
def test_vectorized_reference_equals_the_betting_path(population):
    a, c = population.draw(np.random.default_rng(3), (40, 150))
    path = bet(Wealth.start((40,)), a, c, bounds=population.bounds)
    crossings = first_crossings(a, c, 0.05, bounds=population.bounds)
    crossed = path.log_up >= np.log(20)
    np.testing.assert_array_equal(crossings.at, np.where(crossed.any(1), crossed.argmax(1) + 1, 0))
    np.testing.assert_allclose(crossings.log_e, path.log_up[:, -1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("population", POPULATIONS, ids=lambda p: p.name)
def test_populations_have_the_gain_that_they_state_and_a_control_of_mean_zero(population):
    a, c = population.draw(np.random.default_rng(4), (400, 1000))
    assert a.mean() == pytest.approx(population.gain, abs=4 * a.std() / 632)
    assert c.mean() == pytest.approx(0, abs=4 * c.std() / 632 + 1e-12)
    assert np.abs(a).max() <= population.bounds.a_max
    assert np.abs(c).max() <= population.bounds.c_max


@pytest.mark.parametrize("population", POPULATIONS, ids=lambda p: p.name)
def test_blocks_of_any_size_give_the_same_bits(population):
    a, c = population.draw(np.random.default_rng(5), (1, 97))
    a, c = a[0], c[0]
    whole = bet(Wealth.start(), a, c, bounds=population.bounds)
    parts, logs = Wealth.start(), []
    for at in np.split(np.arange(97), [1, 2, 30, 31, 90]):
        step = bet(parts, a[at], c[at], bounds=population.bounds)
        parts = step.wealth
        logs.extend(step.log_up)
    assert logs == list(whole.log_up)
    for name in ("up", "down", "sums"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole.wealth, name))


@given(st.floats(-0.9, 0.9), st.floats(-1, 1), st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_no_bet_gains_in_expectation_under_the_null(null, value, chance):
    """Any two-point distribution on [−1, 1] with mean at most the null: the expected factor is at most 1."""
    low = min(value, null)
    high = low + (null - low) / max(chance, 1e-3)
    if high > 1:
        return
    factors = [np.exp(run([x], null).log_up[-1]) for x in (low, high)]
    weight = 0.0 if high == low else (null - low) / (high - low)
    assert (1 - weight) * factors[0] + weight * factors[1] <= 1 + 1e-9


GRID = np.array([(d, f) for d in (-1.0, 0.0, 1.0) for f in (-1.0, 0.0, 1.0)])
weights = st.lists(st.floats(0.01, 1), min_size=9, max_size=9).map(lambda w: np.array(w) / sum(w))
pasts = st.integers(0, 2**32 - 1).map(np.random.default_rng)


def expected_factor(past, a, c, chances, null, bounds, prior=NO_PRIOR):
    """E[e after one more bet] / e now over the listed outcomes, from a past of forty bets."""
    before = bet(Wealth.start(), *past, null=null, bounds=bounds, prior=prior)
    repeated = Wealth(
        *(np.repeat(getattr(before.wealth, n)[None], a.size, axis=0) for n in ("up", "down", "sums"))
    )
    after = bet(repeated, a[:, None], c[:, None], null=null, bounds=bounds, prior=prior)
    sides = ((after.log_up, before.log_up), (after.log_down, before.log_down))
    return [float((chances * np.exp(now[:, 0] - then[-1])).sum()) for now, then in sides]


@given(weights, pasts)
@settings(max_examples=60, deadline=None)
def test_evidence_is_a_martingale_whatever_the_judge_says(chances, rng):
    """Every joint law of person and judge; F̄_U is one fresh pair: exactly enumerated, both sides gain nothing."""
    null = float(chances @ GRID[:, 0])
    outcomes = [
        (d, f - u, p * q)
        for (d, f), p in zip(GRID, chances, strict=True)
        for (_, u), q in zip(GRID, chances, strict=True)
    ]
    a, c, joint = np.array(outcomes).T
    past = rng.choice([-1.0, 0.0, 1.0], 40), rng.uniform(-2, 2, 40)
    told = TrustPrior.of(rng.choice([-1.0, 0.0, 1.0], 50), rng.uniform(-1, 1, 50))
    for prior in (NO_PRIOR, told, TrustPrior(1e6, 1e6, 1e6)):
        factors = expected_factor(past, a, c, joint, null, Bounds(), prior)
        assert factors == pytest.approx([1, 1], abs=1e-9)


@given(weights, pasts, st.floats(0.1, 0.9))
@settings(max_examples=60, deadline=None)
def test_evidence_is_a_martingale_when_the_judge_chooses_what_to_label(chances, rng, least):
    """Propensity depends on F; enumerated over D, F and whether the pair was picked."""
    bounds = Bounds(a_max=1 / least, c_max=max(1 / least - 1, 1.0))
    null = float(chances @ GRID[:, 0])
    outcomes = []
    for (d, f), p in zip(GRID, chances, strict=True):
        picked = least + (1 - least) * abs(f)
        outcomes += [(d / picked, f * (1 / picked - 1), p * picked), (0.0, -f, p * (1 - picked))]
    a, c, joint = np.array(outcomes).T
    past = rng.uniform(-1, 1, 40), rng.uniform(-1, 1, 40)
    assert expected_factor(past, a, c, joint, null, bounds) == pytest.approx([1, 1], abs=1e-9)


@given(differences)
@settings(max_examples=50, deadline=None)
def test_final_evidence_ignores_the_order_of_pairs(d):
    forward, backward = run(d), run(d[::-1])
    assert forward.log_up[-1] == pytest.approx(backward.log_up[-1], abs=1e-9)
    assert forward.log_down[-1] == pytest.approx(backward.log_down[-1], abs=1e-9)


@given(differences)
@settings(max_examples=50, deadline=None)
def test_interval_is_dual_to_the_tests_and_holds_the_mean(d):
    wealth = run(d).wealth
    low, high = confidence_sequence(wealth)
    limit = np.log(40)
    assert -1 <= low <= np.mean(d) + 1e-9
    assert np.mean(d) - 1e-9 <= high <= 1
    if low > -1:
        assert log_e_above(wealth, float(low) - 1e-6) >= limit - 1e-9
    assert log_e_above(wealth, min(float(low) + 1e-6, 0.999999)) <= limit + 1e-3
    if high < 1:
        assert log_e_below(wealth, float(high) + 1e-6) >= limit - 1e-9


def test_swapping_the_sides_swaps_evidence_and_harm():
    d = np.random.default_rng(6).choice([-1.0, 0.0, 1.0], p=[0.2, 0.5, 0.3], size=80)
    one, other = run(d), run(-d)
    np.testing.assert_allclose(one.log_up, other.log_down)


def test_a_bet_never_loses_everything_even_at_the_declared_bounds():
    bounds = Bounds(a_max=10.0, c_max=9.0)
    a, c = np.full(20, -10.0), np.tile([9.0, -9.0], 10)
    path = bet(Wealth.start(), a, c, bounds=bounds)
    assert np.isfinite(path.log_up).all()
    assert (bounds.stakes * (bounds.a_max + bounds.trust_caps * bounds.c_max)).max() < 1


def test_trust_follows_a_good_judge_and_ignores_a_useless_one():
    rng = np.random.default_rng(7)
    for correlation, low, high in ((0.9, 0.7, 0.95), (0.0, 0.0, 0.15)):
        a, c = with_judge(binary(0.5, 0.1), Judge(correlation)).draw(rng, (1, 2000))
        rho = trust(bet(Wealth.start((1,)), a, c).wealth.sums)[0]
        assert low <= rho <= high


def test_fifty_labels_from_before_start_the_trust_and_save_labels():
    rng = np.random.default_rng(9)
    population = with_judge(binary(0.5, 0.2), Judge(0.9))
    a, c = population.draw(rng, (600, 160))
    people, judge = population.draw(rng, (1, 50))
    told = TrustPrior.of(people[0], judge[0])
    assert trust(told.sums) == pytest.approx(0.85, abs=0.15)
    assert trust(TrustPrior.of([], []).sums) == 0
    with_it, without = (first_crossings(a, c, 0.05, prior=prior).at for prior in (told, NO_PRIOR))
    assert np.median(with_it[with_it > 0]) < np.median(without[without > 0])
    np.testing.assert_allclose(
        first_crossings(a[:5], c[:5], 0.05, prior=told).log_e,
        bet(Wealth.start((5,)), a[:5], c[:5], prior=told).log_up[:, -1],
    )


@pytest.mark.parametrize(
    "population",
    [
        binary(0.5, 0.0),
        binary(0.9, 0.0),
        rare_disaster(),
        with_flattering_judge(binary(0.5, 0.0)),
        actively_labelled(binary(0.7, 0.0, shared=0.8), Judge(0.6)),
    ],
    ids=lambda p: p.name,
)
def test_false_promotions_with_a_look_after_every_bet_stay_below_alpha(population):
    a, c = population.draw(np.random.default_rng(8), (2000, 150))
    rate = (first_crossings(a, c, 0.05, bounds=population.bounds).at > 0).mean()
    assert rate <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 2000)
