"""Messages from any team's file, a batch at a time, and which of the columns asked for it really holds.

Why the columns are counted: a column that is renamed, gone or empty compares like one that never changed, so what
was not compared must be said.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from ratchet.agent.errors import BadInput
from ratchet.evaluation.drift.message import BEHAVIOUR_NUMBERS, OUTCOME_NUMBERS, Message
from ratchet.infra.files import cells
from ratchet.infra.files.csv_records import short
from ratchet.infra.files.json_records import must_be_object
from ratchet.infra.files.table import TableFile, TableRow

_NUMBERS: Final = (*BEHAVIOUR_NUMBERS, *OUTCOME_NUMBERS)
_COUNTS: Final = ("steps", "retries")
_LOOKED_AT: Final = 1_000
"""Records of JSON in one of which a column must stand to be there."""


@dataclass(frozen=True)
class MessageColumns:
    """Which column of the file holds what; a name that is None, or not in the file, is not used."""

    text: str = "text"
    session: str | None = "session"
    at: str | None = "at"
    slice: str | None = "slice"
    tool: str | None = "tool"
    categories: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()

    @property
    def asked(self) -> tuple[str, ...]:
        """Columns that must be there: the text, and what was named otherwise than by default."""
        named = (("session", self.session), ("at", self.at), ("slice", self.slice), ("tool", self.tool))
        chosen = (name for default, name in named if name is not None and name != default)
        return (self.text, *chosen, *self.categories, *self.numbers)

    @property
    def used(self) -> tuple[str, ...]:
        """All that are read where they are there."""
        usual = (self.session, self.at, self.slice, self.tool, *_NUMBERS)
        return tuple(dict.fromkeys([*self.asked, *(name for name in usual if name)]))


class MessageFile:
    """A file of messages, in order of arrival; `rows_read` says how far the last pass is."""

    def __init__(self, path: Path, columns: MessageColumns) -> None:
        """Check that the file can be read and has the columns that were asked for.

        Raises:
            BadInput: no such file, an unknown format, an empty file, or a column that is missing.
        """
        self.path, self.columns = path, columns
        self.rows_read = 0
        self.filled: Counter[str] = Counter()
        """Messages of the last pass that have something in this column."""
        self.present: set[str] = set()
        """Columns of the last pass, filled or not."""
        self._table = TableFile(path, expected=columns.asked)
        with closing(iter(self._table)) as records:
            first = [self._row(*found) for found in islice(records, _LOOKED_AT)]
        if not first:
            raise BadInput(f"{path}: no message in it; at least one row is needed")
        names = self._table.names or list(dict.fromkeys(name for row in first for name in row))
        missing = [name for name in columns.asked if name not in names]
        if missing:
            told = (
                "choose one with --column" if missing[0] == columns.text else "name another with its option"
            )
            raise BadInput(f"{path}: no column {missing[0]!r}; it has {short(names)}: {told}")

    @property
    def mended(self) -> int:
        """Messages of the last pass in which half a character was replaced."""
        return self._table.mended

    @property
    def container(self) -> str | None:
        """Name of the list that the messages were in, where one JSON object holds them."""
        return self._table.container

    def count(self) -> int:
        """Number of rows, an upper bound where a CSV cell holds line breaks; for progress only."""
        return self._table.count()

    def batches(self, size: int) -> Iterator[tuple[list[Message], list[TableRow]]]:
        """Observations and the rows they were made from, `size` at a time, the last batch shorter."""
        self.rows_read = 0
        self.filled, self.present = Counter(), set(self._table.names or ())
        with closing(iter(self._table)) as records:
            while found := list(islice(records, size)):
                rows = [self._row(*one) for one in found]
                seen = [self._observation(number, row) for (number, _), row in zip(found, rows, strict=True)]
                for row in rows:
                    self.present.update(row)
                    self.filled.update(name for name in self.columns.used if row.get(name) not in (None, ""))
                yield seen, rows
                self.rows_read += len(rows)
        if not self.filled[self.columns.text]:
            raise BadInput(
                f"{self.path}: column {self.columns.text!r} is empty in all {self.rows_read:,} rows; "
                "choose the text with --column"
            )

    def _row(self, number: int, record: Any) -> TableRow:
        try:
            return must_be_object(record)
        except ValueError as error:
            raise BadInput(f"{self._table.where(number)}: {error}") from None

    def _observation(self, number: int, row: TableRow) -> Message:
        columns = self.columns
        name = ""
        try:
            fields: dict[str, Any] = {}
            for field in ("text", "session", "slice", "tool", "at"):
                name = getattr(columns, field)
                if name and row.get(name) is not None:
                    fields[field] = _READ[field](row[name])
            for name in _NUMBERS:
                fields[name] = self._number(row, name)
                if name in _COUNTS and fields[name] is not None and not fields[name].is_integer():
                    raise ValueError(f"= {row[name]} is not a whole number; it counts, or rename the column")
            for name in columns.categories:
                value = cells.text(row.get(name))
                if value:
                    fields.setdefault("categories", {})[name] = value
            for name in columns.numbers:
                if (given := self._number(row, name)) is not None:
                    fields.setdefault("numbers", {})[name] = given
            return Message(**fields)
        except ValidationError as error:
            first = error.errors()[0]
            told = f"{first['loc'][0]} = {cells.excerpt(first['input'])}: {first['msg'][0].lower()}{first['msg'][1:]}"
            raise BadInput(f"{self._table.where(number)}: {told}") from None
        except ValueError as error:
            raise BadInput(f"{self._table.where(number)}: {name} {error}") from None

    def _number(self, row: TableRow, name: str) -> float | None:
        value = row.get(name)
        if value is None:
            return None
        found = cells.number(value, decimal_comma=self._table.decimal_comma)
        return None if found != found else found  # NaN is a cell without a number


def _filled_text(value: Any) -> str | None:
    return cells.text(value) or None


_READ: Final = {
    "text": cells.text,
    "session": cells.identifier,
    "slice": _filled_text,
    "tool": _filled_text,
    "at": cells.parse_time,
}


@dataclass(frozen=True)
class Uncompared:
    """A column of which one file holds nothing: what changed in it cannot be seen."""

    name: str
    how: str
    """`absent` or `empty`."""
    path: Path
    """Of the file that holds nothing."""


def uncompared(reference: MessageFile, current: MessageFile) -> list[Uncompared]:
    """Columns with something in them in one file, and nothing in the other, after both were read."""
    found = []
    for name in current.columns.used:
        for here, there in ((current, reference), (reference, current)):
            if there.filled[name] and not here.filled[name]:
                found.append(Uncompared(name, "empty" if name in here.present else "absent", here.path))
    return found


def unused(reference: MessageFile, current: MessageFile) -> list[str]:
    """Columns of either file that were not looked at."""
    return sorted((reference.present | current.present) - set(current.columns.used))
