"""Which of several proven challengers serves."""

import numpy as np
import pytest

from ratchet.evaluation.gate.characteristics.simulation import first_crossings
from ratchet.evaluation.gate.choice import ProvenChallenger, best_proven, common_order
from ratchet.evaluation.gate.gate import Pair, decide
from ratchet.evaluation.gate.plays import Play


def proven(name, scores, *, low=0.1, gain=0.3):
    verdict = decide([Pair(case_id=str(n), champion=0, challenger=1) for n in range(12)])
    plays = tuple(
        Play(case_id=c, champion=None if s is None else 0.0, challenger=s) for c, s in scores.items()
    )
    verdict = verdict.model_copy(update={"ci": (low, 1.0), "gain": gain})
    return ProvenChallenger(candidate_id=name, verdict=verdict, plays=plays)


def chosen(*found, **more):
    return best_proven(found, {one.candidate_id: one.gains | more.get(one.candidate_id, {}) for one in found})


def test_the_better_on_common_cases_is_chosen_though_the_others_interval_lies_higher():
    lucky = proven("lucky", dict.fromkeys("abcd", 1.0), low=0.6, gain=1.0)
    steady = proven("steady", dict.fromkeys("abcdefgh", 0.75), low=0.2, gain=0.5)
    assert common_order([lucky, steady]) == list("abcdefgh")
    best = chosen(lucky, steady, lucky=dict.fromkeys("efgh", 0.0))
    assert (best.candidate_id, best.n_common) == ("steady", 8)
    assert best.reason.endswith("best of 2 proven on 8 common cases: +0.750 against +0.500")
    assert chosen(steady, lucky, lucky=dict.fromkeys("efgh", 0.0)).candidate_id == "steady"


def test_cases_that_one_of_them_does_not_know_are_not_common():
    one = proven("one", {"a": 1.0, "b": 0.0, "c": None})
    two = proven("two", {"a": 0.5, "b": 0.6, "c": 1.0, "d": 1.0})
    assert "c" not in common_order([one])
    best = chosen(one, two)
    assert (best.candidate_id, best.n_common) == ("two", 2)


def test_ties_go_to_the_surer_gain_and_then_to_the_one_tested_first():
    same = dict.fromkeys("ab", 1.0)
    assert chosen(proven("one", same, low=0.1), proven("two", same, low=0.2)).candidate_id == "two"
    assert chosen(proven("one", same), proven("two", same)).candidate_id == "one"


def test_one_alone_is_chosen_with_its_own_reason_and_none_of_none():
    one = proven("one", {"a": 1.0})
    assert chosen(one).reason == one.verdict.reason
    assert best_proven([], {}) is None


def test_without_common_cases_the_surest_gain_is_chosen_and_the_reason_says_so():
    best = chosen(proven("one", {"a": 1.0}, low=0.1), proven("two", {"b": 0.0}, low=0.3))
    assert (best.candidate_id, best.n_common) == ("two", 0)
    assert "no common cases" in best.reason


@pytest.mark.parametrize("gap", [0.1, 0.2])
def test_the_worse_of_two_proven_is_rarely_chosen(gap):
    """Champion 0.5, challengers 0.9 and 0.9 − gap, up to 400 cases, stopped each at its promotion."""
    rng, times, length = np.random.default_rng(2), 1000, 400
    ours, good, fair = (rng.random((times, length)) < p for p in (0.5, 0.9, 0.9 - gap))
    stops = np.stack(
        [first_crossings(side.astype(float) - ours, np.zeros(ours.shape), 0.03).at for side in (good, fair)]
    )
    both = (stops > 0).all(axis=0)
    latest = stops.max(axis=0)
    upto = np.arange(length) < latest[:, None]
    worse = ((fair & upto).sum(axis=1) > (good & upto).sum(axis=1))[both]
    assert both.sum() > 800
    assert worse.mean() <= (0.15 if gap == 0.1 else 0.05)
