"""A label says something, by somebody, with the probability with which it was asked for."""

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from evaluation.label import Label

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
     {"source": "guess"}, {"schema_version": 2}, {"colour": "red"}, {"expected": float("nan")}],
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
