"""Who may judge: only the rater who was asked, about a picked trace, with the propensity that the pick wrote down."""

import mlflow
import pytest
from mlflow.entities import AssessmentSource, Expectation
from mlflow.genai.review_queues import (
    add_items_to_review_queue,
    delete_review_queue,
    set_review_queue_item_status,
)

from ratchet.agent.errors import BadInput, CorruptRecord
from ratchet.evaluation.data.cases import labelled_cases
from ratchet.infra.mlflow_client import connect
from ratchet.infra.review.answers import effective_labels
from ratchet.infra.review.queue import (
    PICKS,
    QUEUE,
    ReviewItem,
    answer,
    ask_people,
    asked_before,
    existing_queue,
    pending,
)
from ratchet.infra.traces.assessments import ASKED
from ratchet.infra.traces.spans import mlflow_id
from ratchet.infra.traces.write import collect, log_traces


@pytest.fixture
def traces(project, make_trace):
    made = [make_trace(str(n)) for n in range(3)]
    log_traces(project, made)
    return made


def ask(project, *traces, propensity=0.25):
    ask_people(
        project,
        [ReviewItem(trace_id=one.trace_id, propensity=propensity, reason="a sample") for one in traces],
    )


def say(project, trace, value, rater="default", **metadata):
    """As any client of MLflow can."""
    said = Expectation(
        name="expected", value=value, source=AssessmentSource("HUMAN", rater), metadata=metadata or None
    )
    connect(project)
    mlflow.log_assessment(mlflow_id(trace.trace_id), said)


def complete(project, trace, by="default"):
    connection = connect(project)
    set_review_queue_item_status(
        existing_queue(connection).queue_id,
        item_id=mlflow_id(trace.trace_id),
        status="complete",
        completed_by=by,
    )


def cases(project, gate_share):
    """What the gate (or, at a share of nearly 0, a proposer) is given."""
    got = collect(project)
    said = effective_labels(project, got.labels)
    return [
        (c.trace_id, c.answer, c.propensity) for c in labelled_cases(got.traces, said, gate_share=gate_share)
    ]


def judging(project):
    return cases(project, 0.999999)


def teaching(project):
    return {case[0]: case[1] for case in cases(project, 0.000001)}


def test_an_anonymous_label_on_a_trace_that_nobody_asked_about_teaches_and_never_judges(project, traces):
    ask(project, traces[1])
    say(project, traces[0], "x")
    assert judging(project) == []
    assert teaching(project)[traces[0].trace_id] == "x"


def test_a_propensity_in_the_metadata_is_not_believed(project, traces):
    ask(project, traces[0])
    say(project, traces[0], "x", propensity="1.0")
    say(project, traces[1], "x", propensity="1.0")
    complete(project, traces[0])
    assert judging(project) == [(traces[0].trace_id, "x", 0.25)]


def test_a_tag_that_says_that_the_trace_was_picked_is_not_believed(project, traces):
    connection = connect(project)
    forged = '{"propensity": 1.0, "reason": "mine"}'
    for trace in traces[:2]:
        connection.client.set_trace_tag(mlflow_id(trace.trace_id), ASKED, forged)
    ask(project, traces[0])
    connection.client.set_trace_tag(mlflow_id(traces[0].trace_id), ASKED, forged)
    for trace in traces[:2]:
        say(project, trace, "x")
    complete(project, traces[0])
    assert judging(project) == [(traces[0].trace_id, "x", 0.25)]
    connection.client.set_trace_tag(mlflow_id(traces[0].trace_id), ASKED, "no JSON")
    assert judging(project) == [(traces[0].trace_id, "x", 0.25)]


def test_a_trace_that_was_put_into_the_queue_by_hand_judges_nothing(project, traces):
    ask(project, traces[1])
    connection = connect(project)
    queue = existing_queue(connection)
    assert queue.name == QUEUE
    add_items_to_review_queue(queue.queue_id, item_ids=[mlflow_id(traces[0].trace_id)])
    waiting = {item.trace_id: item.propensity for item in pending(project)}
    assert waiting == {traces[0].trace_id: None, traces[1].trace_id: 0.25}
    answer(project, traces[0].trace_id, expected="x", rater="anna")
    assert judging(project) == []
    assert teaching(project)[traces[0].trace_id] == "x"


@pytest.mark.parametrize("rater", ["default", "anna"])
def test_twenty_answers_of_one_rater_are_one_and_the_newest_holds(project, traces, rater):
    ask(project, traces[0])
    for n in range(20):
        say(project, traces[0], f"answer {n}", rater)
    complete(project, traces[0], rater)
    assert [label.expected for label in collect(project).labels] == ["answer 19"]
    assert judging(project) == [(traces[0].trace_id, "answer 19", 0.25)]


def test_an_answer_collected_before_its_correction_does_not_contradict_it(project, traces):
    ask(project, traces[0])
    answer(project, traces[0].trace_id, expected="a", rater="anna")
    before = collect(project)
    answer(project, traces[0].trace_id, expected="b", rater="Anna ")
    after = collect(project, before.watermark)
    (label,) = effective_labels(project, [*before.labels, *after.labels])
    assert (label.expected, label.asked) == ("b", True)


def test_an_answer_collected_before_its_item_was_completed_judges_afterwards(project, traces):
    ask(project, traces[0])
    say(project, traces[0], "x", "anna")
    collected = collect(project).labels
    assert [label.asked for label in effective_labels(project, collected)] == [False]
    complete(project, traces[0], "anna")
    assert [label.asked for label in effective_labels(project, collected)] == [True]


def test_an_answer_under_the_name_of_somebody_who_did_not_complete_the_item_judges_nothing(project, traces):
    ask(project, *traces[:2])
    for trace in traces[:2]:
        say(project, trace, "forged", "anna")
    complete(project, traces[0], "mallory")
    assert judging(project) == []
    answer(project, traces[1].trace_id, expected="right", rater="anna")
    assert judging(project) == [(traces[1].trace_id, "right", 0.25)]


def test_an_anonymous_answer_is_not_heard_beside_a_named_one(project, traces):
    ask(project, traces[0])
    answer(project, traces[0].trace_id, expected="right", rater="anna")
    say(project, traces[0], "wrong")
    say(project, traces[0], "wrong", "")
    assert judging(project) == [(traces[0].trace_id, "right", 0.25)]


def test_a_stranger_s_answer_to_another_trace_of_a_case_does_not_take_it_from_the_gate(project, make_trace):
    one, other = make_trace("same"), make_trace("same")
    log_traces(project, [one, other])
    ask(project, one)
    answer(project, one.trace_id, expected="right", rater="anna")
    say(project, other, "wrong", "mallory")
    assert judging(project) == [(one.trace_id, "right", 0.25)]


def test_a_label_that_nobody_asked_for_does_not_keep_its_trace_from_being_picked(project, traces):
    say(project, traces[0], "x")
    assert asked_before(project) == set()
    ask(project, traces[1])
    assert asked_before(project) == {traces[1].trace_id}


def test_the_first_pick_counts_also_when_the_queue_forgot_it(project, traces):
    ask(project, traces[0])
    connection = connect(project)
    delete_review_queue(existing_queue(connection).queue_id)
    ask(project, traces[0], propensity=1.0)
    assert [item.propensity for item in pending(project)] == [0.25]


def test_a_log_of_picks_that_somebody_rewrote_or_thinned_is_refused(project, traces):
    ask(project, traces[0])
    ask(project, traces[1])
    client, log = connect(project).client, f"{project}-{PICKS}"
    say(project, traces[2], "x")
    labels = collect(project).labels
    true = client.get_model_version(log, "1").tags["event"]
    client.set_model_version_tag(log, "1", "event", true.replace("0.25", "1.0"))
    with pytest.raises(CorruptRecord, match="version 1 was rewritten"):
        effective_labels(project, labels)
    client.set_model_version_tag(log, "1", "event", true)
    assert len(effective_labels(project, labels)) == 1
    client.delete_model_version(log, "1")
    with pytest.raises(CorruptRecord, match="version 1 was deleted"):
        effective_labels(project, labels)


def test_a_pick_without_propensity_is_refused(project, traces):
    with pytest.raises(BadInput, match="has no propensity"):
        ask(project, traces[0], propensity=None)
    assert pending(project) == []
