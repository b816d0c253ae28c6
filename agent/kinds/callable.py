"""Any Python callable as the agent: the user's code as it is, whose parts have a candidate's values while it runs."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ratchet.agent.candidate import IN_CODE, Candidate, Predictor
from ratchet.agent.kinds.decision import View
from ratchet.agent.kinds.whole import WholeAgent
from ratchet.agent.memory.snapshot import Memory
from ratchet.agent.parts import Playing, TextPart, ToolDescription
from ratchet.agent.record import Json, as_json


class CallableAgent(WholeAgent):
    """A function that is called with a case's inputs, by name."""

    def __init__(
        self,
        function: Callable[..., Any],
        candidate: Candidate,
        memories: Mapping[str, Memory] | None = None,
        **settings: Any,
    ) -> None:
        """`settings` are those of `WholeAgent`."""
        super().__init__(candidate, memories, **settings)
        self.function = function

    def answer(self, view: View, now: Playing) -> Json:
        """What the function returns."""
        return as_json(self.function(**view.inputs))


def callable_candidate(
    parts: Sequence[TextPart], *, attempts: int = 1, model: str = IN_CODE, api_base: str | None = None
) -> Candidate:
    """The agent as its code has it: every part at its default."""
    prompts = {p.name: Predictor(instructions=p.default) for p in parts if not isinstance(p, ToolDescription)}
    return Candidate(
        kind="callable",
        predictors=prompts,
        tools={p.name: p.default for p in parts if isinstance(p, ToolDescription)},
        base_model=model,
        api_base=api_base,
        topology={"attempts": attempts},
    )


def inputs_of(function: Callable[..., Any], given: Mapping[str, Any] | None, request: str) -> dict[str, Any]:
    """A case's inputs: what the function was called with, if that is known, else the request as first argument."""
    names = list(inspect.signature(function).parameters)
    if given and set(given) <= set(names):
        return dict(given)
    return {names[0]: request} if names else {}
