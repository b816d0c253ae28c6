"""Few-shot demos for the built-in agent, searched by DSPy with a small budget, under each of a list of instructions.

Decision: instructions come from a list, since a model of 135 M parameters cannot write them. DSPy scores on its own
share of the training cases; the result is only a candidate.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING

import dspy

from ratchet.agent.candidate import Candidate, Demo, Predictor
from ratchet.agent.errors import NothingToPropose
from ratchet.agent.kinds.program import CHOOSE, Program
from ratchet.agent.lm.lean_adapter import LeanAdapter
from ratchet.agent.optimize.budget import BudgetSpent, Stopped
from ratchet.agent.optimize.evidence import Evidence, Example
from ratchet.agent.optimize.examples import shuffled
from ratchet.agent.optimize.proposer import Proposal, Registered
from ratchet.agent.optimize.work import Work

if TYPE_CHECKING:
    from ratchet.agent.optimize.prompts.prompts import Prompts


def search(settings: "Prompts", parent: Registered, evidence: Evidence, work: Work) -> Proposal | None:
    """The parent with the prompt that led on cases no demo came from; only offered actions are learned."""
    training, validation = _split(settings, evidence.examples, work.seed)
    calls = 0
    with work.progress(f"{settings.name}: searching with DSPy", _calls(settings)) as done:

        def metric(example: dspy.Example, prediction: dspy.Prediction, trace: object = None) -> bool:
            nonlocal calls
            calls += 1
            try:
                done(1)
            except BudgetSpent as spent:  # DSPy would take it for a wrong answer, and go on
                raise Stopped(spent) from None
            return bool(example.choice == prediction.choice)

        found: list[tuple[Predictor, float]] = []
        try:
            for student in _students(settings, parent, work):
                found += _tried(settings, student, training, validation, metric)
        except Stopped as stopped:
            if not found or not isinstance(
                stopped.why, BudgetSpent
            ):  # else the best until then is the result
                raise stopped.why from None
    # of equally good programs one with demos: what a few cases cannot tell apart, the gate can
    predictor, score = max(found, key=lambda one: (one[1], len(one[0].demos) > 0))
    plain = next(rate for one, rate in found if one == _plain(parent.candidate))
    if score - plain < settings.lead:
        return None
    return Proposal(
        candidate=_with_prompt(parent.candidate, predictor),
        note=f"DSPy few-shot search: {len(predictor.demos)} demos, “{predictor.instructions}”",
        parameters={"accuracy_on_validation": score, "accuracy_without_demos": plain},
        cost={"lm_calls": float(calls)},
    )


def _calls(settings: "Prompts") -> int:
    """Program calls at most: each instruction without demos, with labelled ones, and searched."""
    return (len(settings.instructions) + 1) * (settings.programs + 3) * settings.validation


def _split(
    settings: "Prompts", examples: Sequence[Example], seed: int
) -> tuple[list[dspy.Example], list[dspy.Example]]:
    """Cases to draw demos from, and at most as many to score on; which is which follows from the seed."""
    offered = [example for example in examples if example.is_offered]
    if len(offered) < 2:
        raise NothingToPropose(
            f"the search needs at least 2 examples whose answer was offered, got {len(offered)}"
        )
    ordered = [_as_dspy(example) for example in shuffled(offered, seed)]
    n = min(settings.validation, len(ordered) // 2)
    return ordered[n:], ordered[:n]


def _students(settings: "Prompts", parent: Registered, work: Work) -> Iterator[Program]:
    """The parent with each instruction, without demos."""
    for text in dict.fromkeys([_plain(parent.candidate).instructions, *settings.instructions]):
        yield work.program(_with_prompt(parent.candidate, Predictor(instructions=text)), parent.files)


def _tried(
    settings: "Prompts",
    student: Program,
    training: list[dspy.Example],
    validation: list[dspy.Example],
    metric: Callable[..., bool],
) -> list[tuple[Predictor, float]]:
    """The prompts that DSPy tried for one instruction, each with its score in [0, 1] on the validation cases."""
    with dspy.context(lm=student.lm.dspy, adapter=LeanAdapter()), muted():
        search = dspy.BootstrapFewShotWithRandomSearch(
            metric=metric,
            max_bootstrapped_demos=settings.demos,
            max_labeled_demos=settings.demos,
            num_candidate_programs=settings.programs,
            num_threads=student.lm.at_once,
        )
        found = search.compile(student, trainset=training, valset=validation)
    # DSPy keeps only what the prompt needs
    cases = {example.request: example.case_id for example in training}
    instructions = student.candidate.predictors[CHOOSE].instructions
    return [
        (
            Predictor(instructions=instructions, demos=_demos(tried["program"], cases)),
            tried["score"] / 100,
        )
        for tried in found.candidate_programs
    ]


def _plain(parent: Candidate) -> Predictor:
    """The parent's prompt without demos: what others must lead."""
    return Predictor(instructions=parent.predictors[CHOOSE].instructions)


def _with_prompt(parent: Candidate, predictor: Predictor) -> Candidate:
    return parent.model_copy(update={"predictors": {**parent.predictors, CHOOSE: predictor}})


def _demos(program: Program, cases: Mapping[str, str]) -> tuple[Demo, ...]:
    return tuple(
        Demo(inputs=demo["request"], output=demo["choice"], case_id=cases[demo["request"]])
        for demo in program.choose.demos
    )


@contextmanager
def muted() -> Iterator[None]:
    """DSPy prints and logs as it searches; stdout belongs to `--json`, and our own bar shows progress."""
    dspy.disable_logging()
    try:
        with redirect_stdout(StringIO()):
            yield
    finally:
        dspy.enable_logging()


def _as_dspy(example: Example) -> dspy.Example:
    view = example.view
    return dspy.Example(
        request=view.observation.text,
        options=[option.model_dump() for option in view.observation.options],
        case_id=view.case_id,
        choice=example.answer,
    ).with_inputs("request", "options", "case_id")
