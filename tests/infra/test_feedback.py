"""What was said about a trace becomes a label under the names that the project sets; anything else is told."""

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from ratchet.evaluation.data.labels import Label
from ratchet.infra.traces.assessments import to_assessments, to_labels
from ratchet.infra.traces.conversation import Assessed
from ratchet.infra.traces.feedback import FeedbackNames, labels_of
from ratchet.infra.traces.spans import mlflow_id

NOW = datetime(2026, 11, 25, tzinfo=UTC)
USUAL = FeedbackNames()


@pytest.mark.parametrize(
    ("value", "score"),
    [
        (True, 1.0),
        (False, 0.0),
        (0.75, 0.75),
        ("yes", 1.0),
        ("No", 0.0),
        ("pass", 1.0),
        ("thumbs down", 0.0),
        ("\N{THUMBS UP SIGN}", 1.0),
        ("0.5", 0.5),
    ],
)
def test_a_score_is_read_in_all_the_ways_in_which_teams_write_it(value, score):
    assert USUAL.score("thumbs", value) == score


@pytest.mark.parametrize("value", [4, -1, "great", None, [1], float("nan")])
def test_a_number_of_which_nobody_said_the_range_is_no_score_and_the_remedy_is_said(value):
    with pytest.raises(ValueError, match=r"\[feedback.ranges\] stars = \[1, 5\]"):
        USUAL.score("stars", value)


def test_stars_are_a_score_where_the_setting_says_the_range_and_a_grade_may_be_the_other_way_round():
    names = FeedbackNames(ranges={"stars": (1, 5), "grade": (6, 1)})
    assert (names.kind("stars"), names.score("stars", 4), names.score("grade", 1)) == ("score", 0.75, 1.0)
    with pytest.raises(ValueError, match="within 1 to 5"):
        names.score("stars", 6)


def test_a_correction_is_the_right_answer_and_another_name_is_told_with_who_wrote_it():
    said = [
        Assessed(name="thumbs", value=False, source="human", rater="ada", at=NOW),
        Assessed(name="correction", value=" Oslo ", source="human", rater="ada", at=NOW),
        Assessed(name="tone", value=3, source="judge", rater="j1", at=NOW),
        Assessed(name="anything", value="Bergen", kind="expected", source="environment", rater="", at=NOW),
        Assessed(name="score", value=7, source="human", rater="bo", at=NOW),
    ]
    labels, problems = labels_of(said, "0" * 32, USUAL, seen_at=NOW)
    assert [(one.rater, one.score, one.expected) for one in labels] == [
        ("ada", 0.0, None),
        ("ada", None, "Oslo"),
        ("default", None, "Bergen"),
    ]
    assert ["j1 wrote 'tone'" in problems[0], "bo wrote 'score' = 7" in problems[1]] == [True, True], problems


def test_what_a_person_did_not_pick_comes_back_with_what_they_picked():
    said = Label(
        trace_id="a" * 32, expected="Yes.", over={"text": "No."}, source="human", rater="Ada",
        created_at=datetime(2026, 1, 5, tzinfo=UTC),
    )  # fmt: skip
    written = to_assessments(said)
    info = SimpleNamespace(trace_id=mlflow_id(said.trace_id), assessments=written)
    for one in written:
        one.assessment_id, one.last_update_time_ms = "1", 2_000_000_000_000
    labels, problems = to_labels(info)
    assert (labels, problems) == ([said], [])
