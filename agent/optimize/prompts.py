"""Prompt optimization by DSPy: few-shot demos and instructions, searched with a small budget.

DSPy proposes and scores on its own share of the training cases; the result is only a candidate. Instructions
come from a list: a model of 135 M parameters cannot write them (with an endpoint, list better ones).
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import dspy
from pydantic import Field

from ratchet.agent.candidate import Candidate, Demo, Origin, Predictor
from ratchet.agent.errors import BadInput
from ratchet.agent.kinds.program import CHOOSE, Program
from ratchet.agent.lm.lean_adapter import LeanAdapter
from ratchet.agent.memory.snapshot import Memory
from ratchet.agent.optimize.proposer import Example, Proposal
from ratchet.agent.record import Record, content_hash

CHOICE_INSTRUCTIONS = (
    "Read the request, then name the one option whose purpose is to do exactly that.",
    "Which option does what the request asks for?",
)


class PromptSettings(Record):
    """The search's budget."""

    demos: int = Field(default=2, ge=1, le=8)
    """Worked examples in the prompt."""
    programs: int = Field(default=2, ge=1, le=20)
    """Sets of random demos to try, for each instruction."""
    validation: int = Field(default=16, ge=1)
    """Training cases on which every program is scored."""
    lead: float = Field(default=0.1, ge=0, le=1)
    """Smallest lead in accuracy over the parent's prompt without demos; with less nothing is proposed, because a
    test of what luck found costs the project error budget and labels."""
    instructions: tuple[str, ...] = CHOICE_INSTRUCTIONS
    seed: int = 0

    @property
    def calls(self) -> int:
        """Program calls at most: each instruction without demos, with labelled ones, and searched."""
        return (len(self.instructions) + 1) * (self.programs + 3) * self.validation


def propose_prompt(
    parent: Candidate,
    examples: Sequence[Example],
    settings: PromptSettings,
    *,
    files: Mapping[str, Path] | None = None,
    endpoint: dict[str, Any] | None = None,
    seen: Sequence[str] = (),
    data_digest: str | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Proposal:
    """Search instructions and demos with DSPy's `BootstrapFewShotWithRandomSearch`.

    Args:
        parent: what is changed; only offered actions are learned.
        examples: split into demos to draw from and cases to score on.
        settings: the budget.
        files: the parent's `memory` and `adapter`.
        endpoint: where the LM is.
        seen: cases that shaped the parent.
        data_digest: digest of the dataset that the examples come from.
        progress: called once per program call.

    Raises:
        BadInput: fewer than two examples whose answer was offered.
    """
    began = time.perf_counter()
    training, validation = _split([e for e in examples if e.is_offered], settings)
    calls = 0

    def metric(example: dspy.Example, prediction: dspy.Prediction, trace: object = None) -> bool:
        nonlocal calls
        calls += 1
        progress(1)
        return bool(example.choice == prediction.choice)

    found = [
        one
        for student in _students(parent, files or {}, endpoint, settings)
        for one in _search(student, training, validation, metric, settings)
    ]
    # of equally good programs one with demos: what a few cases cannot tell apart, the gate can
    predictor, score = max(found, key=lambda one: (one[1], len(one[0].demos) > 0))
    plain = next(rate for one, rate in found if one == _plain(parent))
    if score - plain < settings.lead:
        predictor = parent.predictors[CHOOSE]
    candidate = parent.model_copy(
        update={
            "predictors": {**parent.predictors, CHOOSE: predictor},
            "parent": parent.candidate_id,
            "origin": Origin(
                proposer="prompt",
                parameters={
                    **settings.model_dump(),
                    "accuracy_on_validation": score,
                    "accuracy_without_demos": plain,
                },
                data_digest=data_digest,
                note=f"DSPy few-shot search: {len(predictor.demos)} demos, “{predictor.instructions}”",
            ),
        }
    )
    return Proposal(
        candidate=candidate,
        files=dict(files or {}),
        seen_case_ids=tuple(sorted({*seen, *(e.view.case_id for e in examples)})),
        cost={"seconds": time.perf_counter() - began, "lm_calls": float(calls)},
    )


def _split(
    offered: Sequence[Example], settings: PromptSettings
) -> tuple[list[dspy.Example], list[dspy.Example]]:
    """Cases to draw demos from, and at most as many to score on; which is which follows from the seed."""
    if len(offered) < 2:
        raise BadInput(
            f"the prompt search needs at least 2 examples whose answer was offered, got {len(offered)}: "
            "label more traces"
        )
    ordered = [
        _as_dspy(e) for e in sorted(offered, key=lambda e: content_hash([settings.seed, e.view.case_id]))
    ]
    n = min(settings.validation, len(ordered) // 2)
    return ordered[n:], ordered[:n]


def _students(
    parent: Candidate, files: Mapping[str, Path], endpoint: dict[str, Any] | None, settings: PromptSettings
) -> Iterator[Program]:
    """The parent with each instruction, without demos."""
    memory = Memory.load(files["memory"]) if "memory" in files else None
    for text in dict.fromkeys([_plain(parent).instructions, *settings.instructions]):
        predictors = {**parent.predictors, CHOOSE: Predictor(instructions=text)}
        changed = parent.model_copy(update={"predictors": predictors})
        yield Program(changed, memory=memory, adapter=files.get("adapter"), endpoint=endpoint)


def _plain(parent: Candidate) -> Predictor:
    """The parent's prompt without demos: what others must lead."""
    return Predictor(instructions=parent.predictors[CHOOSE].instructions)


def _search(
    student: Program,
    training: list[dspy.Example],
    validation: list[dspy.Example],
    metric: Callable[..., bool],
    settings: PromptSettings,
) -> list[tuple[Predictor, float]]:
    """The prompts that DSPy tried for one instruction, each with its score in [0, 1] on the validation cases."""
    with dspy.context(lm=student.lm.dspy, adapter=LeanAdapter()), _muted():
        search = dspy.BootstrapFewShotWithRandomSearch(
            metric=metric,
            max_bootstrapped_demos=settings.demos,
            max_labeled_demos=settings.demos,
            num_candidate_programs=settings.programs,
            num_threads=1,
        )
        found = search.compile(student, trainset=training, valset=validation)
    # DSPy keeps only what the prompt needs
    cases = {example.request: example.case_id for example in training}
    instructions = student.candidate.predictors[CHOOSE].instructions
    return [
        (Predictor(instructions=instructions, demos=_demos(tried["program"], cases)), tried["score"] / 100)
        for tried in found.candidate_programs
    ]


def _demos(program: Program, cases: Mapping[str, str]) -> tuple[Demo, ...]:
    return tuple(
        Demo(inputs=demo["request"], output=demo["choice"], case_id=cases[demo["request"]])
        for demo in program.choose.demos
    )


@contextmanager
def _muted() -> Iterator[None]:
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
