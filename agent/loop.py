"""recall → act → observe → on failure reflect → retry, for many cases side by side.

One boundary attributes every failure: what the agent got wrong is a score, what broke is a trace with `error`,
what used up a limit is scored where it stood, with the limit's name in `stopped`.
Source of the retry with verbal reflections: Shinn et al., Reflexion (2023).
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TypeVar

from agent.arguments import fill_arguments
from agent.environment import Case, Environment, Observation, Outcome
from agent.errors import BadInput, LMFailure, named
from agent.experience import goal_of
from agent.limits import Limits
from agent.prices import price_usd
from agent.program import Decision, Program, View
from agent.record import content_hash
from agent.reflection import reflect
from agent.rollout import Rollout
from agent.trace import Attempt, RunError, Step, Stop, Trace
from agent.weights import NAME

T = TypeVar("T")

BATCH = 16
"""Cases that go side by side."""


def run(
    program: Program,
    cases: Sequence[Case],
    make_environment: Callable[[], Environment],
    *,
    at: Callable[[int], datetime],
    session: Callable[[int], str | None] = lambda _: None,
    with_arguments: bool = False,
    limits: Limits | None = None,
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
        limits: what one case may take; None = `Limits()`.
        progress: called with the number of cases finished since the last call.

    Raises:
        BadInput: a limit on money for a model whose price is not known.
    """
    limits = limits or Limits()
    if limits.cost_usd is not None and price_usd(program.candidate.base_model, 1, 1) is None:
        raise BadInput(
            f"limits.cost_usd is {limits.cost_usd} but the price of {program.candidate.base_model!r} is not known "
            "to LiteLLM: limit `tokens` instead, or register the price with litellm.register_model"
        )
    traces: list[Trace] = []
    for start in range(0, len(cases), BATCH):
        batch = [_begin(case, make_environment) for case in cases[start : start + BATCH]]
        active = [rollout for rollout in batch if rollout.error is None]
        while active:
            _act(program, active, limits, with_arguments=with_arguments)
            active = [r for r in active if not _finished(program, r, limits)]
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


def _act(program: Program, active: list[Rollout], limits: Limits, *, with_arguments: bool) -> None:
    """One decision and one step for every active rollout."""
    for rollout, decision in _decide(program, active, limits, with_arguments=with_arguments):
        _step(program, rollout, decision, limits)


def _decide(
    program: Program, active: list[Rollout], limits: Limits, *, with_arguments: bool
) -> list[tuple[Rollout, Decision]]:
    """The agent's decisions; a rollout whose LM fails gets its error and is left out."""
    views = [_view(program, rollout, limits) for rollout in active]
    if program.candidate.base_model == NAME:  # an endpoint is asked one by one anyway, and paid by the call
        began = time.perf_counter()
        with suppress(Exception):  # whose fault it was is found out one by one below
            decisions = _answers(program, views, with_arguments=with_arguments)
            for rollout in active:
                rollout.seconds += (time.perf_counter() - began) / len(active)
            return list(zip(active, decisions, strict=True))
    pairs = zip(active, views, strict=True)
    alone = ((r, _decide_alone(program, r, view, with_arguments=with_arguments)) for r, view in pairs)
    return [(rollout, decision) for rollout, decision in alone if decision is not None]


def _decide_alone(program: Program, rollout: Rollout, view: View, *, with_arguments: bool) -> Decision | None:
    began = time.perf_counter()
    try:
        return _answers(program, [view], with_arguments=with_arguments)[0]
    except LMFailure as error:
        rollout.error = RunError(kind="agent", message=str(error))
    except Exception as error:  # noqa: BLE001  any endpoint's error: recorded as this trace's error
        rollout.error = RunError(kind="infrastructure", message=named(error))
    finally:
        rollout.seconds += time.perf_counter() - began
    return None


def _answers(program: Program, views: list[View], *, with_arguments: bool) -> list[Decision]:
    decisions = program.decide(views)
    return fill_arguments(program, views, decisions) if with_arguments else decisions


def _view(program: Program, rollout: Rollout, limits: Limits) -> View:
    shown = program.candidate.topology.reflections
    return View(
        case_id=rollout.case.case_id,
        observation=rollout.observation,
        goal=goal_of(rollout.case),
        reflections=rollout.reflections[-shown:] if shown else (),
        tried=rollout.tried(limits.repeats),
        done=rollout.done,
    )


def _step(program: Program, rollout: Rollout, decision: Decision, limits: Limits) -> None:
    rollout.usage += decision.usage
    rollout.recalled += decision.recalled
    if rollout.is_circling(decision.action, limits.repeats):
        _end_attempt(program, rollout, "repeats")
        return
    rollout.count(decision.action)
    step = Step(
        actor=decision.actor,
        observation=rollout.observation.text,
        parts=decision.parts,
        action=decision.action,
        confidence=decision.confidence,
    )
    environment, began = rollout.environment, time.perf_counter()
    assert environment is not None, "a rollout without an environment has an error and does not act"
    done = False
    try:
        seen, done = environment.step(decision.action)
        rollout.observation = _checked(Observation, seen)
        step = step.model_copy(update={"result": rollout.observation.text})
    except Exception as error:  # noqa: BLE001  a user's environment may raise anything; it is recorded, not lost
        rollout.error = _broken("step", error)
    rollout.seconds += time.perf_counter() - began
    rollout.steps.append(step)
    if rollout.error is None and done:
        _end_attempt(program, rollout, None)
    elif rollout.error is None and len(rollout.steps) >= limits.steps:
        _end_attempt(program, rollout, "steps")


def _checked(kind: type[T], value: object) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"it must return {kind.__name__}, got {value!r:.80}")
    return value


def _broken(call: str, error: Exception) -> RunError:
    return RunError(kind="infrastructure", message=f"environment.{call}: {error!r}"[:500])


def _end_attempt(program: Program, rollout: Rollout, stopped: Stop | None) -> None:
    """Score the attempt where it stands, and reflect if it failed."""
    assert rollout.environment is not None, "it played the attempt"
    try:
        outcome = _checked(Outcome, rollout.environment.outcome())
    except Exception as error:  # noqa: BLE001  a user's environment may raise anything; it is recorded, not lost
        rollout.error = _broken("outcome", error)
        return
    reflection = None
    if outcome.score is not None and outcome.score < 1:
        reflection, usage = reflect(program, rollout.steps, outcome, stopped)
        rollout.usage += usage
    rollout.attempts.append(
        Attempt(
            steps=tuple(rollout.steps),
            outcome=outcome,
            reflection=reflection,
            recalled=tuple(dict.fromkeys(rollout.recalled)),
        )
    )
    rollout.stopped = stopped
    rollout.steps, rollout.recalled = [], []
    rollout.taken.clear()


def _finished(program: Program, rollout: Rollout, limits: Limits) -> bool:
    """Whether the case is over; begins the next attempt if it is not."""
    if rollout.error is not None:
        return True
    spent = limits.spent(rollout.usage, rollout.seconds)
    if rollout.steps:
        if spent is not None:
            _end_attempt(program, rollout, spent)
        return spent is not None
    last = rollout.attempts[-1]
    most = min(program.attempts, limits.attempts or program.attempts)
    if last.reflection is None or len(rollout.attempts) >= most:
        return True
    if spent is not None:
        rollout.stopped = spent
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
        stopped=rollout.stopped,
    )
