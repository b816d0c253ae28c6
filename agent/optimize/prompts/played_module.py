"""A `dspy.Module` as DSPy's optimizers change and play it, and what each of its programs was worth at each case.

Decision: every program that an optimizer tries is noted by what it says (instructions and examples), case by case, in
the module's own call. So what is best so far is known at any moment, whichever optimizer it is and however it ends.
A case is played as under the gate: as a trial, with the experience that the version recalls and without the case's
own, within the project's limits.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextvars import ContextVar
from functools import lru_cache, partial
from threading import Lock
from typing import Any, Final

import dspy
import tenacity
from pydantic_core import to_jsonable_python

from ratchet.agent.bounded_call import GivenUp, call
from ratchet.agent.candidate import Candidate, Predictor
from ratchet.agent.case import Case
from ratchet.agent.environment import Environment, Outcome, respond
from ratchet.agent.errors import BadInput, LMFailure, RatchetError, ServiceUnavailable, named
from ratchet.agent.kinds.answer import as_answer
from ratchet.agent.kinds.callable import arguments_of
from ratchet.agent.kinds.effects import require_replay
from ratchet.agent.kinds.module import ModuleAgent, module_inputs, recalled_by, shown, told
from ratchet.agent.kinds.module_copy import copied
from ratchet.agent.kinds.module_fields import exact_demo
from ratchet.agent.lm.patience import RETRIES, is_from_outside, patience
from ratchet.agent.lm.side_by_side import side_by_side
from ratchet.agent.memory.steps import Recalled
from ratchet.agent.optimize.prompts.metered_lm import LMCalls
from ratchet.agent.part_values import PartValues
from ratchet.agent.parts import playing
from ratchet.agent.record import Json, as_text, content_hash

CASE: Final = "dspy_case_id"
"""Key of a case's id in DSPy's examples: what begins with `dspy_` is shown to no LM."""
_now: ContextVar[PartValues | None] = ContextVar("ratchet_module_now", default=None)
_last: ContextVar[str] = ContextVar("ratchet_last_program", default="")
"""The program that this thread called last, if it did not fail: a metric is told a prediction, and not whose."""


class ModulePlays:
    """Programs of one module, at the cases of one proposal. Safe for use from several threads."""

    def __init__(
        self,
        agent: ModuleAgent,
        cases: Sequence[Case],
        world: Callable[[], Environment],
        calls: LMCalls,
        *,
        seconds: float | None = None,
    ) -> None:
        """Get ready to play.

        Args:
            agent: the parent.
            cases: each with its right answer.
            world: a fresh one for a case, which scores it.
            calls: what its LMs cost.
            seconds: until a case is given up; None = as the agent says.
        """
        require_replay(agent.effects)
        self.agent, self.world, self.calls = agent, world, calls
        self.seconds = min(agent.seconds, seconds or agent.seconds)
        self.cases = {case.case_id: case for case in cases}
        self.inputs = {case.case_id: self._inputs_of(case) for case in cases}
        self._by_inputs = {_key(inputs): case_id for case_id, inputs in self.inputs.items()}
        self.programs: dict[str, tuple[tuple[str, Predictor], ...]] = {}
        """What each program says that was played, by its key, in the order in which they were met."""
        self.failure = ""
        """What a program failed by last."""
        self._scores: dict[str, dict[str, list[float]]] = {}
        self._origins: dict[str, str] = {}
        self._lock = Lock()
        for name, said in agent.candidate.predictors.items():
            self._origins |= {_key([name, d.inputs, d.output]): d.case_id for d in said.demos if d.case_id}

    def __deepcopy__(self, memo: dict[int, Any]) -> "ModulePlays":
        return self

    def program(self, candidate: Candidate) -> dspy.Module:
        """The module as this version, ready to be changed by an optimizer."""
        made = told(self.agent.module, PartValues(candidate))
        predictors = made.named_predictors()
        own = self.agent.lm.dspy if self.agent.lm is not None else None
        recalls = bool(candidate.topology.recalls and self.agent.memories)
        for name, predictor in predictors:
            lm = own or predictor.lm
            predictor.lm = self.calls.metered(lm) if isinstance(lm, dspy.BaseLM) else lm
            if recalls:
                predictor.ratchet_recall = partial(_recall, name, alone=len(predictors) == 1)
                predictor.__class__ = _in_front(_Recalling, predictor)
        made.ratchet_plays = self
        made._compiled = False  # an optimizer refuses to go on from what another has compiled
        made.__class__ = _in_front(_Played if hasattr(type(made), "forward") else _Awaited, made)
        return made

    def play_each(self, program: dspy.Module, case_ids: Collection[str]) -> list[Any]:
        """What the program predicts at those of the cases that it was not played at; None where it failed."""
        done = self._scores.get(self.key_of(program), {})

        def play(case_id: str) -> Any:
            try:
                prediction = program(**self.inputs[case_id])
            except Exception:  # noqa: BLE001  the program's own failure, and as such noted
                return None
            self.score(case_id, prediction)
            return prediction

        return side_by_side(play, [i for i in case_ids if i not in done], at_once=self.agent.at_once)

    def play(self, program: dspy.Module, answer: Callable[[], Any], inputs: Mapping[str, Any]) -> Any:
        """One call of a program; its failure is noted as a 0 and raised, an outage ends it all.

        Raises:
            Stopped: no budget is left, or what the program runs on does not answer.
        """
        self.calls.check()
        case_id, key = self._by_inputs.get(_key(dict(inputs)), ""), self.key_of(program)
        candidate = self.agent.candidate
        values = PartValues(candidate, self.agent.memories, exclude_case=case_id)
        began = len(dspy.settings.trace or ())
        _last.set("")
        token = _now.set(values)
        try:
            with playing(values, trial=True) as now:
                prediction = self._in_time(answer)
        except Exception as error:
            if isinstance(error, BadInput | ServiceUnavailable):
                raise self.calls.stop(error) from error
            if is_from_outside(error):
                raise self.calls.stop(
                    ServiceUnavailable(f"the module's own tools: {named(error)}")
                ) from error
            self._note(key, case_id, 0.0)
            self.failure = named(error)
            raise
        finally:
            _now.reset(token)
        if now.lost:
            raise self.calls.stop(
                BadInput(f"{now.lost} was read in a thread that does not know which version is played")
            )
        self._note_origins(program, case_id, began)
        _last.set(key)
        return prediction

    def score(self, case_id: str, prediction: Any, *, note: bool = True) -> Outcome:
        """What the project says that this prediction is worth; `note` it for the program that was called last.

        Where the project's scorer cannot tell, what a person said is right decides.
        """
        if note and not _last.get():  # it failed, which is noted
            return Outcome(score=0.0)
        case, world = self.cases[case_id], self.world()
        try:
            answer = as_answer(prediction)
        except LMFailure as error:
            found, answer = Outcome(score=0.0, feedback=str(error)), None
        else:
            try:
                world.reset(case)
                world.step(respond(answer))
                found = world.outcome()
            except Exception as error:
                why = error if isinstance(error, RatchetError) else BadInput(f"the scorer: {named(error)}")
                raise self.calls.stop(why) from error
        if found.score is None:
            found = found.model_copy(update={"score": float(_same(answer, case.expected))})
        if note:
            self._note(_last.get(), case_id, found.score or 0.0)
        return found

    def key_of(self, program: dspy.Module) -> str:
        """A program by what it says; what a new one says is noted."""
        said = [
            (name, p.signature.instructions, [_fields(p.signature, demo) for demo in p.demos])
            for name, p in program.named_predictors()
        ]
        key = _key(said)
        with self._lock:
            if key not in self.programs:
                self.programs[key] = tuple((n, self._said(n, p)) for n, p in program.named_predictors())
        return key

    def gain(self, key: str, over: str, case_ids: Collection[str]) -> tuple[float, int]:
        """Mean difference of two programs in score, and on how many of these cases both were played."""
        both = [
            (self._scores[key][i], self._scores[over][i])
            for i in case_ids
            if i in self._scores.get(key, ()) and i in self._scores.get(over, ())
        ]
        differences = [sum(a) / len(a) - sum(b) / len(b) for a, b in both]
        return (sum(differences) / len(both) if both else 0.0), len(both)

    def mean(self, key: str, case_ids: Collection[str]) -> float:
        """Mean score of a program on those of the cases that it was played at."""
        scores = [s for i in case_ids for s in self._scores.get(key, {}).get(i, [])]
        return sum(scores) / len(scores) if scores else 0.0

    def _said(self, name: str, predictor: dspy.Predict) -> Predictor:
        """Read back, such that a version of these words says the same."""
        signature, demos = predictor.signature, []
        for one in predictor.demos:
            if (demo := exact_demo(signature, dict(one.items()))) is not None:
                origin = self._origins.get(_key([name, demo.inputs, demo.output])) or _case_of(one)
                demos.append(demo.model_copy(update={"case_id": origin}))
        return Predictor(instructions=signature.instructions, demos=tuple(demos))

    def _note(self, key: str, case_id: str, score: float) -> None:
        if key and case_id:
            with self._lock:
                self._scores.setdefault(key, {}).setdefault(case_id, []).append(score)

    def _note_origins(self, program: dspy.Module, case_id: str, began: int) -> None:
        """From which case what a predictor said is: an optimizer may show it as an example."""
        names = {id(predictor): name for name, predictor in program.named_predictors()}
        for predictor, asked, said in list(dspy.settings.trace or ())[began:] if case_id else ():
            if (name := names.get(id(predictor))) is None:
                continue
            demo = exact_demo(predictor.signature, {**asked, **dict(said.items())})
            if demo is not None:
                self._origins.setdefault(_key([name, demo.inputs, demo.output]), case_id)

    def _inputs_of(self, case: Case) -> dict[str, Any]:
        request = self.world().reset(case).text
        return module_inputs(self.agent.module, case.inputs, request)

    def _in_time(self, answer: Callable[[], Any]) -> Any:
        """The call, in the time that a case may take, made again where a tool's server did not answer."""
        began = time.perf_counter()

        def once() -> Any:
            return call(answer, seconds=max(0.001, self.seconds - (time.perf_counter() - began)))

        try:
            return tenacity.Retrying(**patience(1 + RETRIES, until_s=self.seconds))(once)
        except GivenUp as error:
            raise LMFailure(f"the agent gave {error}") from error


class _Played:
    """In front of the module's own class: a call is a play, a copy is ours."""

    ratchet_plays: ModulePlays

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        module: Any = self
        own: Any = super()
        placed, by_name = arguments_of(type(module).forward, kwargs)
        return self.ratchet_plays.play(module, partial(own.__call__, *args, *placed, **by_name), kwargs)

    def deepcopy(self) -> Any:
        """DSPy's own shares what it cannot copy, and a change of one program would be one of another."""
        module: Any = self
        return copied(module)

    def reset_copy(self) -> Any:
        """As DSPy's; but a predictor that has an LM of its own keeps it."""
        new = self.deepcopy()
        for parameter in new.parameters():
            lm = getattr(parameter, "lm", None)
            parameter.reset()
            parameter.lm = lm
        return new


class _Awaited(_Played):
    """The same for a module that is asynchronous alone: DSPy's optimizers call `forward`."""

    def forward(self, **kwargs: Any) -> Any:
        """What its coroutine comes to."""
        module: Any = self
        return call(partial(module.aforward, **kwargs), seconds=self.ratchet_plays.seconds)


class _Recalling:
    """In front of a predictor's own class: it is shown what the version recalls."""

    ratchet_recall: Callable[[str], list[Recalled]]

    def forward(self, **kwargs: Any) -> Any:
        """Asked with what is recalled for this request."""
        predictor: Any = self
        own: Any = super()
        return own.forward(**shown(predictor, self.ratchet_recall, kwargs)[0])

    async def aforward(self, **kwargs: Any) -> Any:
        """The same, awaited."""
        predictor: Any = self
        own: Any = super()
        return await own.aforward(**shown(predictor, self.ratchet_recall, kwargs)[0])


def _recall(name: str, request: str, *, alone: bool) -> list[Recalled]:
    values = _now.get()
    return recalled_by(values, name, request, alone=alone) if values is not None else []


def _in_front(front: Any, of: Any) -> Any:
    kind: Any = type(of)
    return _with(front, kind)


@lru_cache(maxsize=256)
def _with(front: Any, kind: Any) -> Any:
    """The class with another in front, under its own name: optimizers read its source."""
    own = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    return type(kind)(kind.__name__, (front, kind), own)


def _fields(signature: type[dspy.Signature], demo: Any) -> dict[str, Json]:
    return {name: to_jsonable_python(demo[name], fallback=str) for name in signature.fields if name in demo}


def _case_of(demo: Any) -> str | None:
    return demo.get(CASE) if isinstance(demo, dspy.Example) else None


def _key(value: Any) -> str:
    return content_hash(to_jsonable_python(value, fallback=str), length=32)


def _same(answer: Json, expected: Json) -> bool:
    one, other = (" ".join(as_text(said).casefold().split()).removesuffix(".") for said in (answer, expected))
    return one == other
