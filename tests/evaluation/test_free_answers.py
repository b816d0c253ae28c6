"""Text and JSON as answers: what teaches, what judges, and that no answer becomes a category or a dispute of its own."""

import random
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from ratchet.agent.case import Case
from ratchet.agent.environment import Action, Outcome, respond
from ratchet.agent.trace import Attempt, Step, Trace
from ratchet.evaluation.data.cases import LabelledCase, answer_name, case_text, labelled_cases, role_of
from ratchet.evaluation.data.curate import CurateSettings, curate
from ratchet.evaluation.data.labels import Label
from ratchet.evaluation.data.scorers import same
from ratchet.evaluation.drift.behaviour import as_behaviour
from ratchet.evaluation.drift.monitor import DriftMonitor
from ratchet.evaluation.gate.gate import GatePolicy
from ratchet.evaluation.gate.trial import Trial
from ratchet.infra.review.answers import contradictions

NOW = datetime(2026, 11, 25, tzinfo=UTC)


def requests(role, n):
    texts = (f"where is parcel {i}?" for i in range(10_000))
    on_side = (t for t in texts if role_of(Case(inputs={"request": t}).case_id, gate_share=0.4) == role)
    return [next(on_side) for _ in range(n)]


TRAIN, GATE = requests("train", 6), requests("gate", 6)


def said(request, content, score=None, **changes):
    step = Step(observation=request, action=respond(content))
    fields = {
        "trace_id": uuid4().hex, "case": Case(inputs={"request": request}), "candidate_id": "c",
        "started_at": NOW, "latency_s": 0.1, "attempts": (Attempt(steps=(step,), outcome=Outcome(score=score)),),
    }  # fmt: skip
    return Trace(**(fields | changes))


def label(trace, rater="ann", **changes):
    fields = {"source": "human", "created_at": NOW, "propensity": 1.0, "asked": True}
    return Label(trace_id=trace.trace_id, rater=rater, **(fields | changes))


def known(traces, labels=(), **changes):
    found = labelled_cases(traces, list(labels), gate_share=0.4, **changes)
    return {
        item.case.inputs["request"]: (item.role, item.source, item.answer, item.case.expected)
        for item in found
    }


def test_what_the_scorer_found_right_teaches_with_its_words():
    traces = [
        said(TRAIN[0], "It is in Oslo.", 1),
        said(TRAIN[1], {"city": "Rome"}, 1),
        said(TRAIN[2], "Dunno", 0.5),
    ]
    assert known(traces) == {
        TRAIN[0]: ("train", "environment", "It is in Oslo.", None),
        TRAIN[1]: ("train", "environment", {"city": "Rome"}, None),
    }


def test_a_correction_is_what_is_expected_and_a_score_of_one_approves_the_text():
    traces = [said(TRAIN[0], "Dunno."), said(GATE[0], "It is in Bergen."), said(GATE[1], "In Rome.")]
    labels = [
        label(traces[0], expected="In Oslo."),
        label(traces[1], score=1),
        label(traces[2], score=0),
    ]
    assert known(traces, labels) == {
        TRAIN[0]: ("train", "human", "In Oslo.", "In Oslo."),
        GATE[0]: ("gate", "human", "It is in Bergen.", "It is in Bergen."),
    }


@pytest.mark.parametrize(
    ("one", "other", "disputed"),
    [
        ("Your parcel is in Oslo today.", "It has come as far as Oslo by now.", False),
        ("Oslo", "oslo.", False),
        ("Oslo", "It is in Oslo today, I think.", False),
        ("Oslo", "Rome", True),
        ({"city": "Oslo"}, '{"city": "oslo"}', False),
        ({"city": "Oslo"}, {"city": "Rome"}, True),
        (41, "42", True),
    ],
)
def test_two_wordings_are_no_dispute_and_two_values_are(one, other, disputed):
    trace = said(GATE[0], "Dunno.")
    labels = [label(trace, expected=one), label(trace, "bob", expected=other)]
    assert (GATE[0] not in known([trace], labels)) is disputed
    assert bool(contradictions(labels, {trace.trace_id})) is disputed


def test_of_options_every_other_name_is_a_dispute_as_before():
    step = Step(observation=GATE[0], action=Action(name="open the old red door"))
    trace = said(GATE[0], "", attempts=(Attempt(steps=(step,)),))
    labels = [
        label(trace, expected="open the old red door"),
        label(trace, "bob", expected="Open the old red door"),
    ]
    assert known([trace], labels) == {}
    assert contradictions(labels)


def test_where_the_score_needs_nobody_each_gate_case_judges_and_once_used_teaches_nothing_that_nobody_said():
    traces = [said(GATE[0], "Dunno.", 0), said(TRAIN[0], "In Oslo.", 1)]
    assert known(traces, self_scoring=True)[GATE[0]] == ("gate", "environment", None, None)
    labelled = labelled_cases(traces, [], gate_share=0.4, self_scoring=True)
    used = [item.case_id for item in labelled if item.role == "gate"]
    learned = curate(labelled, CurateSettings(), released=used)
    assert [item.answer for item in learned.cases] == ["In Oslo."]
    assert learned.left_out == {"nobody said what is right": 1}


def test_a_test_of_free_answers_keeps_scores_and_no_names_to_be_confused():
    case = LabelledCase(
        case=Case(inputs={"request": GATE[0]}, expected="In Oslo."), trace_id="1" * 32, candidate_id="c",
        role="gate", propensity=1, source="human", answer="In Oslo.",
    )  # fmt: skip
    trial = Trial.begin("a", "b", NOW, GatePolicy(), [case], 10)
    ours, theirs = said(GATE[0], "Dunno.", 0), said(GATE[0], "In Oslo.", 1)
    trial.bet(trial.compare([case], {case.case_id: ours}, {case.case_id: theirs}, same))
    (play,) = trial.plays
    assert (play.champion, play.challenger, play.expected, play.chosen) == (0, 1, None, None)


def test_behaviour_knows_how_long_a_free_answer_is_and_not_its_words():
    one, other = as_behaviour(said(GATE[0], "In Oslo.")), as_behaviour(said(GATE[0], {"city": "Rome"}))
    assert (one.tool, other.tool) == ("respond", "respond")
    assert (one.numbers["answer_words"], other.numbers["answer_words"]) == (2, 2)


@pytest.mark.parametrize(("words", "alarm"), [(30, False), (0, True), (60, True)])
def test_answers_that_come_empty_or_twice_as_long_are_drift_and_other_words_are_not(words, alarm):
    draw = random.Random(0)

    def behaviour(words):
        text = " ".join(
            draw.choice("abcdef") for _ in range(max(round(draw.gauss(words, 3)), 0) if words else 0)
        )
        return as_behaviour(said(GATE[0], text))

    monitor = DriftMonitor([behaviour(30) for _ in range(300)], alpha=0.01, seed=0)
    for _ in range(6):
        state = monitor.update([behaviour(words) for _ in range(50)])
    assert state.alarm is alarm


@pytest.mark.parametrize(
    ("answer", "name"),
    [("refund", "refund"), ({"tool": "refund", "arguments": {}}, "refund"), ({"a": 1}, '{"a": 1}'), ([1], "[1]")],
)  # fmt: skip
def test_an_answer_s_name_is_its_tool_and_of_other_json_its_text(answer, name):
    assert answer_name(answer) == name


def test_of_a_conversation_only_what_the_user_said_is_compared():
    parts = [{"type": "text", "text": "And Rome?"}, {"type": "image_url", "image_url": {"url": "x"}}]
    said_so_far = [
        {"role": "system", "content": "You are a long, long prompt that all share."},
        {"role": "user", "content": "Where is Oslo?"},
        {"role": "assistant", "content": "In Norway."},
        {"role": "user", "content": parts},
    ]
    assert case_text(Case(inputs={"messages": said_so_far, "tools": []})) == "Where is Oslo?\nAnd Rome?"
