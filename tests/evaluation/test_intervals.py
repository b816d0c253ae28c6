import numpy as np
import pytest

from ratchet.agent.errors import BadInput
from ratchet.evaluation.data.intervals import mean_interval


def test_a_share_gets_wilson_s_interval():
    found = mean_interval([1] * 8 + [0] * 2)
    assert (found.mean, round(found.low, 4), round(found.high, 4), found.n) == (0.8, 0.4902, 0.9433, 10)


def test_all_right_does_not_claim_certainty():
    found = mean_interval([True] * 20)
    assert (found.high, round(found.low, 3)) == (1.0, 0.839)


def test_unscored_cases_are_left_out_and_counted():
    found = mean_interval([1, None, 0, None])
    assert (found.mean, found.n, found.excluded) == (0.5, 2, 2)
    assert str(found) == "0.500 [0.095, 0.905] (n=2, 2 excluded)"


@pytest.mark.parametrize("scores", [[], [None, None]])
def test_an_empty_set_has_no_mean(scores):
    with pytest.raises(BadInput, match="an empty set has no mean"):
        mean_interval(scores)


def test_a_score_outside_its_scale_is_refused():
    with pytest.raises(BadInput, match="outside"):
        mean_interval([0.5, 5])


def test_one_graded_case_says_nothing_about_the_mean():
    found = mean_interval([0.4])
    assert (found.low, found.high) == (0.0, 1.0)


def test_graded_scores_cover_their_mean_at_least_as_often_as_promised():
    draw = np.random.default_rng(0)
    hits = sum(
        found.low <= 2 / 7 <= found.high
        for found in (mean_interval(draw.beta(2, 5, 60).tolist()) for _ in range(300))
    )
    assert hits >= 285
