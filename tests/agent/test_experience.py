"""What counts as won, and what an exemplar is credited with."""

from datetime import UTC, datetime

import pytest

from ratchet.agent.case import Case
from ratchet.agent.environment import Action, Outcome
from ratchet.agent.memory.steps import Credit, Experience, credited, tally, winning_steps
from ratchet.agent.trace import Attempt, RunError, Step, Trace

AT = datetime(2026, 1, 5, tzinfo=UTC)
LOOK = Step(observation="a locked door", thought="I need a key", action=Action(name="look"), result="a key")
OPEN = Step(actor="worker", observation="a key", action=Action(name="open", arguments={"with": "key"}))


def run(*attempts, **changes):
    fields = {
        "trace_id": "a" * 32,
        "case": Case(inputs={"goal": "leave the room"}),
        "candidate_id": "c",
        "started_at": AT,
        "latency_s": 0,
        "attempts": attempts,
    }
    return Trace(**(fields | changes))


def attempt(score, *recalled, steps=(LOOK, OPEN)):
    return Attempt(steps=steps, outcome=Outcome(score=score), recalled=recalled)


def test_the_steps_of_a_won_run_are_kept_with_goal_reasoning_and_place():
    first, second = winning_steps(run(attempt(1.0)))
    assert (first.goal, first.observation, first.thought, first.action) == (
        "leave the room", "a locked door", "I need a key", "look",
    )  # fmt: skip
    assert (first.index, second.index, first.result) == (0, 1, "a key")
    assert (first.role, second.role, second.arguments) == ("", "worker", {"with": "key"})
    assert (first.source, first.recorded_at) == ("own", AT)


@pytest.mark.parametrize(
    ("trace", "why"),
    [
        (run(attempt(0.0)), "lost"),
        (run(attempt(None)), "nobody knows"),
        (run(attempt(1.0), error=RunError(kind="infrastructure", message="gone")), "broke"),
        (run(), "nothing done"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_did_not_win_is_not_kept(trace, why):
    assert winning_steps(trace) == [], why


def test_of_a_run_with_retries_only_the_attempt_that_won_is_kept():
    kept = winning_steps(run(attempt(0.0), attempt(1.0, steps=(OPEN,))))
    assert [(step.action, step.attempt, step.index) for step in kept] == [("open", 1, 0)]


def test_a_person_outranks_the_environment_both_ways():
    assert winning_steps(run(attempt(1.0)), person=0.0) == []
    assert [step.source for step in winning_steps(run(attempt(0.0)), person=1.0)] == ["human", "human"]


def test_points_without_a_win_teach_nothing():
    assert winning_steps(run(attempt(0.8))) == []


def test_credit_counts_scored_attempts_that_were_shown_the_exemplar_and_those_that_won():
    runs = [run(attempt(0.0, "x", "y"), attempt(1.0, "x")), run(attempt(None, "x")), run(attempt(1.0))]
    assert tally(runs) == {"x": Credit(shown=2, led_to_success=1), "y": Credit(shown=1)}


def test_credit_is_drawn_towards_one_half_and_added_to_what_was_known():
    step = Experience(observation="o", action="a", trace_id="x", case_id="c", source="own", shown=1)
    assert step.credit == pytest.approx(1 / 3)
    (again,) = credited([step], {"x": Credit(shown=3, led_to_success=3)})
    assert (again.shown, again.led_to_success, again.credit) == (4, 3, pytest.approx(4 / 6))
    assert credited([step], {}) == [step]
