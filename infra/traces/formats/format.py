"""One format of log files: what tells it from the others, and how its records become conversations.

Why a format is told by its fields and not by the file's name: everybody's logs end in `.json`. Why it is given all
records and not one: in some formats a record is a line of a conversation, in others it holds several.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from ratchet.agent.errors import BadInput, named
from ratchet.agent.trace import Usage
from ratchet.infra.files import cells
from ratchet.infra.files.json_records import Fault
from ratchet.infra.traces.conversation import Conversation

_MISSHAPEN: Final = (AttributeError, LookupError, TypeError, ValueError, ArithmeticError)
Numbered = Iterable[tuple[int, Any]]
"""Records with their numbers."""
_GIVEN: Final = ("input_tokens", "prompt_tokens", "input")
_WRITTEN: Final = ("output_tokens", "completion_tokens", "output")
_CACHED: Final = ("cache_read_input_tokens", "cache_creation_input_tokens")
"""Anthropic counts them apart from the input."""


@dataclass(frozen=True)
class Format:
    """A format by name."""

    name: str
    fields: str
    """What is looked for, as an error lists it."""
    looks_like: Callable[[Any], bool]
    """Whether a record is of this format."""
    conversations: Callable[[Numbered, Fault], Iterator[tuple[int, Conversation]]]
    """Each conversation with the number of the record that it begins in; what cannot be read is told to `Fault`."""


@contextmanager
def misshapen_told() -> Iterator[None]:
    """Within, what is not where its format has it is BadInput: a log can hold anything at any place."""
    try:
        yield
    except _MISSHAPEN as error:
        raise BadInput(f"something in it is not as its format has it ({named(error, 200)})") from error


def one_by_one(
    read: Callable[[Any], Iterable[Conversation]],
) -> Callable[[Numbered, Fault], Iterator[tuple[int, Conversation]]]:
    """For formats of which each record stands by itself; only one of them is held at a time."""

    def conversations(records: Numbered, fault: Fault) -> Iterator[tuple[int, Conversation]]:
        for number, record in records:
            try:
                with misshapen_told():
                    found = list(read(record))
                yield from [(number, one) for one in found]
            except BadInput as error:
                fault(number, str(error))

    return conversations


def first_of(record: Mapping[str, Any], names: Iterable[str]) -> Any:
    """The first of these fields that is there; else None."""
    chosen = chosen_of(record, names)
    return None if chosen is None else record[chosen]


def chosen_of(record: Mapping[str, Any], names: Iterable[str]) -> str | None:
    """Its name."""
    return next((name for name in names if record.get(name) is not None), None)


def usage_of(*given: Any, cost_usd: Any = None, lm_calls: int | None = None) -> Usage:
    """What was consumed, from what each call says of it, in OpenAI's words, Anthropic's or Langfuse's."""
    told = [one for one in given if isinstance(one, Mapping)]
    counts = [
        (_count(one, _GIVEN) + sum(_count(one, (name,)) for name in _CACHED), _count(one, _WRITTEN))
        for one in told
    ]
    is_cost = isinstance(cost_usd, int | float) and not isinstance(cost_usd, bool) and cost_usd >= 0
    return Usage(
        input_tokens=sum(count[0] for count in counts),
        output_tokens=sum(count[1] for count in counts),
        lm_calls=len([count for count in counts if any(count)]) if lm_calls is None else lm_calls,
        cost_usd=float(cost_usd) if is_cost else 0.0,
    )


def is_usage(value: Any) -> bool:
    """Whether it names tokens in a way that is read."""
    return isinstance(value, Mapping) and any(_count(value, names) for names in (_GIVEN, _WRITTEN))


def _count(given: Mapping[str, Any], names: tuple[str, ...]) -> int:
    value = first_of(given, names)
    return int(value) if isinstance(value, int | float) and value > 0 and value == value else 0


def of_cell(what: str, read: Callable[[Any], Any], given: Any) -> Any:
    """A cell as `ratchet.infra.files.cells` reads it; its ValueError as BadInput."""
    try:
        return read(given)
    except ValueError as error:
        raise BadInput(f"{what} {error}") from None


def object_in(value: Any) -> dict[str, Any]:
    """The value, where it is an object; else an empty one."""
    return value if isinstance(value, dict) else {}


def text_in(value: Any) -> str:
    """A text, or the texts of a list of text blocks."""
    if isinstance(value, list):
        return "\n".join(filter(None, map(text_in, value)))
    if isinstance(value, Mapping):
        return text_in(first_of(value, ("text", "content")))
    return cells.text(value) or ""
