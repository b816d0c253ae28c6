"""What of a trace that another's instrumentation wrote is the case, and what the answer, for each kind of agent.

Decision: the case is what the agent was given, so that it can be played again; where the outermost span does not tell
it, it is what the user said last, for what stands before may be recalled examples. Nothing else is guessed.
"""

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

from ratchet.agent.build import kind_of
from ratchet.agent.kinds.callable import inputs_of
from ratchet.agent.project import Project
from ratchet.agent.record import Json


class Seen(NamedTuple):
    """What a trace tells."""

    inputs: Json
    """What the outermost span was given; None = not known."""
    output: Json
    """What it gave back."""
    request: str
    """What the user said last."""
    messages: tuple[Json, ...] = ()
    """What the LM was given in its last call, as a chat endpoint takes it."""
    tools: tuple[Json, ...] = ()


class Asked(NamedTuple):
    """A case's inputs, and the answer where it stands apart from the messages."""

    inputs: dict[str, Json]
    answer: Json = None


def case_of_trace(project: Project, seen: Seen) -> Asked:
    """The case that the project's agent answered in this trace."""
    kind = kind_of(project.agent)
    if kind == "chat":
        return Asked({"messages": list(seen.messages)} | ({"tools": list(seen.tools)} if seen.tools else {}))
    if kind == "callable":
        return _called(project.agent, seen, inputs_of(project.agent, None, seen.request))
    if kind == "module":
        return _asked_module(project.agent, seen)
    return Asked({"request": seen.request})


def _called(function: Any, seen: Seen, otherwise: dict[str, Json]) -> Asked:
    """With the function's own arguments where these are the outermost span's."""
    if isinstance(seen.inputs, dict) and _takes(function, seen.inputs):
        return Asked(dict(seen.inputs), seen.output)
    return Asked(otherwise)


def _takes(function: Any, given: Mapping[str, Any]) -> bool:
    """Whether the function can be called with these, by name."""
    try:
        inspect.signature(function).bind(**given)
    except (TypeError, ValueError):
        return False
    return bool(given)


def _asked_module(module: Any, seen: Seen) -> Asked:
    names = list(_fields(module))
    is_whole = isinstance(seen.inputs, dict) and bool(seen.inputs) and set(seen.inputs) == set(names)
    asked = _called(module.forward, seen, {names[0] if names else "request": seen.request})
    if not is_whole and asked.answer is None:
        return asked
    answer = seen.output
    if isinstance(answer, dict) and len(answer) == 1:
        answer = next(iter(answer.values()))
    return Asked(dict(seen.inputs), answer)


def _fields(module: Any) -> Mapping[str, Any]:
    """What the module is asked by name: its own signature's inputs, else those of its first predictor."""
    named = [one.signature for _, one in module.named_predictors()]
    own = getattr(module, "signature", None)
    return next((one.input_fields for one in (own, *named) if hasattr(one, "input_fields")), {})
