"""Prompt optimization by DSPy: few-shot demos and instructions, searched with a small budget.

DSPy proposes and scores on its own share of the training cases; the result is only a candidate. Instructions
come from a list: a model of 135 M parameters cannot write them (with an endpoint, list better ones).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO

import dspy
from pydantic import Field

from ratchet.agent.candidate import Candidate, Demo, Predictor
from ratchet.agent.errors import NothingToPropose
from ratchet.agent.kinds.program import CHOOSE, Program
from ratchet.agent.lm.lean_adapter import LeanAdapter
from ratchet.agent.optimize.evidence import Evidence, Example
from ratchet.agent.optimize.examples import shuffled
from ratchet.agent.optimize.proposer import Proposal, Registered, Work, built_in_only
from ratchet.agent.optimize.team import role_by_role
from ratchet.agent.record import Record

CHOICE_INSTRUCTIONS = (
    "Read the request, then name the one option whose purpose is to do exactly that.",
    "Which option does what the request asks for?",
)


class Prompts(Record):
    """Search few-shot demos and instructions with DSPy's `BootstrapFewShotWithRandomSearch`."""

    name: str = "prompts"
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

    @property
    def calls(self) -> int:
        """Program calls at most: each instruction without demos, with labelled ones, and searched."""
        return (len(self.instructions) + 1) * (self.programs + 3) * self.validation

    def propose(self, parent: Registered, evidence: Evidence, work: Work) -> Proposal | None:
        """The parent with the prompt that led on cases no demo came from; only offered actions are learned."""
        built_in_only(parent.candidate)
        if parent.candidate.topology.roles:
            return role_by_role(self, parent, evidence, work)
        training, validation = self.split(evidence.examples, work.seed)
        calls = 0
        with work.progress(f"{self.name}: searching with DSPy", self.calls) as done:

            def metric(example: dspy.Example, prediction: dspy.Prediction, trace: object = None) -> bool:
                nonlocal calls
                calls += 1
                done(1)
                return bool(example.choice == prediction.choice)

            found = [
                one
                for student in self.students(parent, work)
                for one in self.search(student, training, validation, metric)
            ]
        # of equally good programs one with demos: what a few cases cannot tell apart, the gate can
        predictor, score = max(found, key=lambda one: (one[1], len(one[0].demos) > 0))
        plain = next(rate for one, rate in found if one == _plain(parent.candidate))
        if score - plain < self.lead:
            return None
        return Proposal(
            candidate=_with_prompt(parent.candidate, predictor),
            note=f"DSPy few-shot search: {len(predictor.demos)} demos, “{predictor.instructions}”",
            parameters={"accuracy_on_validation": score, "accuracy_without_demos": plain},
            cost={"lm_calls": float(calls)},
        )

    def split(self, examples: Sequence[Example], seed: int) -> tuple[list[dspy.Example], list[dspy.Example]]:
        """Cases to draw demos from, and at most as many to score on; which is which follows from the seed."""
        offered = [example for example in examples if example.is_offered]
        if len(offered) < 2:
            raise NothingToPropose(
                f"the search needs at least 2 examples whose answer was offered, got {len(offered)}"
            )
        ordered = [_as_dspy(example) for example in shuffled(offered, seed)]
        n = min(self.validation, len(ordered) // 2)
        return ordered[n:], ordered[:n]

    def students(self, parent: Registered, work: Work) -> Iterator[Program]:
        """The parent with each instruction, without demos."""
        for text in dict.fromkeys([_plain(parent.candidate).instructions, *self.instructions]):
            yield work.program(_with_prompt(parent.candidate, Predictor(instructions=text)), parent.files)

    def search(
        self,
        student: Program,
        training: list[dspy.Example],
        validation: list[dspy.Example],
        metric: Callable[..., bool],
    ) -> list[tuple[Predictor, float]]:
        """The prompts that DSPy tried for one instruction, each with its score in [0, 1] on the validation cases."""
        with dspy.context(lm=student.lm.dspy, adapter=LeanAdapter()), _muted():
            search = dspy.BootstrapFewShotWithRandomSearch(
                metric=metric,
                max_bootstrapped_demos=self.demos,
                max_labeled_demos=self.demos,
                num_candidate_programs=self.programs,
                num_threads=1,
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
