"""The experience of an agent with several prompts, as a share for each: what it was given and said in runs that won.

Decision: what the whole agent answers is no example for a part of it; what the part itself said when all of it came
out right is. A callable's LM calls are known from its traces, by the system text; a module's predictors from our own
plays of training cases, and of failed ones until they are won. Source: Zhao et al., SiriuS (2025).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from ratchet.agent.case import Case
from ratchet.agent.environment import RESPOND
from ratchet.agent.errors import NothingToPropose
from ratchet.agent.memory.steps import WON, Experience
from ratchet.agent.optimize.evidence import Evidence, Example
from ratchet.agent.optimize.examples import spread
from ratchet.agent.optimize.proposer import Registered
from ratchet.agent.optimize.trajectories import lost
from ratchet.agent.optimize.work import Work
from ratchet.agent.record import Json, as_text
from ratchet.agent.trace import Step, Trace

REPAIRS: Final = 16
"""Failed cases that a module of several prompts plays again."""


def shares_of(
    parent: Registered, evidence: Evidence, known: Sequence[Example], work: Work, played: int
) -> dict[str, list[Experience]]:
    """Each prompt's share, by its name.

    Args:
        parent: an agent of several prompts.
        evidence: its runs.
        known: examples whose right answer is known.
        work: how to play it.
        played: training cases that are played at most, where no run tells what each prompt said.

    Raises:
        NothingToPropose: no run that won tells.
    """
    prompts, is_module = parent.candidate.predictors, parent.candidate.kind == "module"
    approved = {e.trace_id: e.answer for e in known if e.source == "human"}
    won = [run for run in evidence.rollouts if _won(run) or approved.get(run.trace_id) == as_text(run.answer)]
    if is_module:
        told = [run for run in won if run.attempts and any(step.parts for step in run.attempts[-1].steps)]
        if len(told) < min(len(known), played):
            told += [run for run in _played(parent, known, work, played) if _won(run)]
        won = [*told, *_repaired(parent, evidence, work)]
    found = _by_prompt(won, prompts, parts=is_module)
    if not found:
        raise NothingToPropose(
            f"the agent has {len(prompts)} prompts, and of {len(won)} runs that won none tells "
            "which of them said what: trace its LM calls, such as with mlflow.openai.autolog()"
        )
    return found


def _won(one: Trace) -> bool:
    return one.error is None and one.score is not None and one.score >= WON


def _played(parent: Registered, known: Sequence[Example], work: Work, most: int) -> list[Trace]:
    """What the parent does at training cases, with what each of its prompts says."""
    cases = [Case(inputs=e.view.inputs, expected=e.call) for e in spread(known, most)]
    with work.progress("replay: playing what each prompt says", len(cases)) as done:
        return work.play(parent.candidate, parent.files, cases, progress=done, what_fits=True)


def _repaired(parent: Registered, evidence: Evidence, work: Work) -> Sequence[Trace]:
    """What the parent wins, with reflections, of the newest cases that nobody won."""
    chosen = lost([one for one in evidence.rollouts if not one.is_imported])[-REPAIRS:]
    if not chosen:
        return ()
    with work.progress("replay: playing what failed again", len(chosen)) as done:
        return work.repair(parent.candidate, parent.files, chosen, progress=done)


def _by_prompt(
    runs: Iterable[Trace], prompts: Mapping[str, Any], *, parts: bool
) -> dict[str, list[Experience]]:
    """What each prompt was given and said, by prompt; a prompt asked several times in a run keeps all of them."""
    found: dict[str, list[Experience]] = {}
    for one in runs:
        said: dict[str, list[tuple[str, Json]]] = {}
        for step in one.attempts[-1].steps if one.attempts else ():
            for actor, seen, content in _parts(step) if parts else _own(step):
                if actor in prompts:
                    said.setdefault(actor, []).append((seen, content))
        for actor, pairs in said.items():
            # what a trace of messages says before its last answer may be examples that it was shown
            kept = pairs if parts else pairs[-1:]
            found.setdefault(actor, []).extend(
                Experience(
                    observation=seen,
                    action=RESPOND,
                    arguments={"content": content},
                    trace_id=one.trace_id,
                    case_id=one.case.case_id,
                    source="own",
                    role=actor,
                    index=place if len(kept) > 1 else None,
                )
                for place, (seen, content) in enumerate(kept)
            )
    return found


def _parts(step: Step) -> Iterator[tuple[str, str, Json]]:
    for part in step.parts:
        yield part.actor, part.observation or step.observation, part.said


def _own(step: Step) -> Iterator[tuple[str, str, Json]]:
    if step.action.is_free and step.observation:
        yield step.actor, step.observation, step.action.said
