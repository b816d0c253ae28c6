"""Agreement beyond chance, against scikit-learn, the `krippendorff` package and the tables of its sources."""

import random
from datetime import UTC, datetime

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from ratchet.agent.errors import BadInput
from ratchet.evaluation.data.agreement import (
    alpha_interval,
    cohen_kappa,
    kappa_interval,
    krippendorff_alpha,
    opinions_of,
    pair_agreements,
    rubric_agreements,
)
from ratchet.evaluation.data.labels import Label

_ = None
TWELVE = [  # Krippendorff (2011), section D: four observers, twelve units, gaps; nominal .743, ordinal .815, interval .849
    [1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3],
    [_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _],
]
FIFTEEN = [  # the example of https://en.wikipedia.org/wiki/Krippendorff%27s_alpha: nominal .691, interval .811
    [_, _, _, _, _, 3, 4, 1, 2, 1, 1, 3, 3, _, 3],
    [1, _, 2, 1, 3, 3, 4, 3, _, _, _, _, _, _, _],
    [_, _, 2, 1, 3, 4, 4, _, 2, 1, 1, 3, 3, _, 4],
]


@pytest.mark.parametrize(
    (
        "table",
        "level",
        "expected",
    ),  # the values of the package `krippendorff`, which are those of the sources
    [
        (TWELVE, "nominal", 0.743421052631579),
        (TWELVE, "ordinal", 0.8153875037548814),
        (TWELVE, "interval", 0.8491071428571428),
        (FIFTEEN, "nominal", 0.691358024691358),
        (FIFTEEN, "ordinal", 0.8067214199413153),
        (FIFTEEN, "interval", 0.8108448928121059),
    ],
)
def test_alpha_is_that_of_the_sources_and_of_the_package(table, level, expected):
    items = list(zip(*table, strict=True))
    assert krippendorff_alpha(items, level) == pytest.approx(expected, abs=1e-12)
    found = alpha_interval(items, level)
    assert found.value == pytest.approx(expected)
    assert found.low < found.value < found.high
    names = [[one if one is None else f"value {one}" for one in item] for item in items]
    assert krippendorff_alpha(names) == pytest.approx(krippendorff_alpha(items), abs=1e-12)


def test_kappa_is_that_of_scikit_learn():
    draw = random.Random(0)
    for n in range(1, 60):
        one = [draw.choice("abcd"[: 1 + n % 4]) for _ in range(n)]
        other = [said if draw.random() < 0.6 else draw.choice("abcd") for said in one]
        if len({*one, *other}) > 1:
            assert cohen_kappa(one, other) == pytest.approx(cohen_kappa_score(one, other), abs=1e-12)
    said = ["yes"] * 20 + ["no"] * 15 + ["yes"] * 5 + ["no"] * 10
    of = ["yes"] * 20 + ["no"] * 15 + ["no"] * 5 + ["yes"] * 10
    assert cohen_kappa(said, of) == pytest.approx(0.4)  # the example of Wikipedia's page on κ


def test_what_nobody_could_disagree_on_is_not_called_agreement():
    assert cohen_kappa(["a"] * 5, ["a"] * 5) is None
    assert krippendorff_alpha([["a", "a"]] * 5) is None
    assert krippendorff_alpha([["a", None], [None, "b"]]) is None
    assert krippendorff_alpha([]) is None
    found = kappa_interval(["a"] * 5, ["a"] * 5)
    assert (found.value, found.low, str(found)) == (None, None, "cannot be told (n=5)")
    assert alpha_interval([]).value is None


@pytest.mark.parametrize(("n", "low"), [(4, 0.2), (40, 0.8), (400, 0.97)])
def test_few_items_that_all_agree_promise_little(n, low):
    said = ["a", "b"] * (n // 2)
    for found in (kappa_interval(said, said), alpha_interval([[one, one] for one in said])):
        assert found.value == found.high == 1
        assert found.low < low + 0.03
        assert n == 4 or found.low > low - 0.15


def test_the_intervals_hold_the_truth_about_as_often_as_they_say():
    draw = np.random.default_rng(1)
    noise, n, held = 0.3, 60, {"kappa": 0, "alpha": 0}
    truth = (1 - noise) ** 2  # both say a fair coin, each instead at random with probability `noise`
    for _ in range(40):
        coin = draw.integers(2, size=n)
        said = [np.where(draw.random(n) < noise, draw.integers(2, size=n), coin).tolist() for _ in range(2)]
        kappa, alpha = kappa_interval(*said), alpha_interval(list(zip(*said, strict=True)))
        held["kappa"] += kappa.low <= truth <= kappa.high
        held["alpha"] += alpha.low <= truth <= alpha.high
    assert min(held.values()) >= 35


def test_what_cannot_be_compared_is_refused_with_a_remedy():
    with pytest.raises(BadInput, match="3 values of one rater and 2 of the other"):
        cohen_kappa(["a"] * 3, ["a"] * 2)
    with pytest.raises(BadInput, match="'x' is no number, as ordinal agreement needs"):
        krippendorff_alpha([["x", "y"]], "ordinal")


def label(trace, rater, expected, rubric="1"):
    when = datetime(2026, 1, 5, tzinfo=UTC)
    return Label(
        trace_id=trace, rater=rater, expected=expected, source="human", rubric_version=rubric, created_at=when
    )


def test_agreement_is_told_for_each_two_raters_and_each_version_of_the_rubric():
    said = {"ann": "aabbab", "Bob": "aabbab", "cleo": "abab__"}
    labels = [
        label(str(n), rater, f" {one}.", rubric)
        for rater, all_said in said.items()
        for rubric in ("1", "2")
        for n, one in enumerate(all_said if rubric == "1" else "ab")
        if one != "_"
    ]
    opinions = opinions_of(labels, "expected")
    pairs = {(one.rubric, one.one, one.other): one.kappa for one in pair_agreements(opinions)}
    assert {key: (kappa.value, kappa.n) for key, kappa in pairs.items() if key[0] == "1"} == {
        ("1", "ann", "bob"): (1, 6),
        ("1", "ann", "cleo"): (0, 4),
        ("1", "bob", "cleo"): (0, 4),
    }
    assert {kappa.n for key, kappa in pairs.items() if key[0] == "2"} == {2}
    told = rubric_agreements(opinions)
    assert told["2"].value == 1
    items = [[_ if one == "_" else one for one in item] for item in zip(*said.values(), strict=True)]
    assert told["1"].value == pytest.approx(krippendorff_alpha(items))
    assert opinions_of(labels, "score") == []
