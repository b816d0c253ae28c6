"""How varied answers are, and alarms where they become narrower: rarely by chance, soon where it is so."""

import random

import pytest

from ratchet.evaluation.drift.diversity import answers_of, diversity, narrowing, watch_diversity

WORDS = [f"word{n}" for n in range(60)]


def varied(n, seed, *, copied=0.0, words=60):
    """Answers of eight words; a share of them is one stock phrase."""
    draw = random.Random(seed)
    return [
        "we are sorry to hear that" if draw.random() < copied else " ".join(draw.choices(WORDS[:words], k=8))
        for _ in range(n)
    ]


@pytest.mark.parametrize(
    ("answers", "figures"),
    [
        ([], (0, 1.0, 1.0, 0.0, 0.0)),
        (["yes"], (1, 1.0, 1.0, 0.0, 0.0)),
        (["Yes", " yes "], (2, 0.5, 1.0, 0.5, 0.0)),
        (["a b", "a c", "a b", "d"], (4, 4 / 7, 2 / 3, 0.25, 1.5)),
        (["", ""], (2, 1.0, 1.0, 0.5, 0.0)),
    ],
    ids=str,
)
def test_known_answers_have_known_figures(answers, figures):
    found = diversity(answers)
    assert tuple(found.model_dump().values()) == pytest.approx(figures)


def test_a_case_that_many_ask_counts_once_and_what_broke_says_nothing(make_trace):
    same = [
        make_trace("one request", tool="a"),
        make_trace("one request", tool="b"),
        make_trace("another", tool="a"),
    ]
    assert answers_of([*same, make_trace("none", attempts=())]) == ["a", "a"]


def test_what_is_as_varied_as_before_seldom_alarms_and_what_repeats_itself_soon_does():
    calm = [watch_diversity(varied(400, s), varied(600, 1000 + s), alpha=0.01, seed=s) for s in range(40)]
    assert sum(one.alarm for one in calm) <= 40 * 12 * 0.01, "12 looks each, one false alarm in 100 looks"
    collapsed = [
        watch_diversity(varied(400, s), varied(300, 500 + s, copied=0.4), alpha=0.001, seed=s)
        for s in range(10)
    ]
    assert all(one.alarm for one in collapsed)
    fewer_words = watch_diversity(varied(400, 1), varied(400, 2, words=30), alpha=0.001)
    assert fewer_words.alarm
    assert fewer_words.diversity.distinct_1 < fewer_words.before.distinct_1
    richer = watch_diversity(varied(400, 1, words=30), varied(600, 2), alpha=0.001)
    assert not richer.alarm, "more varied than before is no alarm"


def test_a_first_version_is_compared_with_its_own_beginning_and_too_little_says_nothing():
    answers = varied(400, 3) + varied(300, 4, copied=0.5)
    assert watch_diversity([], answers, alpha=0.001).alarm
    assert watch_diversity([], varied(400, 3), alpha=0.001) is None
    assert watch_diversity(varied(390, 3), varied(9, 4), alpha=0.001) is None


def test_in_the_gate_an_equal_version_is_seldom_called_narrower_and_a_narrower_one_is():
    equal = [narrowing(varied(40, s), varied(40, 900 + s), seed=s).p_value for s in range(40)]
    assert sum(p <= 0.1 for p in equal) <= 9
    assert narrowing(varied(60, 1), varied(60, 2, copied=0.3)).p_value < 0.01
    assert narrowing(varied(60, 1, copied=0.3), varied(60, 2)).p_value > 0.5
    assert narrowing([], []) is None
    same = varied(30, 1)
    assert narrowing(same, same).p_value == 1.0
