"""What one cell of anybody's table means: a number, a moment, a text, an id; the same for every command.

Why one place: `True` was a score to one command, a word to the next and an error to the third, and nobody could
tell which. What cannot be read is a ValueError whose text says what it is and the remedy; no cell is guessed at.
"""

import math
import re
import unicodedata
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final

_WORDS: Final = {
    "true": 1.0, "pass": 1.0, "passed": 1.0, "yes": 1.0, "false": 0.0, "fail": 0.0, "failed": 0.0, "no": 0.0,
}  # fmt: skip
_WITH_COMMA: Final = re.compile(r"[+-]?\d+,\d+")
_DIGITS: Final = re.compile(r"[+-]?\d+(\.\d*)?")
_INVISIBLE: Final = "\ufeff\u200b\u200c\u200d\u2060"
_UNITS: Final = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))
"""From which size on seconds since 1970 must be nano-, micro- or milliseconds: in seconds it were the year 5138."""


def number(value: Any, *, decimal_comma: bool = False) -> float | None:
    """A number; None where the cell is empty.

    True, pass, passed and yes are 1, false, fail, failed and no are 0.

    Args:
        value: the cell.
        decimal_comma: the file separates cells by something else, so that `0,5` is one half.

    Raises:
        ValueError: it is none; not for NaN and infinity, which are the caller's to refuse.
    """
    if isinstance(value, int | float | Decimal):  # a bool is an int
        try:
            return float(value)
        except OverflowError:
            raise ValueError(f"= {excerpt(value)} is too large for a number") from None
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError(f"is {kind(value)}, not a number; rename the column, or give one number a row")
    text = value.strip()
    if text.isdecimal() and text.isascii():  # most scores of most files
        return float(text)
    if not text:
        return None
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _WITH_COMMA.fullmatch(text):
        if not decimal_comma:
            raise ValueError(f"= {excerpt(value)} is not a number; write the decimals after a point")
        text = text.replace(",", ".")
    try:
        return float(text.replace("_", "?"))
    except ValueError:
        raise ValueError(
            f"= {excerpt(value)} is not a number; write digits, true/false or pass/fail, leave the cell empty "
            "where it is not known, or rename the column"
        ) from None


def parse_time(value: Any) -> datetime | None:
    """A point in time, in UTC where it names no zone: ISO 8601, or seconds (or ms, µs, ns) since 1970.

    Raises:
        ValueError: it is neither.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        found = _parse_time(value)
    except (TypeError, ValueError, OverflowError, OSError):
        raise ValueError(f"= {excerpt(value)} is neither a time in ISO 8601 nor seconds since 1970") from None
    return None if found is None else found if found.tzinfo else found.replace(tzinfo=UTC)


def _parse_time(value: Any) -> datetime | None:
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day)
    if isinstance(value, str) and not _DIGITS.fullmatch(value.strip()):
        return datetime.fromisoformat(value.strip())
    if isinstance(value, bool):
        raise TypeError
    seconds = float(value)
    if math.isnan(seconds):
        return None
    unit = next((unit for size, unit in _UNITS if abs(seconds) >= size), 1.0)
    return datetime.fromtimestamp(seconds / unit, UTC)


def text(value: Any) -> str | None:
    """A text; None where the cell is empty. A whole number reads the same from every kind of file.

    Raises:
        ValueError: it is a list or an object, or bytes that are not UTF-8.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else str(int(value)) if value.is_integer() else str(value)
    if isinstance(value, bytes | bytearray):
        try:
            return bytes(value).decode()
        except UnicodeDecodeError:
            raise ValueError("holds bytes that are not UTF-8; write it as text") from None
    if isinstance(value, list | tuple | Mapping):
        raise ValueError(f"is {kind(value)}, not text; choose another column, or give one text a row")
    return str(value)


def identifier(value: Any) -> str | None:
    """An id: the same one for `7`, `"7"` and `7.0`, with blanks around it or without; None where it is empty.

    Raises:
        ValueError: as `text`.
    """
    said = text(value)
    if said is None:
        return None
    plain = said.strip()
    return (
        plain or None
        if plain.isascii()
        else unicodedata.normalize("NFC", plain).strip(_INVISIBLE).strip() or None
    )


def whole(value: Any) -> Any:
    """The value with each half of a surrogate pair (an emoji cut in two) replaced by U+FFFD, at any depth."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return value
    if isinstance(value, list):
        return [whole(item) for item in value]
    if isinstance(value, dict):
        return {whole(key): whole(item) for key, item in value.items()}
    return value


def kind(value: Any) -> str:
    """What a value is, in words."""
    names: tuple[tuple[type | tuple[type, ...], str], ...] = (
        (Mapping, "an object"), ((list, tuple), "a list"), (str, "text"), (bool, "true or false"),
        ((int, float, Decimal), "a number"), (type(None), "null"),
    )  # fmt: skip
    return next(
        (name for types, name in names if isinstance(value, types)), f"of type {type(value).__name__}"
    )


def excerpt(value: Any, limit: int = 40) -> str:
    """A value as an error names it: short."""
    said = repr(value)
    return said if len(said) <= limit else said[: limit - 1] + "…"
