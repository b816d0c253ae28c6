"""What of a trace that another's instrumentation wrote is the case, and what the answer, for each kind of agent.

Decision: the case is what the agent was given, so that it can be played again; where no span tells it, it is what the
user said last, for what stands before may be recalled examples. Nothing else is guessed.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from ratchet.agent.project import Project
from ratchet.agent.record import Json


class Called(NamedTuple):
    """One span that is neither an LM's nor a tool's: a function of somebody's code."""

    name: str
    inputs: Json
    output: Json


class SeenTrace(NamedTuple):
    """What a trace tells."""

    called: tuple[Called, ...]
    """Functions, the outermost first."""
    request: str
    """What the user said last."""
    messages: tuple[Json, ...] = ()
    """What the LM was given in its last call, as a chat endpoint takes it."""
    reply: Json = None
    """What it answered there, as a chat endpoint gives it; None = nothing."""
    tools: tuple[Json, ...] = ()


class AskedCase(NamedTuple):
    """A case's inputs, and the answer where it stands apart from the messages."""

    inputs: dict[str, Json]
    answer: Json = None


def case_of_trace(project: Project, seen: SeenTrace) -> AskedCase:
    """The case that the project's agent answered in this trace.

    Raises:
        BadInput: the agent takes several arguments, and no span was given them.
    """
    # with DSPy, which a command that reads no trace need not wait for
    from ratchet.agent.build import kind_of
    from ratchet.agent.kinds.callable import inputs_of

    kind = kind_of(project.agent)
    if kind == "callable":
        name = getattr(project.agent, "__name__", "")
        found = _call_of(seen, (name,), inspect.signature(project.agent))
        return found or AskedCase(inputs_of(project.agent, None, seen.request))
    if kind == "module":
        return _asked_module(project.agent, seen)
    if kind == "chat":
        from ratchet.agent.kinds.chat import answer_of

        tools = {"tools": list(seen.tools)} if seen.tools else {}
        answer = answer_of(seen.reply) if isinstance(seen.reply, dict) else None
        return AskedCase({"messages": list(seen.messages), **tools}, answer)
    return AskedCase({"request": seen.request})


def _asked_module(module: Any, seen: SeenTrace) -> AskedCase:
    from ratchet.agent.kinds.module import module_inputs  # with DSPy

    kind = type(module)
    forward: Callable[..., Any] = getattr(kind, "forward", None) or kind.aforward
    names = tuple(f"{kind.__name__}.{way}" for way in ("forward", "aforward", "__call__", "acall"))
    found = _call_of(seen, names, inspect.signature(partial(forward, module)))
    if found is None:
        return AskedCase(module_inputs(module, None, seen.request))
    answer = found.answer
    if isinstance(answer, dict) and len(answer) == 1:
        answer = next(iter(answer.values()))
    return AskedCase(found.inputs, answer)


def _call_of(seen: SeenTrace, names: tuple[str, ...], signature: inspect.Signature) -> AskedCase | None:
    """The call of the agent: the outermost span of its name, or, where none has it, the outermost of all."""
    named = [one for one in seen.called if one.name in names] or list(seen.called[:1])
    for one in named[:1]:
        if isinstance(one.inputs, dict) and _takes(signature, one.inputs):
            return AskedCase(dict(one.inputs), one.output)
    return None


def _takes(signature: inspect.Signature, given: Mapping[str, Any]) -> bool:
    """Whether it can be called with these, by name."""
    try:
        signature.bind(**given)
    except TypeError:
        return False
    return bool(given)
