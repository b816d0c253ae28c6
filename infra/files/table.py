"""Anybody's table, one record at a time: JSON, CSV or Parquet, packed or not; the one reader of all commands.

Why one: a byte order mark, a semicolon or a `True` was read by one command and refused by the next. A record is an
object from name to cell; what a cell means, `ratchet.infra.files.cells` says. Errors name the line, record or row,
and the remedy. Memory for one record, in Parquet for a batch; one JSON object that holds a list is read as a whole.
"""

from collections.abc import Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pyarrow.lib import ArrowException
from pyarrow.parquet import ParquetFile, read_metadata, read_schema

from ratchet.agent.errors import BadInput
from ratchet.infra.files.csv_records import CsvRecords
from ratchet.infra.files.json_records import Fault, IsRecord, JsonRecords
from ratchet.infra.files.text_source import TextSource

_JSON: Final = (".jsonl", ".ndjson", ".json")
_CSV: Final = (".csv", ".tsv")
FORMATS: Final = (*_JSON, *_CSV, ".parquet")
_PARQUET: Final = b"PAR1"
_BATCH: Final = 2_000

TableRow = dict[str, Any]


class TableFile:
    """Records with their numbers; iterating again reads the file again."""

    def __init__(
        self,
        path: Path,
        *,
        expected: Iterable[str] = (),
        is_record: IsRecord | None = None,
        otherwise: str | None = None,
        wanted: str = "what is looked for",
    ) -> None:
        """Look at the beginning of the file.

        Args:
            path: ends in `.jsonl`, `.ndjson`, `.json`, `.csv`, `.tsv` or `.parquet`; all but the last, in `.gz` too.
            expected: columns that it should have, by which a CSV's dialect is told.
            is_record: whether a JSON value is a record rather than what holds records; by default, whether it is
                an object with an expected column.
            otherwise: what another ending is taken for; None = it is refused.
            wanted: what a record is, as an error says it.

        Raises:
            BadInput: no such file, a format that is not read, or a beginning that cannot be.
        """
        self.path = path
        self.expected = tuple(expected)
        self._parquet = False
        self._csv: CsvRecords | None = None
        self._json: JsonRecords | None = None
        suffix = _suffix(path)
        suffix = suffix if suffix in FORMATS or otherwise is None else otherwise
        if suffix not in FORMATS:
            raise BadInput(f"{path}: unknown format {suffix!r}; give one of {', '.join(FORMATS)}")
        self._source = TextSource(path)
        try:
            self._begin(suffix, is_record or self._has_expected, wanted)
        finally:
            self._source.close()

    def _begin(self, suffix: str, is_record: IsRecord, wanted: str) -> None:
        if self._source.head.startswith(_PARQUET) or suffix == ".parquet":
            if self._source.is_zipped:
                raise BadInput(f"{self.path}: Parquet inside gzip; unpack it")
            self._parquet = True
        elif suffix in _CSV:
            self._csv = CsvRecords(self._source, self.expected)
        else:
            self._json = JsonRecords(self._source, is_record, wanted)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._source.size

    @property
    def bytes_read(self) -> int:
        """How far the last pass is."""
        return self._source.bytes_read

    @property
    def names(self) -> list[str] | None:
        """Columns, where the file says which it has; in JSON each record has its own."""
        if self._parquet:
            return list(_of_parquet(self.path, lambda: read_schema(self.path).names))
        return None if self._csv is None else [name for name in self._csv.names if name]

    @property
    def decimal_comma(self) -> bool:
        """Whether `0,5` is one half: cells are separated by something else."""
        return self._csv is not None and self._csv.decimal_comma

    @property
    def container(self) -> str | None:
        """Name of the list in which the records were found, where one JSON object holds them."""
        return None if self._json is None else self._json.container

    @property
    def mended(self) -> int:
        """Records of the last pass in which half a character (an emoji cut in two) was replaced."""
        return 0 if self._json is None else self._json.mended

    @property
    def unit(self) -> str:
        """What the numbers count: `line`, `record` or `row`."""
        return "row" if self._parquet else self._json.unit if self._json is not None else CsvRecords.unit

    def where(self, number: int) -> str:
        """Path and place, as an error begins."""
        return f"{self.path}:{number}" if self.unit == "line" else f"{self.path}: {self.unit} {number}"

    def __iter__(self) -> Generator[tuple[int, Any]]:
        return self.records(self._refuse)

    def records(self, fault: Fault) -> Generator[tuple[int, Any]]:
        """Each record with its number; a broken line of JSON lines is told to `fault` and passed over."""
        found = (
            self._parquet_rows()
            if self._parquet
            else self._csv.records()
            if self._csv is not None
            else self._json.records(fault)
            if self._json is not None
            else iter(())
        )
        try:
            yield from found
        finally:
            self._source.close()

    def close(self) -> None:
        """Let go of the file, also where a pass over it was not finished."""
        self._source.close()

    def count(self) -> int:
        """How many records there are, an upper bound where cells hold line breaks; for progress only."""
        if self._parquet:
            return int(_of_parquet(self.path, lambda: read_metadata(self.path).num_rows))
        if self._json is not None and not self._json.in_lines:
            return max(sum(1 for _ in self), 1)
        return max(self._source.count_line_ends() - (self._csv is not None), 1)

    def _refuse(self, number: int, reason: str) -> None:
        raise BadInput(f"{self.where(number)}: {reason}")

    def _has_expected(self, value: Any) -> bool:
        return isinstance(value, Mapping) and any(name in value for name in self.expected)

    def _parquet_rows(self) -> Iterator[tuple[int, TableRow]]:
        number = 0
        file = _of_parquet(self.path, lambda: ParquetFile(self.path))
        with file:
            batches = file.iter_batches(batch_size=_BATCH)
            while (batch := _of_parquet(self.path, lambda: next(batches, None))) is not None:
                for row in batch.to_pylist():
                    number += 1
                    yield number, {name: _decoded(cell) for name, cell in row.items()}


def _of_parquet(path: Path, read: Any) -> Any:
    try:
        return read()
    except (ArrowException, OSError) as error:
        raise BadInput(
            f"{path}: not a Parquet file, or not a whole one ({str(error)[:100]}); write it again"
        ) from None


def _decoded(cell: Any) -> Any:
    """Text that was stored as bytes, as text; other bytes as they are."""
    if not isinstance(cell, bytes):
        return cell
    try:
        return cell.decode()
    except UnicodeDecodeError:
        return cell


def _suffix(path: Path) -> str:
    return Path(path.stem).suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()
