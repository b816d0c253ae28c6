"""Any `dspy.Module` as the agent: its named predictors are the parts.

Decision: a candidate is applied to a deep copy, so that the user's module stays as it is; its state is JSON
(instructions and demos of each predictor), never a pickle.
"""

import copy
from collections.abc import Mapping
from typing import Any

import dspy

from ratchet.agent.candidate import IN_CODE, Candidate, Predictor
from ratchet.agent.kinds.decision import View
from ratchet.agent.kinds.whole import WholeAgent
from ratchet.agent.memory.snapshot import Memory
from ratchet.agent.parts import Playing
from ratchet.agent.record import Json, as_json


class ModuleAgent(WholeAgent):
    """A module that is called with a case's inputs, by name."""

    def __init__(
        self,
        module: dspy.Module,
        candidate: Candidate,
        memories: Mapping[str, Memory] | None = None,
        **settings: Any,
    ) -> None:
        """`settings` are those of `WholeAgent`."""
        super().__init__(candidate, memories, **settings)
        self.module = module

    def answer(self, view: View, now: Playing) -> Json:
        """The prediction's only field, or all of them as one object."""
        module = applied(self.module, now)
        return answer_of(module(**view.inputs))


def applied(module: dspy.Module, now: Playing) -> dspy.Module:
    """A copy of the module whose predictors say what the candidate says."""
    changed = copy.deepcopy(module)
    for name, predictor in changed.named_predictors():
        text = now.values.prompt(name)
        if text is not None:
            predictor.signature = predictor.signature.with_instructions(text)
    return changed


def answer_of(prediction: Any) -> Json:
    """Of a prediction with one field that field, else all as one object."""
    fields = dict(prediction.items()) if isinstance(prediction, dspy.Prediction) else prediction
    return as_json(next(iter(fields.values())) if isinstance(fields, dict) and len(fields) == 1 else fields)


def module_candidate(
    module: dspy.Module, *, attempts: int = 1, model: str = IN_CODE, api_base: str | None = None
) -> Candidate:
    """The agent as its code has it."""
    return Candidate(
        kind="module",
        predictors={
            name: Predictor(instructions=predictor.signature.instructions)
            for name, predictor in module.named_predictors()
        },
        base_model=model,
        api_base=api_base,
        topology={"attempts": attempts},
    )
