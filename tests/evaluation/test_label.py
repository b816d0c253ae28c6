"""A label says something, by somebody, with the probability with which it was asked for."""

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from ratchet.evaluation.data.labels import Label, one_per_rater

NOW = datetime(2026, 1, 5, tzinfo=UTC)


def label(**changes):
    return Label(
        **({"trace_id": "t", "source": "human", "rater": "ann", "created_at": NOW, "score": 1.0} | changes)
    )


def test_a_label_without_score_and_expected_answer_is_refused():
    with pytest.raises(ValidationError, match="needs a score or an expected answer"):
        label(score=None)


@pytest.mark.parametrize(
    "said", [{"score": 0.0}, {"score": None, "expected": "tool"}, {"expected": {"tool": "a"}}]
)
def test_score_or_expected_answer_or_both_are_enough_and_come_back_equal(said):
    made = label(**said)
    assert Label.from_json(made.to_json()) == made


@pytest.mark.parametrize(
    "wrong",
    [{"score": 1.1}, {"score": -0.1}, {"score": float("nan")}, {"propensity": 0.0}, {"propensity": 1.1},
     {"asked": True}, {"source": "guess"}, {"schema_version": 2}, {"colour": "red"}, {"expected": float("nan")}],
)  # fmt: skip
def test_what_is_out_of_bounds_is_refused(wrong):
    with pytest.raises(ValidationError):
        label(**wrong)


def test_a_label_read_again_later_is_the_same_label():
    assert label().label_id == label(created_at=NOW + timedelta(days=1)).label_id
    changes = [
        {"score": 0.0},
        {"rater": "bob"},
        {"trace_id": "u"},
        {"rubric_version": "2"},
        {"propensity": 0.5},
    ]
    assert len({label(**change).label_id for change in ({}, *changes)}) == 6


OLD = (
    '{"schema_version":1,"trace_id":"t","score":1.0,"expected":null,"source":"human","rater":"ann",'
    '"rubric_version":"1","propensity":0.25,"comment":"","created_at":"2026-01-05T00:00:00Z"}'
)


def test_a_label_that_an_earlier_version_stored_is_read_keeps_its_id_and_was_not_asked_for():
    old = Label.from_json(OLD)
    assert (old.label_id, old.asked) == ("b34bd30df948e6f9", False)


def later(hours, **changes):
    return label(created_at=NOW + timedelta(hours=hours), **changes)


def test_a_rater_s_newest_answer_and_newest_score_stand_whatever_the_order():
    both, answer, bob = later(0, expected="a"), later(1, score=None, expected="b"), later(2, rater="bob")
    judge = [later(n, source="judge", rater="j") for n in range(2)]
    given = [bob, judge[1], answer, both, judge[0]]
    kept = [(one.source, one.rater, one.score, one.expected) for one in one_per_rater(given)]
    assert sorted(kept, key=str) == sorted(
        [
            ("human", "ann", 1.0, None),
            ("human", "ann", None, "b"),
            ("human", "bob", 1.0, None),
            ("judge", "j", 1.0, None),
            ("judge", "j", 1.0, None),
        ],
        key=str,
    )


def test_anonymous_people_are_one_rater_and_are_heard_only_where_nobody_with_a_name_is():
    unnamed = [
        later(0, rater=""),
        later(1, rater="default", score=0.0),
        later(2, rater=" Default ", score=0.5),
    ]
    assert [one.score for one in one_per_rater(unnamed)] == [0.5]
    assert [one.rater for one in one_per_rater([*unnamed, label()])] == ["ann"]
    assert len(one_per_rater([*unnamed, label(trace_id="u")])) == 2
    assert len(one_per_rater([*unnamed, label(score=None, expected="a")])) == 2
