"""Any `dspy.Module` as the agent: its named predictors are the parts.

Decision: a candidate is applied to a copy for each answer, so that the user's module stays as it is, and one
rendering, `applied`, is what the gate plays, what a process serves and what `program.json` holds: instructions as
DSPy's instructions, examples as DSPy's own where they fit the predictor's fields, else in words. State is JSON, never
a pickle.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache, partial
from inspect import Parameter
from typing import Any

import dspy
from dspy.utils.saving import get_dependency_versions
from dspy.utils.usage_tracker import track_usage

from ratchet.agent.candidate import IN_CODE, Candidate, Demo, Predictor
from ratchet.agent.errors import BadInput, LMFailure
from ratchet.agent.kinds.callable import arguments_of, inputs_by, parameters_of
from ratchet.agent.kinds.code import CodeAgent
from ratchet.agent.kinds.decision import View
from ratchet.agent.kinds.module_copy import copied
from ratchet.agent.kinds.module_fields import demo_fields, dspy_examples, first_predictor, text_of_fields
from ratchet.agent.memory.snapshot import Memory
from ratchet.agent.memory.steps import Recalled
from ratchet.agent.part_values import PartValues, prompt_text
from ratchet.agent.parts import Playing
from ratchet.agent.record import Json
from ratchet.agent.trace import Contribution, Usage


class ModuleAgent(CodeAgent):
    """A module that is called with a case's inputs, by name."""

    def __init__(
        self,
        module: dspy.Module,
        candidate: Candidate,
        memories: Mapping[str, Memory] | None = None,
        **settings: Any,
    ) -> None:
        """`settings` are those of `CodeAgent`."""
        super().__init__(candidate, memories, **settings)
        self.module = module

    def answer(self, view: View, now: Playing) -> Json:
        """The prediction's only field, or all of them as one object."""
        lm = self.lm.dspy if self.lm is not None else None
        with self._settings(lm), track_usage() as tracker:
            module = applied(self.module, now.values, lm=lm, playing=now, keep_cache=not self.is_trial)
            inputs = module_inputs(module, view.inputs, view.observation.text)
            try:
                answer = self.attempt(as_call(module, inputs), view.seconds_left)
            except LMFailure as error:
                if "No LM is loaded" in str(error):
                    raise BadInput("the module has no LM: call dspy.configure(lm=…) in project.py") from error
                raise
        now.usage += usage_of(tracker.usage_data)
        return answer

    @contextmanager
    def _settings(self, lm: dspy.BaseLM | None) -> Iterator[None]:
        """The LM that the candidate names; while it is tried, no answer that the LM gave before."""
        lm = lm or dspy.settings.lm
        if isinstance(lm, dspy.BaseLM) and self.is_trial:
            lm = _without_cache(lm)
        with dspy.context(**{} if lm is None else {"lm": lm}):
            yield


def applied(
    module: dspy.Module,
    values: PartValues,
    *,
    lm: dspy.BaseLM | None = None,
    playing: Playing | None = None,
    keep_cache: bool = True,
) -> dspy.Module:
    """A copy of the module whose predictors say what the version says, for one answer.

    Args:
        module: the user's own; it stays as it is.
        values: the version.
        lm: instead of the LMs that its predictors have.
        playing: notes what each predictor was shown, asked and answered.
        keep_cache: whether DSPy may answer with what an LM said before.
    """
    changed = told(module, values)
    predictors = changed.named_predictors()
    for name, predictor in predictors:
        predictor.lm = lm or predictor.lm
        if not keep_cache and isinstance(predictor.lm, dspy.BaseLM):
            predictor.lm = _without_cache(predictor.lm)
        recall = partial(recalled_by, values, name, alone=len(predictors) == 1)
        predictor.forward = partial(_forward, predictor, name, recall, playing)
        predictor.aforward = partial(_aforward, predictor, name, recall, playing)
    return changed


def told(module: dspy.Module, values: PartValues) -> dspy.Module:
    """A copy of the module with the version's instructions and examples, and nothing that it recalls."""
    changed = copied(module)
    for name, predictor in changed.named_predictors():
        _say(predictor, name, values)
    return changed


def _say(predictor: dspy.Predict, name: str, values: PartValues) -> None:
    """Instructions and examples that stand before the first call; what the version does not know stays."""
    said = values.candidate.predictors.get(name)
    if said is None:
        return
    signature = predictor.signature
    text = values.prompt(name, in_words=lambda demo: demo_fields(signature, demo) is None)
    if (
        said.demos != first_predictor(predictor).demos
    ):  # else the code's own, whatever JSON cannot say of them
        predictor.demos = dspy_examples(signature, said.demos)
    predictor.signature = with_text(signature, text)


def recalled_by(values: PartValues, name: str, request: str, *, alone: bool) -> list[Recalled]:
    """The prompt's own share; what the whole agent answered is no example for one of several predictors."""
    return values.recalled(name, request) if alone or name in values.memories else []


@lru_cache(maxsize=512)
def with_text(signature: type[dspy.Signature], text: str) -> type[dspy.Signature]:
    """The signature with these instructions: DSPy makes a class of it, which takes a millisecond."""
    return signature if signature.instructions == text else signature.with_instructions(text)


Recall = Callable[[str], list[Recalled]]


def shown(
    predictor: dspy.Predict, recall: Recall, kwargs: dict[str, Any]
) -> tuple[dict[str, Any], list[Recalled]]:
    """What the predictor is called with: its arguments, and what is recalled, the most similar last."""
    signature = kwargs.get("signature", predictor.signature)
    found = recall(text_of_fields(kwargs, signature.input_fields))
    if not found:
        return kwargs, []
    demos = [Demo(inputs=one.experience.observation, output=one.experience.said) for one in reversed(found)]
    words = tuple(demo for demo in demos if demo_fields(signature, demo) is None)
    if words:
        text = prompt_text(Predictor(instructions=signature.instructions, demos=words))
        kwargs = {**kwargs, "signature": with_text(signature, text)}
    examples = [*kwargs.get("demos", predictor.demos), *dspy_examples(signature, demos)]
    return {**kwargs, "demos": examples}, found


def _forward(
    predictor: dspy.Predict, name: str, recall: Recall, playing: Playing | None, **kwargs: Any
) -> dspy.Prediction:
    asked, found = shown(predictor, recall, kwargs)
    prediction = type(predictor).forward(predictor, **asked)
    _note(playing, predictor, name, kwargs, prediction, found)
    return prediction


async def _aforward(
    predictor: dspy.Predict, name: str, recall: Recall, playing: Playing | None, **kwargs: Any
) -> dspy.Prediction:
    asked, found = shown(predictor, recall, kwargs)
    prediction = await type(predictor).aforward(predictor, **asked)
    _note(playing, predictor, name, kwargs, prediction, found)
    return prediction


def _note(
    playing: Playing | None,
    predictor: dspy.Predict,
    name: str,
    asked: Mapping[str, Any],
    prediction: dspy.Prediction,
    found: list[Recalled],
) -> None:
    if playing is None:
        return
    signature, trace_ids = predictor.signature, [one.experience.trace_id for one in found]
    playing.recalled += trace_ids
    playing.said.append(
        Contribution(
            actor=name,
            observation=text_of_fields(asked, signature.input_fields),
            said=text_of_fields(dict(prediction.items()), signature.output_fields),
            recalled=tuple(trace_ids),
        )
    )


def as_call(module: dspy.Module, inputs: Mapping[str, Any]) -> Callable[[], Any]:
    """The call of a module, by `aforward` where it has nothing else."""
    own = type(module)
    only_async = hasattr(own, "aforward") and not hasattr(own, "forward")
    args, kwargs = arguments_of(own.aforward if only_async else own.forward, inputs)
    return partial(module.acall if only_async else module, *args, **kwargs)


def module_inputs(module: dspy.Module, given: Mapping[str, Any] | None, request: str) -> dict[str, Any]:
    """A case's inputs by what the module takes; where that is anything by name, the fields of its signature count.

    A module without one is asked by its first predictor.
    """
    own = type(module)
    forward = getattr(own, "forward", None) or own.aforward
    parameters = parameters_of(partial(forward, module))
    if all(p.kind is Parameter.VAR_KEYWORD for p in parameters) and module.predictors():
        own_fields = getattr(getattr(module, "signature", None), "input_fields", None)
        fields = own_fields or module.predictors()[0].signature.input_fields
        parameters = [Parameter(name, Parameter.KEYWORD_ONLY) for name in fields]
    return inputs_by(parameters, given, request)


def program_state(module: dspy.Module, candidate: Candidate) -> dict[str, Json]:
    """What `module.load` and `load_state` take to become this version, recalled experience aside."""
    changed = applied(module, PartValues(candidate))
    state: dict[str, Json] = json.loads(json.dumps(changed.dump_state(), default=str))
    return {**state, "metadata": {"dependency_versions": get_dependency_versions()}}


def module_candidate(
    module: dspy.Module, *, attempts: int = 1, model: str = IN_CODE, api_base: str | None = None
) -> Candidate:
    """The agent as its code has it."""
    return Candidate(
        kind="module",
        predictors={name: first_predictor(predictor) for name, predictor in module.named_predictors()},
        base_model=model,
        api_base=api_base,
        topology={"attempts": attempts},
    )


def _without_cache(lm: dspy.BaseLM) -> dspy.BaseLM:
    return lm.copy(cache=False) if getattr(lm, "cache", False) else lm


def usage_of(by_lm: Mapping[str, list[dict[str, Any]]]) -> Usage:
    """What DSPy's LMs said that their calls took."""
    calls = [call for one in by_lm.values() for call in one]
    return Usage(
        input_tokens=sum(int(call.get("prompt_tokens") or 0) for call in calls),
        output_tokens=sum(int(call.get("completion_tokens") or 0) for call in calls),
        lm_calls=len(calls),
    )
