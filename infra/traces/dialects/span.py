"""One span, before anybody knows whose it is, and what a dialect can say that it was.

Why a span of our own: the same spans come out of MLflow, out of its export and out of OTLP, each with its own idea of
times, ids and nested values; a dialect reads attributes by their names and nothing else.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ratchet.agent.trace import Usage
from ratchet.infra.traces.chat_parts import ChatMessage, to_message
from ratchet.infra.traces.lm_calls import LmCall


@dataclass(frozen=True)
class RawSpan:
    """A span as it was recorded, its values as plain data."""

    span_id: str
    parent_id: str | None
    name: str
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Any]
    events: Sequence[tuple[str, Mapping[str, Any]]] = ()
    """Names and what they hold: the span's own, and log records that name it."""
    error: str | None = None
    """Why it failed; None = it did not."""


@dataclass(frozen=True)
class ToolRun:
    """One run of a tool."""

    name: str
    call_id: str | None = None
    arguments: Any = None
    """None = not recorded."""
    result: str | None = None
    """None = not recorded."""


@dataclass
class SpanFacts:
    """What a dialect read in a span; at most one of `lm` and `tool`."""

    lm: LmCall | None = None
    tool: ToolRun | None = None
    history: LmCall | None = None
    """A whole conversation that an agent's span holds beside its LM's spans."""
    usage: Usage | None = None
    inputs: Any = None
    output: Any = None
    session_id: str | None = None
    user: str | None = None
    notes: Counter[str] = field(default_factory=Counter)


def decoded(value: Any) -> Any:
    """The value in text that is JSON (an object, a list or quoted text), once; any other as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "[", '"'):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def first_attribute(attributes: Mapping[str, Any], *names: str) -> Any:
    """The first of these attributes that says something."""
    return next((attributes[name] for name in names if attributes.get(name) not in (None, "")), None)


def tokens_of(given: Any, prompts: Any, completions: Any) -> Usage | None:
    """Tokens, where either number is there."""
    counted = [_count(one) for one in (prompts, completions)]
    if given is None and all(one is None for one in counted):
        return None
    return Usage(input_tokens=counted[0] or 0, output_tokens=counted[1] or 0)


def _count(value: Any) -> int | None:
    try:
        return max(int(value), 0)
    except (TypeError, ValueError):
        return None


def nested(attributes: Mapping[str, Any], prefix: str) -> Any:
    """What attributes flattened by dots hold below a prefix: objects, and lists where all keys are numbers."""
    tree: dict[str, Any] = {}
    for name, value in attributes.items():
        if not name.startswith(prefix):
            continue
        *path, last = name[len(prefix) :].split(".")
        at = tree
        for key in path:
            inner = at.get(key)
            if not isinstance(inner, dict):
                at[key] = inner = {} if inner is None else {"": inner}
            at = inner
        at[last] = value
    return _lists(tree)


def _lists(tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    if tree and all(key.isdecimal() for key in tree):
        return [_lists(tree[key]) for key in sorted(tree, key=int)]
    return {key: _lists(value) for key, value in tree.items()}


def read_messages(given: Any, notes: Counter[str], *, otherwise: str) -> tuple[str, list[ChatMessage]]:
    """The text of the system's messages that stand before all others, and the others.

    Args:
        given: messages in any form that `to_message` reads.
        notes: takes what was not read; a message that is none is counted there and left out.
        otherwise: the role of a message that names none.
    """
    system: list[str] = []
    messages: list[ChatMessage] = []
    for one in given if isinstance(given, list | tuple) else []:
        said = (
            one if not isinstance(one, dict) or "role" in one or "from" in one else {"role": otherwise, **one}
        )
        try:
            message = to_message(said)
        except ValueError as error:
            notes[f"message not read: {error}"] += 1
            continue
        if message.role == "system" and not messages:
            notes.update(message.notes)
            system.append(message.text)
        else:
            messages.append(message)
    return "\n".join(system), messages
