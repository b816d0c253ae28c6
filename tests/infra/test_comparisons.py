from datetime import UTC, datetime

import mlflow
import pytest
from mlflow.entities import AssessmentSource, Feedback
from mlflow.genai.review_queues import set_review_queue_item_status

from ratchet.agent.errors import BadInput
from ratchet.evaluation.data.raters import RaterSettings
from ratchet.evaluation.gate.questions import Question, Reply
from ratchet.evaluation.gate.replies import people_wanted, settle_replies
from ratchet.infra.mlflow_client import connect
from ratchet.infra.review.asked_log import log_asked
from ratchet.infra.review.comparisons import (
    BETTER,
    QUEUE,
    WHICH,
    ask_comparisons,
    ask_more,
    pending_comparisons,
    read_replies,
    reply,
)
from ratchet.infra.review.queue import find_queue
from ratchet.infra.traces.lookup import look_up_traces
from ratchet.infra.traces.read import IGNORE
from ratchet.infra.traces.spans import comparison_id, mlflow_id
from ratchet.infra.traces.write import collect, log_traces


@pytest.fixture
def questions(project, make_trace):
    made = [make_trace(f"request {n}?") for n in range(4)]
    log_traces(project, made)
    return [
        Question(
            case=one.case,
            trace_id=one.trace_id,
            answers=(f"left {n}", f"right {n}"),
            reason="the versions differ",
        )
        for n, one in enumerate(made)
    ]


def say(question, rater="anna", **said):
    return Reply(question_id=question.question_id, rater=rater, created_at=datetime.now(UTC), **said)


def test_a_question_waits_until_somebody_answered_and_the_answer_is_read(project, questions):
    ask_comparisons(project, questions[:3])
    assert pending_comparisons(project) == questions[:3]
    assert read_replies(project) == []
    reply(project, say(questions[0], good=(1,), comment="the other is rude"))
    reply(project, say(questions[1], better="neither of them"))
    reply(project, say(questions[2], rater="ben", outcome="unclear"))
    assert pending_comparisons(project) == []
    read = [(r.question_id, r.rater, r.outcome, r.good, r.better, r.comment) for r in read_replies(project)]
    assert read == [
        (questions[0].question_id, "anna", "answered", (1,), None, "the other is rude"),
        (questions[1].question_id, "anna", "answered", (), "neither of them", ""),
        (questions[2].question_id, "ben", "unclear", (), None, ""),
    ]


def test_asking_again_keeps_the_place_and_the_order_that_was_shown(project, questions):
    ask_comparisons(project, questions[:2])
    reply(project, say(questions[0], good=(0,)))
    turned = questions[1].model_copy(update={"answers": questions[1].answers[::-1]})
    ask_comparisons(project, [turned, *questions])
    assert pending_comparisons(project) == questions[1:]
    assert len(read_replies(project)) == 1


def test_a_kill_between_log_and_queue_is_made_good_by_asking_again_whatever_the_reason_then(
    project, questions
):
    log_asked(connect(project), questions[:2])
    assert pending_comparisons(project) == []
    again = [one.model_copy(update={"reason": "the versions differ; 3 more decide"}) for one in questions]
    ask_comparisons(project, again)
    assert pending_comparisons(project) == again


def test_a_question_is_no_trace_of_the_agent_whatever_is_written_on_it(project, questions):
    before = collect(project)
    ask_comparisons(project, questions)
    trace_id = mlflow_id(comparison_id(project, questions[0].question_id))
    client = connect(project).client
    client.delete_trace_tag(trace_id, IGNORE)  # as whoever may label can
    mlflow.log_assessment(
        trace_id, Feedback(name="score", value=1.0, source=AssessmentSource("HUMAN", "eve"))
    )
    for since in (None, before.watermark):
        got = collect(project, since)
        assert {trace.trace_id for trace in got.traces} <= {one.trace_id for one in questions}
        assert (got.labels, got.problems) == ((), ())
    assert collect(project, before.watermark).traces == ()
    assert look_up_traces(project, [trace_id]) == ({}, {})


def test_only_who_completed_the_item_is_heard_and_an_empty_reply_is_a_skip(project, questions):
    ask_comparisons(project, questions)
    _press(project, questions[0], "default", {WHICH: "LEFT"}, completes=False)
    _press(project, questions[1], "default", {})
    _press(project, questions[2], "default", {"comment": "no idea"})
    _press(project, questions[3], "eve", {WHICH: "LEFT"}, completes=False)
    _press(project, questions[3], "Anna", {WHICH: "RIGHT", BETTER: "right, really"})
    read = {r.question_id: (r.rater, r.outcome, r.good, r.comment) for r in read_replies(project)}
    assert read == {
        questions[1].question_id: ("default", "skip", (), ""),
        questions[2].question_id: ("default", "skip", (), "no idea"),
        questions[3].question_id: ("anna", "answered", (1,), "better: right, really"),
    }


def test_a_rater_who_answers_again_is_read_twice_and_the_newest_last(project, questions):
    ask_comparisons(project, questions[:1])
    reply(project, say(questions[0], good=(0,)))
    reply(project, say(questions[0], better="x"))
    reply(project, say(questions[0], good=(0, 1)))
    assert [(r.good, r.better) for r in read_replies(project)] == [((0,), None), ((), "x"), ((0, 1), None)]
    with pytest.raises(BadInput, match="answered by 'anna' already"):
        reply(project, say(questions[0], rater="ben", good=(0,)))


def test_of_more_than_two_answers_those_are_picked_that_are_right(project, questions):
    several = questions[0].model_copy(update={"answers": ("a", "b", "c")})
    ask_comparisons(project, [several, questions[1]])
    assert pending_comparisons(project) == [several, questions[1]]
    reply(project, say(several, good=(0, 2)))
    reply(project, say(questions[1]))
    assert [r.good for r in read_replies(project)] == [(0, 2), ()]
    with pytest.raises(BadInput, match="answers 0 to 1"):
        reply(project, say(questions[1], good=(2,)))
    with pytest.raises(BadInput, match="nobody was asked"):
        reply(project, say(questions[2], good=(1,)))


def goes_on(project, questions, rules):
    """The next reviewers are asked, as `improve` does it."""
    known = {one.question_id: one for one in questions}
    wanted = people_wanted(known, read_replies(project), rules, datetime.now(UTC))
    return ask_more(project, wanted, rules)


def outcome(project, question, rules):
    known = {question.question_id: question}
    found = settle_replies(known, read_replies(project), rules, datetime.now(UTC))
    return found[question.question_id].good if found else None


def test_where_two_are_wanted_each_has_a_queue_and_a_third_decides_between_them(project, questions):
    rules, asked = RaterSettings(per_item=2), questions[0]
    several = questions[1].model_copy(update={"answers": ("a", "b", "c")})
    for _ in range(2):
        ask_comparisons(project, [asked, several], rules)
    assert goes_on(project, [asked, several], rules) == 0
    reply(project, say(asked, good=(0,)))
    assert pending_comparisons(project, "anna") == [several]
    assert pending_comparisons(project, "ben") == [asked, several]
    assert goes_on(project, [asked, several], rules) == 0
    reply(project, say(asked, "ben", good=(1,)))
    with pytest.raises(BadInput, match="answered by 'anna', 'ben' already"):
        reply(project, say(asked, "cleo", good=(1,)))
    assert (outcome(project, asked, rules), goes_on(project, [asked, several], rules)) == (None, 1)
    assert goes_on(project, [asked, several], rules) == 0
    reply(project, say(asked, "cleo", good=(1,)))
    assert (outcome(project, asked, rules), goes_on(project, [asked, several], rules)) == ((1,), 0)
    assert pending_comparisons(project) == [several]
    reply(project, say(asked, "anna", good=(0, 1)))
    assert len(read_replies(project)) == 4


def test_a_skip_goes_to_the_next_reviewer_twice_and_then_nobody_is_asked(project, questions):
    rules, asked = RaterSettings(), questions[0]
    ask_comparisons(project, [asked], rules)
    for rater, put in (("anna", 1), ("ben", 1), ("cleo", 0)):
        assert pending_comparisons(project, rater) == [asked]
        reply(project, say(asked, rater, outcome="skip"))
        assert goes_on(project, [asked], rules) == put
    assert pending_comparisons(project) == []
    assert outcome(project, asked, rules) is None


def test_who_is_named_has_a_queue_of_one_s_own(project, questions):
    rules = RaterSettings(names=("Anna", "ben"))
    ask_comparisons(project, questions, rules)
    anna, ben = (pending_comparisons(project, name) for name in ("anna", "ben"))
    assert sorted(map(str, anna + ben)) == sorted(map(str, questions))
    (asked, name, other) = (anna[0], "anna", "ben") if anna else (ben[0], "ben", "anna")
    with pytest.raises(BadInput, match="waits for others"):
        reply(project, say(asked, other, good=(0,)))
    reply(project, say(asked, name, outcome="unclear"))
    assert goes_on(project, questions, rules) == 1
    reply(project, say(asked, other, good=(0,)))
    assert (outcome(project, asked, rules), goes_on(project, questions, rules)) == ((0,), 0)


def test_what_a_reviewer_sees_names_no_version_and_holds_case_and_both_answers(project, questions):
    ask_comparisons(project, questions[:1])
    connection = connect(project)
    found = connection.client.get_trace(mlflow_id(comparison_id(project, questions[0].question_id)))
    assert found.info.request_preview == "request 0?"
    assert found.info.response_preview.startswith("| LEFT | RIGHT |\n|---|---|\n| left 0 | right 0 |")
    assert "the versions differ" in found.info.response_preview
    seen = found.to_json()
    assert 'c0ffee"' not in seen
    assert "candidate" not in seen


def _press(project, question, rater, said, *, completes=True):
    """As MLflow's Review page writes it."""
    trace_id = mlflow_id(comparison_id(project, question.question_id))
    connection = connect(project)
    for name, value in said.items():
        feedback = Feedback(name=name, value=value, source=AssessmentSource("HUMAN", rater))
        mlflow.log_assessment(trace_id, feedback)
    if completes:
        queue = find_queue(connection, QUEUE)
        set_review_queue_item_status(queue.queue_id, item_id=trace_id, status="complete", completed_by=rater)
