"""JSON as records: one a line, one array, one object that holds a list, or values one after the other.

Why lines are read apart from the rest: a line that is broken can be named and left out while the next is whole; an
array that is broken has no next. Both take the memory of one record; one object is read as a whole.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from json import JSONDecodeError
from typing import IO, Any, Final

from ratchet.agent.errors import BadInput
from ratchet.infra.files.cells import excerpt, kind, whole
from ratchet.infra.files.text_source import TextSource, undecodable

Fault = Callable[[int, str], None]
"""Told of a record that cannot be read, by its number and the reason."""
IsRecord = Callable[[Any], bool]
_BLOCK: Final = 1 << 20
_NAMED: Final = 8


class JsonRecords:
    """The records of a JSON file; iterating again reads it again."""

    def __init__(self, source: TextSource, is_record: IsRecord, wanted: str = "what is looked for") -> None:
        """Find out from the beginning which of the shapes it has.

        Args:
            source: the file.
            is_record: whether a value is what is looked for, to tell a record from what holds records.
            wanted: what that is, as an error says it.
        """
        self._source, self._is_record, self._wanted = source, is_record, wanted
        self.container: str | None = None
        """Name of the list in which the records lie, where one object holds them."""
        self.in_lines = not self._holds_values()
        self.unit = "line" if self.in_lines else "record"
        self.mended = 0
        """Records with half a character in them."""

    def records(self, fault: Fault) -> Iterator[tuple[int, Any]]:
        """Each record with its number from 1: of its line, or of its place."""
        self.mended = 0
        found = self._in_lines(fault) if self.in_lines else enumerate(self._values(), 1)
        first = next(found, None)
        if first is None:
            return
        second = next(found, None)
        if second is None and self._is_container(first[1]):
            self.unit = "record"
            yield from enumerate(self._contents(first[1]), 1)
            return
        yield first
        if second is not None:
            yield second
        yield from found

    def _holds_values(self) -> bool:
        """Whether the file begins with an array, or with an object that goes on after its first line."""
        lines = self._source.beginning.strip().splitlines()
        if not lines or lines[0][0] not in "[{":
            return False
        first, others = lines[0].rstrip(), [line for line in lines[1:] if line.strip()]
        try:
            json.loads(first)
        except (JSONDecodeError, RecursionError) as error:
            cut = isinstance(error, JSONDecodeError) and error.pos >= len(first)
            return first[0] == "[" or (cut and bool(others) and not _is_object(others[0]))
        return first[0] == "[" and not others

    def _in_lines(self, fault: Fault) -> Iterator[tuple[int, Any]]:
        for number, line in self._source.raw_lines():
            if not isinstance(line, str):
                fault(number, undecodable(line))
                continue
            if line.isspace():
                continue
            try:
                yield number, self._parsed(line)
            except (ValueError, RecursionError) as error:
                fault(number, f"not JSON ({error})")

    def _parsed(self, line: str) -> Any:
        value = _DECODER.decode(line)
        return self._mended(value) if "\\u" in line else value

    def _mended(self, value: Any) -> Any:
        mended = whole(value)
        self.mended += mended != value
        return mended

    def _values(self) -> Iterator[Any]:
        """The elements of an array, or values one after the other, with the memory of one of them."""
        try:
            with self._source.text() as text:
                yield from map(self._mended, _Stream(text).values())
        except UnicodeDecodeError as error:
            for _ in self._source.lines():  # says in which line
                pass
            raise BadInput(f"{self._source.path}: {undecodable(error)}") from None
        except (ValueError, RecursionError) as error:
            shape = "one JSON array" if self._source.beginning.lstrip().startswith("[") else "JSON"
            raise BadInput(
                f"{self._source.path}: not {shape} ({error}); mend it, or write one record a line"
            ) from None

    def _is_container(self, value: Any) -> bool:
        return isinstance(value, dict) and not self._is_record(value) and bool(_lists(value))

    def _contents(self, value: dict[str, Any]) -> list[Any]:
        lists = _lists(value)
        named = [name for name, items in lists.items() if self._is_record(items[0])]
        if len(named) != 1:
            raise BadInput(
                f"{self._source.path}: one JSON object, whose lists are {', '.join(list(lists)[:_NAMED])}: none of "
                f"them, or more than one, holds {self._wanted}; give a file with that list alone"
            )
        self.container = named[0]
        return lists[named[0]]


def _is_object(line: str) -> bool:
    """Whether it stands by itself: then the line before it is one that broke off."""
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _lists(value: Mapping[str, Any]) -> dict[str, list[Any]]:
    return {name: items for name, items in value.items() if isinstance(items, list) and items}


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{excerpt(twice)} stands twice in one object; keep one")
    return found


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_object)
"""One for all lines: `json.loads` makes one for each."""


class _Stream:
    """JSON values decoded from a stream, block by block."""

    def __init__(self, text: IO[str]) -> None:
        self._text = text
        self._held, self._place, self._ended = "", 0, False

    def values(self) -> Iterator[Any]:
        in_array = self._next() == "["
        self._place += in_array
        while (character := self._next()) != ("]" if in_array else ""):
            if not character:
                raise ValueError("it breaks off")
            yield self._value()
            if in_array and self._next() == ",":
                self._place += 1
                if self._next() == "]":
                    raise ValueError("a comma before the end")
            elif in_array and self._next() not in ("]", ""):
                raise ValueError(f"no comma before {excerpt(self._held[self._place : self._place + 20])}")
        self._place += in_array
        if self._next():
            raise ValueError(f"more after its end: {excerpt(self._held[self._place : self._place + 20])}")

    def _next(self) -> str:
        """The next character that is no blank, still to be read; empty at the end."""
        while True:
            while self._place < len(self._held) and self._held[self._place] in " \t\r\n":
                self._place += 1
            if self._place < len(self._held):
                return self._held[self._place]
            if not self._read(_BLOCK):
                return ""

    def _value(self) -> Any:
        block = _BLOCK
        while True:
            try:
                value, end = _DECODER.raw_decode(self._held, self._place)
            except JSONDecodeError as error:
                cut = error.pos >= len(self._held) - 10 or error.msg.startswith("Unterminated string")
                if not cut or not self._read(block):
                    raise
            else:
                if end < len(self._held) or not self._read(block):  # a number may go on in the next block
                    self._place = end
                    return value
            block *= 2

    def _read(self, size: int) -> bool:
        more = "" if self._ended else self._text.read(size)
        self._ended = not more
        self._held = self._held[self._place :] + more
        self._place = 0
        return bool(more)


def must_be_object(value: Any) -> dict[str, Any]:
    """The value, where it is a JSON object; else a ValueError."""
    if not isinstance(value, dict):
        raise ValueError(f"{kind(value)} instead of an object")
    return value
