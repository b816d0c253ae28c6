"""Any Python callable as the agent: the user's code as it is, whose parts have a candidate's values while it runs."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from inspect import Parameter
from typing import Any

from ratchet.agent.candidate import IN_CODE, Candidate, Predictor
from ratchet.agent.errors import BadInput
from ratchet.agent.kinds.code import CodeAgent
from ratchet.agent.kinds.decision import View
from ratchet.agent.memory.snapshot import Memory
from ratchet.agent.parts import Playing, TextPart, ToolDescription
from ratchet.agent.record import Json


class CallableAgent(CodeAgent):
    """A function that is called with a case's inputs, by name."""

    def __init__(
        self,
        function: Callable[..., Any],
        candidate: Candidate,
        memories: Mapping[str, Memory] | None = None,
        **settings: Any,
    ) -> None:
        """`settings` are those of `CodeAgent`."""
        super().__init__(candidate, memories, **settings)
        self.function = function

    def answer(self, view: View, now: Playing) -> Json:
        """What the function returns, or its coroutine comes to."""
        inputs = inputs_of(self.function, view.inputs, view.observation.text)
        args, kwargs = arguments_of(self.function, inputs)
        return self.attempt(partial(self.function, *args, **kwargs), view.seconds_left)


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
    """A case's inputs by the function's parameters: as given, if these fit, else the request as the only one needed.

    Raises:
        BadInput: neither fits; names both.
    """
    return inputs_by(parameters_of(function), given, request)


def inputs_by(
    parameters: Sequence[Parameter], given: Mapping[str, Any] | None, request: str
) -> dict[str, Any]:
    """The same, where the parameters are known."""
    given = dict(given or {})
    if given and _fits(parameters, given):
        return given
    taken = [p for p in parameters if p.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)]
    needed = [p for p in taken if p.default is Parameter.empty] or taken[:1]
    if len(needed) == 1:
        return {needed[0].name: request}
    if not taken and parameters:
        return given or {"request": request}
    raise BadInput(
        f"the agent takes ({', '.join(p.name for p in parameters)}) and the case holds ({', '.join(given)}): "
        "name a case's inputs as the agent's parameters are named"
    )


def arguments_of(function: Callable[..., Any], inputs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """The inputs as positional arguments, where the function takes these only so, and by name."""
    left, args, parameters = dict(inputs), [], parameters_of(function)
    has_rest = any(p.kind is Parameter.VAR_POSITIONAL and left.get(p.name) for p in parameters)
    by_place = (Parameter.POSITIONAL_ONLY, *([Parameter.POSITIONAL_OR_KEYWORD] if has_rest else []))
    for parameter in parameters:
        name = parameter.name
        if name not in left:
            continue
        if parameter.kind in by_place:
            args.append(left.pop(name))
        elif parameter.kind is Parameter.VAR_POSITIONAL and isinstance(left[name], list | tuple):
            args += left.pop(name)
        elif parameter.kind is Parameter.VAR_KEYWORD and isinstance(left[name], dict):
            left |= left.pop(name)  # as a tracer notes what `**kwargs` held
    return args, left


def parameters_of(function: Callable[..., Any]) -> list[Parameter]:
    """What it takes; anything by name where Python cannot tell."""
    try:
        return list(inspect.signature(function).parameters.values())
    except (ValueError, TypeError):
        return [Parameter("inputs", Parameter.VAR_KEYWORD)]


def _fits(parameters: Sequence[Parameter], given: Mapping[str, Any]) -> bool:
    """Whether it can be called with these: all that it needs, and nothing that it does not take."""
    names = {p.name for p in parameters}
    needed = {
        p.name
        for p in parameters
        if p.default is Parameter.empty and p.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    }
    takes_any = any(p.kind is Parameter.VAR_KEYWORD for p in parameters)
    return needed <= set(given) and (takes_any or set(given) <= names)
