"""recall → act → observe → on failure reflect → retry, for many cases side by side.

One boundary attributes every failure: what the agent got wrong is a score, what broke is a trace with `error`.
Source of the retry with verbal reflections: Shinn et al., Reflexion (2023).
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from agent.arguments import fill_arguments
from agent.environment import Case, Environment, Observation, Outcome
from agent.errors import LMFailure
from agent.program import Decision, Program, View
from agent.record import content_hash
from agent.trace import Attempt, RunError, Step, Trace, Usage
from agent.weights import NAME

T = TypeVar("T")

MAX_STEPS = 30
"""Steps of one attempt before it is cut."""
BATCH = 16
"""Cases that go side by side."""


@dataclass
class Rollout:
    """One case on its way."""

    case: Case
    environment: Environment | None = None
    """None = it could not be made; then `error` says why."""
    observation: Observation = field(default_factory=lambda: Observation(text=""))
    steps: list[Step] = field(default_factory=list)
    recalled: list[str] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    error: RunError | None = None
    seconds: float = 0.0

    @property
    def tried(self) -> tuple[str, ...]:
        """Actions that, after the same steps as those taken so far, ended a failed attempt."""
        so_far = [step.action for step in self.steps]
        return tuple(
            attempt.steps[-1].action.name
            for attempt in self.attempts
            if attempt.steps and [step.action for step in attempt.steps[:-1]] == so_far
        )

    @property
    def reflections(self) -> tuple[str, ...]:
        """What was concluded from failed attempts, oldest first."""
        return tuple(attempt.reflection for attempt in self.attempts if attempt.reflection)


def run(
    program: Program,
    cases: Sequence[Case],
    make_environment: Callable[[], Environment],
    *,
    at: Callable[[int], datetime],
    session: Callable[[int], str | None] = lambda _: None,
    with_arguments: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Trace]:
    """Play every case to its end; one trace each, in order, whatever happens on the way.

    Args:
        program: the agent.
        cases: what it faces; `expected` reaches the environment alone and stands in no trace.
        make_environment: a fresh environment per case.
        at: when the case with this index came (UTC).
        session: conversation of the case with this index.
        with_arguments: also fill the arguments of the final action (costs a generation).
        progress: called with the number of cases finished since the last call.
    """
    traces: list[Trace] = []
    for start in range(0, len(cases), BATCH):
        batch = [_begin(case, make_environment) for case in cases[start : start + BATCH]]
        active = [rollout for rollout in batch if rollout.error is None]
        while active:
            _act(program, active, with_arguments=with_arguments)
            active = [r for r in active if not _finished(program, r)]
        for index, rollout in enumerate(batch, start):
            traces.append(_trace(program, rollout, at(index), session(index)))
        progress(len(batch))
    return traces


def _begin(case: Case, make_environment: Callable[[], Environment]) -> Rollout:
    rollout = Rollout(case)
    try:
        rollout.environment = make_environment()
        rollout.observation = _checked(Observation, rollout.environment.reset(case))
    except Exception as error:  # noqa: BLE001  a user's environment may raise anything; it is recorded, not lost
        rollout.error = _broken("reset", error)
    return rollout


def _act(program: Program, active: list[Rollout], *, with_arguments: bool) -> None:
    """One decision and one step for every active rollout."""
    for rollout, decision in _decide(program, active, with_arguments=with_arguments):
        _step(rollout, decision)


def _decide(
    program: Program, active: list[Rollout], *, with_arguments: bool
) -> list[tuple[Rollout, Decision]]:
    """The agent's decisions; a rollout whose LM fails gets its error and is left out."""
    if program.candidate.base_model == NAME:  # an endpoint is asked one by one anyway, and paid by the call
        began = time.perf_counter()
        with suppress(Exception):  # whose fault it was is found out one by one below
            decisions = _answers(program, active, with_arguments=with_arguments)
            for rollout in active:
                rollout.seconds += (time.perf_counter() - began) / len(active)
            return list(zip(active, decisions, strict=True))
    alone = ((r, _decide_alone(program, r, with_arguments=with_arguments)) for r in active)
    return [(rollout, decision) for rollout, decision in alone if decision is not None]


def _decide_alone(program: Program, rollout: Rollout, *, with_arguments: bool) -> Decision | None:
    began = time.perf_counter()
    try:
        return _answers(program, [rollout], with_arguments=with_arguments)[0]
    except LMFailure as error:
        rollout.error = RunError(kind="agent", message=str(error))
    except Exception as error:  # noqa: BLE001  any endpoint's error: recorded as this trace's error
        rollout.error = RunError(kind="infrastructure", message=f"{type(error).__name__}: {error}"[:500])
    finally:
        rollout.seconds += time.perf_counter() - began
    return None


def _answers(program: Program, rollouts: list[Rollout], *, with_arguments: bool) -> list[Decision]:
    views = [_view(rollout) for rollout in rollouts]
    decisions = program.decide(views)
    return fill_arguments(program, views, decisions) if with_arguments else decisions


def _view(rollout: Rollout) -> View:
    return View(
        case_id=rollout.case.case_id,
        observation=rollout.observation,
        reflections=rollout.reflections,
        tried=rollout.tried,
    )


def _step(rollout: Rollout, decision: Decision) -> None:
    rollout.usage += decision.usage
    rollout.recalled += decision.recalled
    step = Step(
        actor=decision.actor,
        observation=rollout.observation.text,
        parts=decision.parts,
        action=decision.action,
        confidence=decision.confidence,
    )
    environment, call = rollout.environment, "step"
    assert environment is not None, "a rollout without an environment has an error and does not act"
    try:
        seen, done = environment.step(decision.action)
        rollout.observation = _checked(Observation, seen)
        step = step.model_copy(update={"result": rollout.observation.text})
        call = "outcome"
        over = done or len(rollout.steps) + 1 >= MAX_STEPS
        outcome = _checked(Outcome, environment.outcome()) if over else None
    except Exception as error:  # noqa: BLE001  a user's environment may raise anything; it is recorded, not lost
        rollout.error, outcome = _broken(call, error), None
    rollout.steps.append(step)
    if outcome is not None:
        _end_attempt(rollout, outcome)


def _checked(kind: type[T], value: object) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"it must return {kind.__name__}, got {value!r:.80}")
    return value


def _broken(call: str, error: Exception) -> RunError:
    return RunError(kind="infrastructure", message=f"environment.{call}: {error!r}"[:500])


def _end_attempt(rollout: Rollout, outcome: Outcome) -> None:
    failed = outcome.score is not None and outcome.score < 1
    rollout.attempts.append(
        Attempt(
            steps=tuple(rollout.steps),
            outcome=outcome,
            reflection=reflect(rollout.steps[-1], outcome) if failed else None,
            recalled=tuple(dict.fromkeys(rollout.recalled)),
        )
    )
    rollout.steps, rollout.recalled = [], []


def reflect(step: Step, outcome: Outcome) -> str:
    """What to remember of a failure.

    A template: a model of 135 M parameters cannot write useful reflections, it can read them.
    """
    return f"{step.action.name} was wrong here. {outcome.feedback}".strip()


def _finished(program: Program, rollout: Rollout) -> bool:
    """Whether the case is over; begins the next attempt if it is not."""
    if rollout.error is not None:
        return True
    if rollout.steps:
        return False
    last = rollout.attempts[-1]
    if last.reflection is None or len(rollout.attempts) >= program.attempts:
        return True
    assert rollout.environment is not None, "it played the attempt before"
    try:
        rollout.observation = _checked(Observation, rollout.environment.reset(rollout.case))
    except Exception as error:  # noqa: BLE001  a user's environment may raise anything; it is recorded, not lost
        rollout.error = _broken("reset", error)
        return True
    return False


def _trace(program: Program, rollout: Rollout, at: datetime, session: str | None) -> Trace:
    candidate = program.candidate
    origin = [rollout.case.case_id, candidate.candidate_id, at.isoformat(), session]
    attempts = list(rollout.attempts)
    if rollout.steps:  # broken in the middle: what was done so far is part of the history
        attempts.append(Attempt(steps=tuple(rollout.steps), recalled=tuple(rollout.recalled)))
    return Trace(
        trace_id=content_hash(origin, length=32),
        case=rollout.case.model_copy(update={"expected": None}),
        candidate_id=candidate.candidate_id,
        memory_id=candidate.memory,
        session_id=session,
        started_at=at,
        latency_s=rollout.seconds,
        usage=rollout.usage,
        attempts=tuple(attempts),
        error=rollout.error,
    )
