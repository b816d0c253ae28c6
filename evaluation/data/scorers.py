"""What a free answer is worth beside the one that was expected: scorers, each `(case, answer) -> score in [0, 1]`.

Decision: where nothing is expected, or what is expected is of another kind, a scorer gives None, which is to say that
it cannot tell; 0 is said of an answer that was compared. How a thing is written does not count: case, spaces, quotes
and a last full stop of a text, the grouping of a number, the code fence around JSON.
"""

import json
import math
import re
import unicodedata
from collections.abc import Iterator
from typing import Final

from ratchet.agent.case import Case
from ratchet.agent.record import Json, as_text

_EDGES: Final = " \t\n.,;:!?\"'`“”„’*_"
_NUMBER: Final = re.compile(
    r"(?<![\w.,])[-+−]?\s?(?:\d{1,3}(?:[\s'’  ,.]\d{3})+(?!\d)|\d+)(?:[.,]\d+)?(?:[eE][-+]?\d+)?(?![\w])"
    r"|(?<![\w.,])[-+−]?[.,]\d+"
)
_FENCE: Final = re.compile(r"```[\w-]*\s*\n(.*?)```", re.DOTALL)
_CLOSE: Final = 1e-9


def exact(case: Case, answer: Json) -> float | None:
    """1 where the answer is the expected one; of a list of expected texts, where it is any of them."""
    expected = case.expected
    if expected is None:
        return None
    if isinstance(expected, list) and not isinstance(answer, list):
        return float(any(same(one, answer) for one in expected))
    return float(same(expected, answer))


def contains(case: Case, answer: Json) -> float | None:
    """Share of what is expected, a text or several, that the answer says, as whole words; numbers by their value.

    Example:
        >>> contains(Case(inputs={}, expected="heron"), "That is for **Heron**.")
        1.0
    """
    wanted = case.expected if isinstance(case.expected, list) else [case.expected]
    wanted = [one for one in wanted if one is not None and plain(as_text(one))]
    if not wanted:
        return None
    said = as_text(answer)
    return sum(_holds(said, one) for one in wanted) / len(wanted)


def numeric(case: Case, answer: Json, *, tolerance: float = 1e-6) -> float | None:
    """1 where the last number in the answer is the last in what is expected; an answer's conclusion stands last.

    Args:
        case: what is expected, a number or a text with one; without any it cannot tell.
        answer: a number, or a text such as "1,234.50 €".
        tolerance: largest difference, relative to the expected number where this is greater than 1. Another one than
            the default: `functools.partial(numeric, tolerance=0.01)`.
    """
    wanted = _last_number(case.expected)
    if wanted is None:
        return None
    given = _last_number(answer)
    return float(given is not None and abs(given - wanted) <= tolerance * max(1.0, abs(wanted)))


def json_fields(case: Case, answer: Json) -> float | None:
    """Share of the expected object's fields that the answer has with the same value; further ones do not count."""
    expected = as_object(case.expected)
    if not isinstance(expected, dict) or not expected:
        return None
    given = as_object(answer)
    if not isinstance(given, dict):
        return 0.0
    return sum(name in given and same(value, given[name]) for name, value in expected.items()) / len(expected)


def tool_call(case: Case, answer: Json) -> float | None:
    """1 where the answer calls the expected tools, in order, with the expected arguments.

    A call is `{"tool": …, "arguments": {…}}`, also as OpenAI writes it (`name`, `function`, `tool_calls`), or the
    name of a tool. Arguments are compared where they are expected.
    """
    wanted = list(_calls(case.expected))
    if not wanted:
        return None
    given = list(_calls(answer))
    return float(len(given) == len(wanted) and all(map(_same_call, wanted, given)))


def plain(text: str) -> str:
    """A text as it is compared: one case, single spaces, no quotes or full stop around it."""
    flat = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return flat.strip(_EDGES)


def as_object(value: Json) -> Json:
    """JSON that a text holds, whole or in a code fence or among words; else the value as it is."""
    if not isinstance(value, str):
        return value
    for text in (value, *(found.group(1) for found in _FENCE.finditer(value)), *_braced(value)):
        try:
            found = json.loads(text)
        except ValueError:
            continue
        if isinstance(found, dict | list):
            return found
    return value


def _braced(text: str) -> Iterator[str]:
    """From the first brace or bracket to the last that closes it."""
    for opens, closes in ("{}", "[]"):
        start, end = text.find(opens), text.rfind(closes)
        if 0 <= start < end:
            yield text[start : end + 1]


def same(wanted: Json, given: Json) -> bool:
    """Whether two values are one, however they are written; objects field by field."""
    if isinstance(wanted, dict | list) or isinstance(given, dict | list):
        wanted, given = as_object(wanted), as_object(given)
    if isinstance(wanted, dict) and isinstance(given, dict):
        return wanted.keys() == given.keys() and all(same(wanted[name], given[name]) for name in wanted)
    if isinstance(wanted, list) and isinstance(given, list):
        return len(wanted) == len(given) and all(map(same, wanted, given))
    numbers = [_as_number(one) for one in (wanted, given)]
    if numbers[0] is not None and numbers[1] is not None:
        return math.isclose(numbers[0], numbers[1], rel_tol=_CLOSE, abs_tol=_CLOSE)
    return plain(as_text(wanted)) == plain(as_text(given))


def _as_number(value: Json) -> float | None:
    """A number, or a text that is nothing else."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return float(value)
    found = _NUMBER.fullmatch(value.strip()) if isinstance(value, str) else None
    return _value(found.group()) if found else None


def _holds(said: str, wanted: Json) -> bool:
    number = _as_number(wanted)
    if number is not None:
        return any(math.isclose(one, number, rel_tol=_CLOSE, abs_tol=_CLOSE) for one in numbers_in(said))
    return re.search(rf"(?<!\w){re.escape(plain(as_text(wanted)))}(?!\w)", plain(said)) is not None


def _last_number(value: Json) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return float(value)
    found = numbers_in(as_text(value))
    return found[-1] if found else None


def numbers_in(text: str) -> list[float]:
    """The numbers in a text, whatever stands between their digits: 1,234.50 and 1.234,50 and 1 234,50 are one."""
    return [_value(found.group()) for found in _NUMBER.finditer(text)]


def _value(written: str) -> float:
    """Of two kinds of mark the last is the decimal one; one alone is, unless three digits or another follow."""
    text = re.sub(r"[\s'’]", "", written).replace("−", "-")
    dots, commas = text.count("."), text.count(",")
    if dots and commas:
        grouping = "," if text.rfind(".") > text.rfind(",") else "."
    elif commas:
        grouping = "," if commas > 1 or re.search(r"\d,\d{3}(?!\d)", text) else ""
    else:
        grouping = "." if dots > 1 else ""
    return float((text.replace(grouping, "") if grouping else text).replace(",", "."))


def _calls(value: Json) -> Iterator[tuple[str, Json]]:
    """Name and arguments of each call; None = nothing is said of arguments."""
    value = as_object(value)
    if isinstance(value, list):
        for one in value:
            yield from _calls(one)
    elif isinstance(value, dict) and "tool_calls" in value:
        yield from _calls(value["tool_calls"])
    elif isinstance(value, dict) and isinstance(value.get("function"), dict):
        yield from _calls(value["function"])
    elif isinstance(value, dict) and (name := value.get("tool") or value.get("name")):
        yield str(name), as_object(value.get("arguments"))
    elif isinstance(value, str) and value.strip():
        yield value, None


def _same_call(wanted: tuple[str, Json], given: tuple[str, Json]) -> bool:
    named = plain(wanted[0]) == plain(given[0])
    return named and (wanted[1] is None or same(wanted[1], given[1] if given[1] is not None else {}))
