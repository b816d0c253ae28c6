"""What a free answer is worth, by the shipped scorers and by MLflow's."""

from functools import partial
from typing import get_args

import pytest
from mlflow.entities import Feedback
from mlflow.genai.judges import make_judge
from mlflow.genai.scorers import Correctness, RetrievalGroundedness, Safety, scorer

import ratchet
from ratchet.agent.case import Case
from ratchet.agent.environment import respond
from ratchet.agent.errors import BadInput
from ratchet.agent.kinds.chat_endpoint import ScorerName
from ratchet.agent.kinds.scoring import as_score, as_share
from ratchet.agent.project import Project
from ratchet.evaluation.data.scorers import numbers_in

FENCED = 'Here it is:\n```json\n{"city": "Oslo", "days": 3}\n```\nAnything else?'


def scored(name, expected, answer):
    return getattr(ratchet, name)(Case(inputs={"q": "?"}, expected=expected), answer)


@pytest.mark.parametrize(
    ("name", "expected", "answer", "score"),
    [
        ("exact", "Paris", " paris. ", 1),
        ("exact", "Paris", "Paris, Texas", 0),
        ("exact", ["Paris", "Lutetia"], "lutetia", 1),
        ("exact", 42, "42.0", 1),
        ("exact", True, "true", 1),
        ("exact", {"a": [1, "B"]}, '{"a": [1.0, "b"]}', 1),
        ("exact", ["a"], ["a", "b"], 0),
        ("contains", "heron", "That is for **Heron**.", 1),
        ("contains", "no", "I do not know", 0),
        ("contains", ["heron", "lynx"], "Heron first.", 0.5),
        ("contains", 1234.5, "It comes to 1.234,50 €.", 1),
        ("contains", "C++", "in C++", 1),
        ("numeric", "1234.5", "1,234.50 €", 1),
        ("numeric", 42, "3 items of 14: 42", 1),
        ("numeric", 42, "42 was the first guess, now 41", 0),
        ("numeric", -5, "minus? −5", 1),
        ("numeric", 42, "no idea", 0),
        ("json_fields", {"city": "oslo", "days": 3}, FENCED, 1),
        ("json_fields", '{"city": "Oslo", "days": 4}', FENCED, 0.5),
        ("json_fields", {"city": "Oslo"}, "in Oslo", 0),
        ("tool_call", {"tool": "refund", "arguments": {"order": 7}}, {"name": "refund", "arguments": {"order": "7"}}, 1),
        ("tool_call", {"tool": "refund", "arguments": {"order": 7}}, {"name": "refund", "arguments": {"order": 8}}, 0),
        ("tool_call", "refund", {"tool_calls": [{"function": {"name": "refund", "arguments": "{}"}}]}, 1),
        ("tool_call", "refund", "cancel", 0),
        ("tool_call", ["a", "b"], ["b", "a"], 0),
    ],
)  # fmt: skip
def test_how_an_answer_is_written_does_not_count_and_what_it_says_does(name, expected, answer, score):
    assert scored(name, expected, answer) == score


@pytest.mark.parametrize("name", get_args(ScorerName))
@pytest.mark.parametrize("answer", ["", "x", 1, None, [], {}, {"tool": None}])
def test_where_nothing_is_expected_a_scorer_cannot_tell_and_no_answer_breaks_one(name, answer):
    assert scored(name, None, answer) is None
    for expected in ("", "a b", 5, [], {}, {"a": 1}, {"tool": "t", "arguments": None}):
        assert scored(name, expected, answer) in (None, 0, 1)


def test_an_expectation_of_another_kind_says_nothing():
    assert scored("numeric", "soon", "5") is None
    assert scored("json_fields", "Oslo", FENCED) is None


def test_a_tolerance_is_the_user_s():
    about = partial(ratchet.numeric, tolerance=0.01)
    assert about(Case(inputs={}, expected=1000), "about 1,009") == 1
    assert about(Case(inputs={}, expected=1000), "about 1,011") == 0


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1,234.50 €", [1234.5]),
        ("1.234,50 and 1 234,50", [1234.5, 1234.5]),
        ("1'234'567", [1234567]),
        ("3,5 kg", [3.5]),
        ("1,234", [1234]),
        ("v2 of a1b", []),
        ("1e-3, .5, -7", [0.001, 0.5, -7]),
        ("12:30", [12, 30]),
        ("2026-11-25", [2026, 11, 25]),
        ("it costs $5.", [5]),
    ],
)
def test_numbers_are_found_however_they_are_written(text, numbers):
    assert numbers_in(text) == pytest.approx(numbers)


@scorer
def same(outputs, expectations):
    return outputs == expectations["expected_response"]


@scorer
def polite(outputs):
    return Feedback(value="yes" if "please" in outputs else "no", rationale="asked nicely")


@scorer
def several(inputs, outputs):
    return [Feedback(name="short", value=len(outputs) < 9), Feedback(name="polite", value=0.5)]


@scorer
def failing(outputs):
    return Feedback(error="no key")


@scorer
def whole(trace):
    return True


def outcome(score, answer, expected=None):
    world = Project(name="p", agent=lambda q: q, score=score).environment()
    world.reset(Case(inputs={"q": "?"}, expected=expected))
    world.step(respond(answer))
    return world.outcome().score


def test_mlflow_s_scorers_score_a_project():
    assert [outcome(polite, text) for text in ("yes please", "yes")] == [1, 0]
    assert outcome(several, "long, long answer") == 0.25
    assert [outcome(same, "a", expected) for expected in ("a", "b", None)] == [1, 0, None]
    judge = make_judge(name="like", instructions="is {{ outputs }} {{ expectations }}?", model="openai:/none")
    for needs_expected in (Correctness(), judge):
        assert outcome(needs_expected, "a") is None  # and no LM is asked


def test_a_scorer_that_reads_whole_traces_is_refused_at_once():
    for reads_traces in (whole, RetrievalGroundedness()):
        with pytest.raises(BadInput, match="needs a trace, and an answer is scored by inputs, outputs"):
            Project(name="p", agent=lambda q: q, score=reads_traces)
    assert Project(name="p", agent=lambda q: q, score=Safety())


def test_an_error_of_a_scorer_is_an_error_and_never_a_score():
    with pytest.raises(BadInput, match="scorer failing failed: no key"):
        outcome(failing, "a")
    with pytest.raises(ZeroDivisionError):
        outcome(lambda case, answer: 1 / 0, "a")


@pytest.mark.parametrize("bad", [5, -0.1, float("nan"), "good", "5", {}, b"x"])
def test_a_score_off_its_scale_is_one_clear_error(bad):
    with pytest.raises(BadInput, match=r"scorer s gave .*; scale it|give a number in"):
        as_share(bad, "s")


def test_what_cannot_be_called_is_no_scorer():
    for bad in ("contains", Safety):
        with pytest.raises(BadInput, match="cannot be called with a case and its answer"):
            as_score(bad, "p")
