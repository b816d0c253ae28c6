import mlflow
import pytest
from mlflow.entities import AssessmentSource, Expectation, Feedback
from mlflow.genai.review_queues import set_review_queue_item_status
from tests.evidence import finished

from ratchet.agent.errors import BadInput
from ratchet.infra.mlflow_client import connect
from ratchet.infra.review.answers import contradictions, effective_labels
from ratchet.infra.review.queue import ReviewItem, answer, ask_people, existing_queue, pending
from ratchet.infra.traces.spans import mlflow_id
from ratchet.infra.traces.write import collect, log_traces


@pytest.fixture
def traces(project, make_trace):
    made = [make_trace(str(n)) for n in range(4)]
    log_traces(project, made)
    return made


def items(traces, propensity=0.25):
    return [ReviewItem(trace_id=one.trace_id, propensity=propensity, reason="uncertain") for one in traces]


def test_what_is_asked_waits_with_its_propensity(project, traces):
    ask_people(project, items(traces[:2]))
    assert sorted(pending(project), key=str) == sorted(items(traces[:2]), key=str)
    assert finished(project) == []


def test_nothing_was_ever_asked(project):
    assert (pending(project), finished(project)) == ([], [])


def test_asking_again_keeps_place_and_first_propensity(project, traces):
    ask_people(project, items(traces[:1]))
    ask_people(project, items(traces[:2], propensity=0.9))
    assert {item.trace_id: item.propensity for item in pending(project)} == {
        traces[0].trace_id: 0.25,
        traces[1].trace_id: 0.9,
    }


def test_an_answer_is_a_human_label_with_the_propensity_of_its_pick(project, traces):
    ask_people(project, items(traces[:2]))
    answer(project, traces[0].trace_id, expected="other_tool", rater="anna", comment="city missing")
    (label,) = finished(project)
    assert (label.trace_id, label.expected, label.rater) == (traces[0].trace_id, "other_tool", "anna")
    assert (label.source, label.propensity, label.comment) == ("human", 0.25, "city missing")
    assert [item.trace_id for item in pending(project)] == [traces[1].trace_id]
    assert effective_labels(project, collect(project).labels) == [label]


def test_an_answer_on_the_review_page_counts_the_same(project, traces):
    """The page writes a bare expectation, a comment of its own, and completes the item."""
    ask_people(project, items(traces[:1]))
    item = mlflow_id(traces[0].trace_id)
    person = AssessmentSource("HUMAN", "default")
    mlflow.log_assessment(item, Expectation(name="expected", value=" other_tool ", source=person))
    mlflow.log_assessment(item, Feedback(name="comment", value="two tools fit", source=person))
    queue = existing_queue(connect(project))
    set_review_queue_item_status(queue.queue_id, item_id=item, status="complete", completed_by="default")
    (label,) = finished(project)
    assert (label.expected, label.propensity, label.comment) == ("other_tool", 0.25, "two tools fit")


def test_a_trace_that_is_not_queued_is_not_answered(project, traces):
    ask_people(project, items(traces[:1]))
    with pytest.raises(BadInput, match="only queued traces"):
        answer(project, traces[3].trace_id, expected="x", rater="anna")


def test_an_empty_answer_is_refused(project, traces):
    ask_people(project, items(traces[:1]))
    with pytest.raises(BadInput, match="must hold text"):
        answer(project, traces[0].trace_id, expected=" ", rater="anna")


def test_an_unknown_trace_is_not_queued_and_neither_are_the_others(project, traces):
    strange = ReviewItem(trace_id="f" * 32, propensity=1, reason="?")
    with pytest.raises(BadInput, match="1 of 2 traces are not in MLflow"):
        ask_people(project, [*items(traces[:1]), strange])
    assert pending(project) == []


def test_a_rater_who_answers_again_corrects_the_first_answer(project, traces):
    ask_people(project, items(traces[:1]))
    answer(project, traces[0].trace_id, expected="a", rater="anna")
    answer(project, traces[0].trace_id, expected="b", rater="anna")
    assert [label.expected for label in finished(project)] == ["b"]


def test_contradicting_answers_are_both_kept_and_reported(project, traces):
    ask_people(project, items(traces[:2]))
    answer(project, traces[0].trace_id, expected="a", rater="anna")
    answer(project, traces[0].trace_id, expected="b", rater="ben")
    answer(project, traces[1].trace_id, expected="c", rater="anna")
    labels = finished(project)
    assert len(labels) == 3
    assert contradictions(labels) == {traces[0].trace_id: {"anna": "a", "ben": "b"}}


def test_a_declined_item_is_neither_pending_nor_finished(project, traces):
    ask_people(project, items(traces[:1]))
    connection = connect(project)
    queue = existing_queue(connection)
    set_review_queue_item_status(
        queue.queue_id, item_id=mlflow_id(traces[0].trace_id), status="declined", completed_by="anna"
    )
    assert (pending(project), finished(project)) == ([], [])
