"""What people preferred, as pairs and thumbs."""

from datetime import UTC, datetime, timedelta

from ratchet.agent.case import Case
from ratchet.agent.environment import Action, respond
from ratchet.agent.trace import Attempt, Step, Trace
from ratchet.evaluation.data.labels import Label
from ratchet.evaluation.data.preferences import preferences_of, thumbs_of

AT = datetime(2026, 1, 5, tzinfo=UTC)


def _trace(n, action):
    return Trace(
        trace_id=f"{n:032x}", case=Case(inputs={"question": f"q{n}"}), candidate_id="me", started_at=AT, latency_s=1,
        attempts=(Attempt(steps=(Step(observation="o", action=action),)),),
    )  # fmt: skip


def _label(n, minute=0, **said):
    who = {"source": "human", "rater": "Ada"} | {k: said.pop(k) for k in ("source", "rater") if k in said}
    return Label(trace_id=f"{n:032x}", created_at=AT + timedelta(minutes=minute), **who, **said)


def test_a_pick_names_both_sides_a_correction_what_the_agent_said_and_a_judge_nothing():
    traces = [_trace(1, respond("A")), _trace(2, respond("B")), _trace(3, Action(name="find"))]
    labels = [
        _label(3, 3, expected={"tool": "cancel", "arguments": {}}),
        _label(1, 1, expected="A", over="C"),
        _label(2, 2, expected="better"),
        _label(2, 2, expected="B", rater="Bo"),
        _label(2, 2, expected="else", source="judge", rater="j"),
        _label(9, 1, expected="of no trace that may teach"),
    ]
    found = preferences_of(traces, labels)
    assert [(one.better, one.worse) for one in found] == [("A", "C"), ("better", "B"), ("cancel", "find")]
    assert found[0].inputs == {"question": "q1"}


def test_a_score_of_one_or_nought_is_a_thumb_unless_people_disagree():
    traces = [_trace(n, respond(str(n))) for n in range(5)]
    labels = [
        _label(0, score=1.0),
        _label(1, score=0.0),
        _label(2, score=0.5),
        _label(3, score=1.0),
        _label(3, score=0.0, rater="Bo"),
        _label(4, score=1.0, source="judge", rater="j"),
        _label(0, 5, score=1.0, rater="Bo"),
    ]
    assert [(one.answer, one.is_good) for one in thumbs_of(traces, labels)] == [("0", True), ("1", False)]
