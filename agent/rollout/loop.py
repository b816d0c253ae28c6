"""recall → act → observe → on failure reflect → retry, for many cases side by side.

One boundary attributes every failure: what the agent got wrong is a score, what broke is a trace with `error`,
what used up a limit is scored where it stood, with the limit's name in `stopped`.
Source of the retry with verbal reflections: Shinn et al., Reflexion (2023).
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import TypeVar

from ratchet.agent.case import Case
from ratchet.agent.environment import Environment, Observation, Outcome
from ratchet.agent.errors import BadInput, LMFailure, OutOfTime, RatchetError, named
from ratchet.agent.kinds.agent import Agent
from ratchet.agent.kinds.arguments import fill_arguments
from ratchet.agent.kinds.program import Decision, Program, View
from ratchet.agent.limits import Limits
from ratchet.agent.lm.patience import given_up_after
from ratchet.agent.lm.side_by_side import side_by_side
from ratchet.agent.memory.steps import goal_of
from ratchet.agent.record import content_hash
from ratchet.agent.rollout.reflection import reflect
from ratchet.agent.rollout.rollout import Rollout
from ratchet.agent.trace import Attempt, RunError, Step, Stop, Trace, Usage

T = TypeVar("T")
Decided = tuple[Rollout, View, Decision]

BATCH = 48
"""Cases that go side by side at least."""
WAVES = 4
"""Times as many as the LM takes calls at once, so that a slow answer does not keep all the others waiting."""


def run(
    agent: Agent,
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
        agent: who plays, of whatever kind.
        cases: what it faces; `expected` reaches the environment alone and stands in no trace.
        make_environment: a fresh environment per case.
        at: when the case with this index came (UTC).
        session: conversation of the case with this index.
        with_arguments: also fill the arguments of the built-in agent's final action (costs a generation).
        limits: what one case may take; None = `Limits()`.
        progress: called with the number of cases finished since the last call.

    Raises:
        BadInput: the LM cannot be loaded, or a limit on money for a model whose price is not known.
    """
    limits = limits or Limits()
    if agent.lm:
        agent.lm.load()
    price = agent.lm and agent.lm.price_usd(1, 1)  # loads what asks an endpoint, which is no case's time
    if limits.cost_usd is not None and price is None:
        raise BadInput(
            f"limits.cost_usd is {limits.cost_usd} but the price of {agent.candidate.base_model!r} is not known "
            "to LiteLLM: limit `tokens` instead, or register the price with litellm.register_model"
        )
    traces: list[Trace] = []
    size = max(BATCH, WAVES * agent.at_once)
    for start in range(0, len(cases), size):
        batch = [_begin(case, make_environment) for case in cases[start : start + size]]
        active = [rollout for rollout in batch if rollout.error is None]
        while active:
            _act(agent, active, limits, with_arguments=with_arguments)
            _reflect(agent, [rollout for rollout in active if rollout.outcome is not None], limits)
            active = [r for r in active if not _finished(agent, r, limits)]
        for index, rollout in enumerate(batch, start):
            traces.append(_trace(agent, rollout, at(index), session(index)))
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


def _act(agent: Agent, active: list[Rollout], limits: Limits, *, with_arguments: bool) -> None:
    """One decision and one step for every active rollout; the LM is asked at once, the environments in turn."""

    def decide(rollout: Rollout) -> tuple[Rollout, View, Decision | None]:
        view = _view(agent, rollout, limits)
        with given_up_after(view.seconds_left):
            return rollout, view, _attempted(rollout, lambda: agent.act(view))

    asked = side_by_side(decide, active, at_once=agent.at_once, length=_length)
    decided = [(rollout, view, decision) for rollout, view, decision in asked if decision is not None]
    if with_arguments and isinstance(agent, Program):
        decided = _with_arguments(agent, decided)
    for rollout, _, decision in decided:
        _step(rollout, decision, limits)


def _length(rollout: Rollout) -> int:
    """Characters that the agent reads, about."""
    options = rollout.observation.options
    return len(rollout.observation.text) + sum(len(o.name) + len(o.description) for o in options)


def _attempted(rollout: Rollout, ask: Callable[[], T]) -> T | None:
    """What is asked of the LM; None where it fails, and whose fault that is becomes the rollout's error."""
    began = time.perf_counter()
    try:
        return ask()
    except LMFailure as error:
        rollout.error = RunError(kind="agent", message=str(error))
        rollout.stopped = "seconds" if isinstance(error, OutOfTime) else None
    except Exception as error:  # noqa: BLE001  any endpoint's error: recorded as this trace's error
        rollout.error = RunError(kind="infrastructure", message=named(error))
    finally:
        rollout.seconds += time.perf_counter() - began
    return None


def _with_arguments(program: Program, decided: list[Decided]) -> list[Decided]:
    """The decisions with arguments, written in one batch; one by one where that breaks: whose fault is it?"""
    views, decisions = [view for _, view, _ in decided], [decision for *_, decision in decided]
    began = time.perf_counter()
    with suppress(Exception):
        filled = fill_arguments(program, views, decisions)
        for rollout, _, _ in decided:
            rollout.seconds += (time.perf_counter() - began) / len(decided)
        return [(r, view, one) for (r, view, _), one in zip(decided, filled, strict=True)]
    alone = []
    for rollout, view, decision in decided:
        fill = partial(fill_arguments, program, [view], [decision])
        alone += [(rollout, view, one) for one in _attempted(rollout, fill) or ()]
    return alone


def _view(agent: Agent, rollout: Rollout, limits: Limits) -> View:
    shown = agent.candidate.topology.reflections
    return View(
        case_id=rollout.case.case_id,
        observation=rollout.observation,
        inputs=rollout.case.inputs,
        goal=goal_of(rollout.case),
        reflections=rollout.reflections[-shown:] if shown else (),
        tried=rollout.tried(limits.repeats),
        done=rollout.done,
        seconds_left=None if limits.seconds is None else max(0.0, limits.seconds - rollout.seconds),
    )


def _step(rollout: Rollout, decision: Decision, limits: Limits) -> None:
    rollout.usage += decision.usage
    rollout.recalled += decision.recalled
    if rollout.is_circling(decision.action, limits.repeats):
        _score(rollout, "repeats")
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
        _score(rollout, None)
    elif rollout.error is None and len(rollout.steps) >= limits.steps:
        _score(rollout, "steps")


def _checked(kind: type[T], value: object) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"it must return {kind.__name__}, got {value!r:.80}")
    return value


def _broken(call: str, error: Exception) -> RunError:
    said = str(error) if isinstance(error, RatchetError) else repr(error)
    return RunError(kind="infrastructure", message=f"environment.{call}: {said}"[:500])


def _score(rollout: Rollout, stopped: Stop | None) -> None:
    """The attempt is over, and scored where it stands."""
    assert rollout.environment is not None, "it played the attempt"
    try:
        rollout.outcome = _checked(Outcome, rollout.environment.outcome())
    except Exception as error:  # noqa: BLE001  a user's environment may raise anything; it is recorded, not lost
        rollout.error = _broken("outcome", error)
        return
    rollout.stopped = stopped


def _reflect(agent: Agent, ended: list[Rollout], limits: Limits) -> None:
    """Close the attempts that are over; what is to be learned from those that failed is asked at once."""

    def reflection(rollout: Rollout) -> tuple[str | None, Usage]:
        assert rollout.outcome is not None, "its attempt is over"
        if rollout.outcome.score is None or rollout.outcome.score == 1:
            return None, Usage()
        goes_on = len(rollout.attempts) + 1 < _most(agent, limits)
        left = None if limits.seconds is None else max(0.0, limits.seconds - rollout.seconds)
        with given_up_after(left):
            return reflect(agent, rollout.steps, rollout.outcome, rollout.stopped, is_read=goes_on)

    said = side_by_side(reflection, ended, at_once=agent.at_once)
    for rollout, (text, usage) in zip(ended, said, strict=True):
        rollout.usage += usage
        rollout.close(text)


def _most(agent: Agent, limits: Limits) -> int:
    return min(agent.attempts, limits.attempts or agent.attempts)


def _finished(agent: Agent, rollout: Rollout, limits: Limits) -> bool:
    """Whether the case is over; begins the next attempt if it is not."""
    if rollout.error is not None:
        return True
    spent = limits.spent(rollout.usage, rollout.seconds)
    if rollout.steps:
        if spent is not None:
            _score(rollout, spent)
            _reflect(agent, [rollout], limits)
        return spent is not None
    last = rollout.attempts[-1]
    if last.reflection is None or len(rollout.attempts) >= _most(agent, limits):
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


def _trace(agent: Agent, rollout: Rollout, at: datetime, session: str | None) -> Trace:
    candidate = agent.candidate
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
