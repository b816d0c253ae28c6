"""DSPy's own optimizers for a `dspy.Module`: GEPA, MIPROv2, SIMBA and BootstrapFewShotWithRandomSearch, by name.

Decision: they run as they are, with their own parameters, on a copy of the module; what they need from a project (LMs
that count, a metric, cases in two shares) is given here, and what they come to is read back as a candidate. That
candidate is played once more as it will be served; where it says what the optimizer's program says, no call is paid.
When the budget is spent, what was best until then is the result.

Sources: Agrawal et al., GEPA (2025); Opsahl-Ong et al., MIPRO (2024); Khattab et al., DSPy (2023).
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import dspy

from ratchet.agent.candidate import Candidate
from ratchet.agent.case import Case
from ratchet.agent.environment import Outcome
from ratchet.agent.errors import BadInput, LMFailure, NothingToPropose, said
from ratchet.agent.kinds.module import ModuleAgent
from ratchet.agent.memory.steps import WON
from ratchet.agent.optimize.budget import BudgetSpent, Stopped
from ratchet.agent.optimize.evidence import NOBODY, Evidence, Example
from ratchet.agent.optimize.examples import shuffled
from ratchet.agent.optimize.prompts.cases import playable
from ratchet.agent.optimize.prompts.few_shot import muted
from ratchet.agent.optimize.prompts.metered_lm import LMCalls
from ratchet.agent.optimize.prompts.played_module import CASE, ModulePlays
from ratchet.agent.optimize.proposer import Proposal, Registered
from ratchet.agent.optimize.work import Work
from ratchet.agent.record import Json, as_text

if TYPE_CHECKING:
    from ratchet.agent.optimize.prompts.prompts import Prompts

CLASSES: Final[Mapping[str, str]] = {
    "gepa": "GEPA",
    "miprov2": "MIPROv2",
    "simba": "SIMBA",
    "bootstrap": "BootstrapFewShotWithRandomSearch",
}
_OURS: Final = frozenset(
    (
        *("self", "metric", "student", "trainset", "valset", "teacher", "teacher_settings", "seed"),
        *("prompt_model", "task_model", "reflection_lm", "instruction_proposer", "code_proposer"),
        *("num_threads", "max_errors", "log_dir", "track_stats", "track_best_outputs", "verbose"),
        *("use_wandb", "wandb_api_key", "wandb_init_kwargs", "use_mlflow", "gepa_kwargs"),
        *("provide_traceback", "warn_on_score_mismatch", "requires_permission_to_run"),
    )
)
"""What a project, its budget and its LMs decide, and what would send or write elsewhere."""
FEW: Final = 50
"""Cases up to which MIPROv2 scores each program on all of them, as its own `auto` does."""


class Shares(NamedTuple):
    """Cases in two shares that hold none in common; neither holds one of the gate's."""

    training: tuple[str, ...]
    validation: tuple[str, ...]


def search(settings: "Prompts", parent: Registered, evidence: Evidence, work: Work) -> Proposal | None:
    """The parent with what the optimizer found, where it leads on the cases that no prompt was made from.

    Raises:
        BadInput: a parameter that the optimizer does not take, or the module has no LM.
        NothingToPropose: fewer than 2 cases whose right answer is known.
        LMFailure: no text that was written held an instruction, or the module fails everywhere.
    """
    parameters = checked_parameters(settings.optimizer, settings.parameters)
    agent = work.agent(parent.candidate, parent.files)
    assert isinstance(agent, ModuleAgent), "a module's agent"
    usable = [e for e in playable(evidence) if e.call is not None or e.source == NOBODY]
    if settings.optimizer != "gepa":  # its examples become demos, which need an answer
        usable = [e for e in usable if e.source != NOBODY]
    known = {e.view.case_id: e for e in usable}
    shares = _shares(list(known.values()), settings.validation, work.seed)
    cases = [Case(inputs=e.view.inputs or {}, expected=e.call) for e in known.values()]
    with work.progress(f"{settings.name}: {settings.optimizer}", work.meter.budget.calls or 0) as done:
        calls = LMCalls(work.meter, work.calls, progress=done)
        plays = ModulePlays(agent, cases, work.scored or work.environment, calls, seconds=work.limits.seconds)
        run = _Run(settings, parameters, parent.candidate, work, plays, shares)
        with dspy.context(max_errors=10**9, lm=run.lm), muted():
            return run.proposal()


def checked_parameters(optimizer: str, given: Mapping[str, Json]) -> dict[str, Json]:
    """What a person set of the optimizer's own parameters.

    Raises:
        BadInput: it takes no such one; names those that it takes.
    """
    kind = getattr(dspy, CLASSES[optimizer])
    takes = sorted({*_taken(kind.__init__), *_taken(kind.compile)} - _OURS)
    if unknown := [name for name in given if name not in takes]:
        raise BadInput(
            f"optimizer {optimizer!r} takes no parameter {unknown[0]!r}: it takes {', '.join(takes)}; "
            "LMs, cases, seed and threads follow from the project"
        )
    return dict(given)


def _taken(function: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(function).parameters)


def _shares(known: Sequence[Example], most: int, seed: int) -> Shares:
    if len(known) < 2:
        raise NothingToPropose(f"an optimizer needs at least 2 cases with a right answer, got {len(known)}")
    ids = [example.view.case_id for example in shuffled(known, seed)]
    n = min(most, len(ids) // 2)
    return Shares(training=tuple(ids[n:]), validation=tuple(ids[:n]))


class _Run:
    """One run of one optimizer."""

    def __init__(
        self,
        settings: "Prompts",
        parameters: Mapping[str, Json],
        parent: Candidate,
        work: Work,
        plays: ModulePlays,
        shares: Shares,
    ) -> None:
        self.settings, self.parameters, self.parent = settings, dict(parameters), parent
        self.work, self.plays, self.shares, self.calls = work, plays, shares, plays.calls
        self.student = plays.program(parent)
        lm = plays.agent.lm.dspy if plays.agent.lm is not None else dspy.settings.lm
        lms = [lm, *(predictor.lm for predictor in self.student.predictors())]
        first = next((one for one in lms if isinstance(one, dspy.BaseLM)), None)
        if first is None:
            raise BadInput("the module has no LM: call dspy.configure(lm=…) in project.py")
        self.lm = self.calls.metered(lm if isinstance(lm, dspy.BaseLM) else first)
        writer = work.writer(parent)
        self.writer = self.calls.metered(writer.dspy if writer is not None else first, writes=True)
        self.before = plays.key_of(self.student)

    def proposal(self) -> Proposal | None:
        """What it came to."""
        if (found := self._found()) is None:
            return None
        key, at, stopped = found
        made = self._candidate(key)
        program = self.plays.program(made)
        if self.plays.key_of(program) != key:  # it is not quite what the optimizer's program said
            key = self.plays.key_of(program)
            try:
                self.plays.play_each(program, at)
            except Stopped as stop:
                _end(stop)
        gain, n = self.plays.gain(key, self.before, at)
        if key == self.before or n < len(at) or gain < self.settings.lead:
            return None
        return Proposal(
            candidate=made,
            note=self._note(made, stopped),
            parameters={
                "score_on_validation": round(self.plays.mean(key, at), 4),
                "score_of_parent": round(self.plays.mean(self.before, at), 4),
                "programs": len(self.plays.programs) - 1,
                "texts_written": self.calls.texts,
            },
            cost={"lm_calls": float(self.work.meter.paid)},
        )

    def _found(self) -> tuple[str, Sequence[str], str] | None:
        """The best program's key, the cases that say so, and why the optimizer was stopped, if it was."""
        training, validation = self.shares
        stopped = ""
        try:
            predictions = self.plays.play_each(self.student, validation)
            if all(one is None for one in predictions) and self.plays.failure:
                raise LMFailure(f"the module fails at each of {len(validation)} cases: {self.plays.failure}")
            result = self._compiled(_answer_name(self.student, predictions))
            self.calls.check()  # a module may have caught what stopped it
            self.plays.play_each(result, validation)
        except Stopped as stop:
            _end(stop)
            stopped = str(stop)
        if self.settings.optimizer == "gepa" and self.calls.texts and len(self.plays.programs) == 1:
            raise LMFailure(
                f"none of the {self.calls.texts} texts of {self.writer.model} held an instruction that could be "
                "read: name an LM that writes by RATCHET_REFLECTION_LM"
            )
        if best := self._best(validation):
            return best, validation, stopped
        # SIMBA scores on batches of the training cases alone
        for key in self._by_gain(training):
            both = [i for i in training if self.plays.gain(key, self.before, [i])[1]]
            if len(both) >= min(self._batch(), len(training)):
                return key, both, stopped
        return None

    def _best(self, cases: Sequence[str]) -> str | None:
        whole = [k for k in self._by_gain(cases) if self.plays.gain(k, self.before, cases)[1] == len(cases)]
        return whole[0] if whole else None

    def _by_gain(self, cases: Sequence[str]) -> list[str]:
        """Other programs that are short enough, best first, of equals the earlier one."""
        short = [
            key
            for key, said in self.plays.programs.items()
            if key != self.before and all(len(one.instructions) <= self.settings.max_chars for _, one in said)
        ]
        return sorted(short, key=lambda key: -self.plays.gain(key, self.before, cases)[0])

    def _compiled(self, answer: str) -> dspy.Module:
        """The optimizer's own result."""
        training = [self._example(i, answer) for i in self.shares.training]
        validation = [self._example(i, answer) for i in self.shares.validation]
        kind = getattr(dspy, CLASSES[self.settings.optimizer])
        given = self._standard() | self.parameters
        built = {name: value for name, value in given.items() if name in _taken(kind.__init__)}
        told = {name: value for name, value in given.items() if name not in built}
        if self.settings.optimizer != "simba":
            told["valset"] = validation
        try:
            optimizer = kind(metric=self._metric(), **built)
            return optimizer.compile(self.student, trainset=training, **told)
        except (ValueError, AssertionError, TypeError) as error:
            raise BadInput(
                f"optimizer {self.settings.optimizer!r} does not run with {len(training)} training and "
                f"{len(validation)} validation cases and {self.parameters}: {said(error)}"
            ) from error

    def _standard(self) -> dict[str, Any]:
        """What the project decides, and where a person said nothing, what fits its cases and its budget."""
        threads, calls = self.plays.agent.at_once, self.work.meter.budget.calls
        told, own = set(self.parameters), dict[str, Any]()
        match self.settings.optimizer:
            case "gepa":
                if not told & {"auto", "max_full_evals", "max_metric_calls"}:
                    own |= {"max_metric_calls": calls} if calls else {"auto": "light"}
                own |= {"reflection_lm": self.writer, "warn_on_score_mismatch": False, "seed": self.work.seed}
            case "miprov2":
                own = {"prompt_model": self.writer, "seed": self.work.seed or 9}
                own |= {"minibatch": len(self.shares.validation) > FEW}
                own |= {"auto": None} if told & {"num_candidates", "num_trials"} else {}
            case "simba":
                own = {"prompt_model": self.writer, "bsize": self._batch(), "seed": self.work.seed}
        return own | {"num_threads": threads}

    def _batch(self) -> int:
        """SIMBA's cases of a step: three steps fit into the budget."""
        given, candidates = self.parameters.get("bsize"), self.parameters.get("num_candidates", 6)
        if isinstance(given, int):
            return given
        assert isinstance(candidates, int), "a number, as DSPy takes it"
        calls = self.work.meter.budget.calls or 10**9
        fits = calls // (3 * (2 * candidates + 1) * len(self.student.predictors()))
        return min(32, max(4, fits), len(self.shares.training))

    def _metric(self) -> Callable[..., Any]:
        def outcome(gold: dspy.Example, prediction: Any, *, note: bool = True) -> Outcome:
            return self.plays.score(gold[CASE], prediction, note=note)

        def worth(gold: dspy.Example, prediction: Any, trace: Any = None) -> float | bool:
            score = outcome(gold, prediction).score or 0.0
            is_example = trace is not None and self.parameters.get("metric_threshold") is None
            return score >= WON if is_example else score  # an example to imitate is right, not half right

        def reviewed(
            gold: dspy.Example,
            prediction: Any,
            trace: Any = None,
            pred_name: Any = None,
            pred_trace: Any = None,
        ) -> dspy.Prediction:
            found = outcome(gold, prediction, note=pred_name is None)
            return dspy.Prediction(score=found.score or 0.0, feedback=self._feedback(gold[CASE], found))

        return reviewed if self.settings.optimizer == "gepa" else worth

    def _feedback(self, case_id: str, found: Outcome) -> str:
        score, right = found.score or 0.0, self.plays.cases[case_id].expected
        lines = [f"Score: {score:g} of 1.", found.feedback]
        lines += [f"The right answer: {as_text(right)}"] if score < WON and right is not None else []
        return "\n".join(line for line in lines if line)

    def _example(self, case_id: str, answer: str) -> dspy.Example:
        inputs, right = self.plays.inputs[case_id], self.plays.cases[case_id].expected
        labels = right if isinstance(right, dict) else {} if right is None else {answer: right}
        return dspy.Example(**{**labels, **inputs, CASE: case_id}).with_inputs(*inputs)

    def _candidate(self, key: str) -> Candidate:
        """The parent with what this program says; what it left as it was is the parent's own."""
        before, found = dict(self.plays.programs[self.before]), dict(self.plays.programs[key])
        changed = {name: one for name, one in found.items() if one != before[name]}
        return self.parent.model_copy(update={"predictors": {**self.parent.predictors, **changed}})

    def _note(self, made: Candidate, stopped: str) -> str:
        demos = sum(len(one.demos) for one in made.predictors.values())
        n, of = (sum(len(p.instructions) for p in c.predictors.values()) for c in (made, self.parent))
        ended = f"; ended early: {stopped}" if stopped else ""
        return (
            f"DSPy's {CLASSES[self.settings.optimizer]}: {n} characters of instructions (were {of}), "
            f"{demos} examples{ended}"
        )


def _end(stop: Stopped) -> None:
    """A spent budget is an end like any other; an outage is not."""
    if not isinstance(stop.why, BudgetSpent):
        raise stop.why from stop


def _answer_name(program: dspy.Module, predictions: Sequence[Any]) -> str:
    """The field that the answer is in: the only one that the module predicts, else the last predictor's last."""
    for one in predictions:
        if isinstance(one, dspy.Prediction) and len(one.keys()) == 1:
            return str(next(iter(one.keys())))
    return str(list(program.predictors()[-1].signature.output_fields)[-1])
