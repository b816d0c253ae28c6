"""Messages from any team's file, a batch at a time: JSON lines, CSV or Parquet; memory for one batch only."""

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from agent.errors import BadInput
from evaluation.observation import Observation

FORMATS: Final = (".jsonl", ".ndjson", ".csv", ".parquet")
_NUMBERS: Final = ("steps", "retries", "latency_s", "cost_usd", "confidence", "outcome", "judge")
_COUNTS: Final = ("steps", "retries")

Row = dict[str, Any]


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


class MessageFile:
    """A file of messages, in order of arrival; `rows_read` says how far the last pass is."""

    def __init__(self, path: Path, columns: MessageColumns) -> None:
        """Check that the file can be read and has the columns that were asked for.

        Raises:
            BadInput: no such file, an unknown format, an empty file, or a column that is missing.
        """
        if path.suffix.lower() not in FORMATS:
            raise BadInput(f"{path}: unknown format {path.suffix!r}; give one of {', '.join(FORMATS)}")
        if not path.is_file():
            raise BadInput(f"{path}: no such file")
        self.path = path
        self.columns = columns
        self.rows_read = 0
        first = next(iter(self.rows(1)), None)
        if first is None:
            raise BadInput(f"{path}: no message in it; at least one row is needed")
        wanted = {columns.text, *columns.categories, *columns.numbers}
        missing = sorted(wanted - set(first[0]))
        if missing and path.suffix.lower() not in (".jsonl", ".ndjson"):
            found = ", ".join(first[0])
            raise BadInput(f"{path}: no column {missing[0]!r}; it has {found}: choose one with --column")

    def count(self) -> int:
        """Number of rows, an upper bound where a CSV cell holds line breaks; for progress only."""
        if self.path.suffix.lower() == ".parquet":
            from pyarrow.parquet import ParquetFile

            with ParquetFile(self.path) as file:
                return int(file.metadata.num_rows)
        lines = 0
        with self.path.open("rb") as file:
            while block := file.read(1 << 20):
                lines += block.count(b"\n")
        return max(lines - (self.path.suffix.lower() == ".csv"), 1)

    def batches(self, size: int) -> Iterator[tuple[list[Observation], list[Row]]]:
        """Observations and the rows they were made from, `size` at a time, the last batch shorter."""
        for rows in self.rows(size):
            yield [self._observation(row, i) for i, row in enumerate(rows, start=self.rows_read + 1)], rows
            self.rows_read += len(rows)

    def rows(self, size: int) -> Iterator[list[Row]]:
        """Plain rows, `size` at a time."""
        self.rows_read = 0
        source = self._parquet(size) if self.path.suffix.lower() == ".parquet" else self._lines()
        batch: list[Row] = []
        for row in source:
            batch.append(row)
            if len(batch) == size:
                yield batch
                batch = []
        if batch:
            yield batch

    def _lines(self) -> Iterator[Row]:
        return self._csv() if self.path.suffix.lower() == ".csv" else self._json_lines()

    def _json_lines(self) -> Iterator[Row]:
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise BadInput(f"{self.path}:{number}: not JSON in UTF-8 ({error})") from None
                if not isinstance(row, dict):
                    raise BadInput(f"{self.path}:{number}: {type(row).__name__} instead of an object")
                yield row

    def _csv(self) -> Iterator[Row]:
        with self.path.open(encoding="utf-8-sig", newline="") as lines:
            try:
                for row in csv.DictReader(lines, strict=True):
                    row.pop(None, None)
                    yield {name: cell or None for name, cell in row.items()}
            except (csv.Error, UnicodeDecodeError) as error:
                raise BadInput(f"{self.path}: not CSV in UTF-8 ({error})") from None

    def _parquet(self, size: int) -> Iterator[Row]:
        from pyarrow.lib import ArrowInvalid
        from pyarrow.parquet import ParquetFile

        try:
            with ParquetFile(self.path) as file:
                for batch in file.iter_batches(batch_size=min(max(size, 1_000), 10_000)):
                    yield from batch.to_pylist()
        except ArrowInvalid as error:
            raise BadInput(f"{self.path}: not a Parquet file ({error})") from None

    def _observation(self, row: Row, number: int) -> Observation:
        columns = self.columns
        fields: dict[str, Any] = {
            "text": _text(row.get(columns.text)),
            "session": _text(_cell(row, columns.session)),
            "slice": _text(_cell(row, columns.slice)),
            "tool": _text(_cell(row, columns.tool)),
            "categories": {name: str(row[name]) for name in columns.categories if row.get(name) is not None},
        }
        try:
            fields["at"] = _time(_cell(row, columns.at))
            for name in _NUMBERS:
                value = _number(row.get(name))
                fields[name] = None if value is None else int(value) if name in _COUNTS else value
            numbers = {name: _number(row.get(name)) for name in columns.numbers}
            fields["numbers"] = {name: value for name, value in numbers.items() if value is not None}
            return Observation(**fields)
        except (ValidationError, ValueError) as error:
            problem = error.errors()[0] if isinstance(error, ValidationError) else None
            told = f"{problem['loc'][0]}: {problem['msg']}" if problem else str(error)
            raise BadInput(f"{self.path}: row {number}: {told}") from None


def _cell(row: Row, name: str | None) -> Any:
    return None if name is None else row.get(name)


def _text(value: Any) -> str | None:
    return None if value is None or (isinstance(value, float) and math.isnan(value)) else str(value)


def _number(value: Any) -> float | None:
    if value is None or value == "":
        return None
    number = float(value)
    return None if math.isnan(number) else number


def _time(value: Any) -> datetime | None:
    if value is None or isinstance(value, datetime):
        return value
    return datetime.fromisoformat(str(value))
