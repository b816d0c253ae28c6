"""The gate's evidence from a file, one pair at a time, and the ids of cases that a proposer saw.

Why ids are made alike before anything compares them: `7`, `"7"` and `7 ` are one case to whoever wrote them down, and
a case that is not recognised is counted twice, or passes for one that no proposer saw.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from ratchet.agent.errors import BadInput
from ratchet.evaluation.gate.pairs import Pair
from ratchet.infra.files import cells
from ratchet.infra.files.csv_records import CsvRecords, short
from ratchet.infra.files.json_records import JsonRecords, must_be_object
from ratchet.infra.files.table import TableFile
from ratchet.infra.files.text_source import TextSource

CASE_ID: Final = "case_id"
_SCORES: Final = ("champion", "challenger", "champion_judge", "challenger_judge")
_AMOUNTS: Final = ("champion_cost", "challenger_cost", "champion_latency", "challenger_latency", "propensity")
_IDS: Final = (CASE_ID, "cluster", "slice", "champion_id", "challenger_id", "judge_id")


class PairFile:
    """Iterate over the pairs of a file; `bytes_read` says how far it is, `n_read` how many there were."""

    def __init__(self, path: Path) -> None:
        """Look at the beginning: JSON lines or an array, CSV or Parquet, with the fields of `Pair` as columns."""
        self._table = TableFile(path, expected=(CASE_ID, "champion", "challenger"), is_record=_has_case_id)
        self._number = 0
        self.n_read = 0
        comma = self._table.decimal_comma
        self._read: dict[str, Callable[[Any], Any]] = dict.fromkeys(_IDS, cells.identifier)
        self._read |= dict.fromkeys(
            (*_SCORES, *_AMOUNTS), lambda value: cells.number(value, decimal_comma=comma)
        )

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._table.size

    @property
    def bytes_read(self) -> int:
        """How far it is."""
        return self._table.bytes_read

    @property
    def container(self) -> str | None:
        """Name of the list that the pairs were in, where one JSON object holds them."""
        return self._table.container

    def __iter__(self) -> Iterator[Pair]:
        """Each pair in order; BadInput with file and line when one cannot be read."""
        self.n_read = 0
        for number, record in self._table:
            self._number = number
            yield self._pair(record)
            self.n_read += 1

    def close(self) -> None:
        """Let go of the file."""
        self._table.close()

    def locate(self, error: BadInput) -> BadInput:
        """The same error with file and line in front, for one that a pair caused after it was read."""
        started = str(error).startswith(str(self._table.path)) or not self._number
        return error if started else BadInput(f"{self._table.where(self._number)}: {error}")

    def _pair(self, record: Any) -> Pair:
        name = ""
        try:
            fields = {}
            for name, value in must_be_object(record).items():
                # exact ints and floats are most of a million pairs, and need no reading
                known = value if type(value) in (int, float) and name not in _IDS else self._cell(name, value)
                if known is not None:
                    fields[name] = known
            return Pair.model_validate(fields)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            field = str(first["loc"][0]) if first["loc"] else ""
            told = _remedy(first["type"], field, first["input"], first["msg"])
        except ValueError as error:
            told = f"{name} {error}" if name else str(error)
        raise BadInput(f"{self._table.where(self._number)}: {told}")

    def _cell(self, name: str, value: Any) -> Any:
        if value is None or (isinstance(value, str) and not value.strip()):
            return None
        read = self._read.get(name)
        return value if read is None else read(value)


def _has_case_id(value: Any) -> bool:
    return isinstance(value, Mapping) and CASE_ID in value


def _remedy(kind: str, name: str, value: object, message: str) -> str:
    if kind == "missing":
        return f"{name} is missing; every pair needs one"
    if kind == "extra_forbidden":
        return f"unknown field {name!r}; a pair has {', '.join(Pair.model_fields)}"
    if name in _SCORES:
        return (
            f"{name} = {cells.excerpt(value)} is outside [0, 1]; scale it to [0, 1], "
            "or leave it out if it is not known"
        )
    return f"{name} = {cells.excerpt(value)}: {message[0].lower()}{message[1:]}" if name else message


def read_seen(path: Path) -> frozenset[str]:
    """Case ids from a file: one a line (bare, quoted, or an object with `case_id`), an array of them, or a table.

    Raises:
        BadInput: no such file, or one in which the ids cannot be told.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if ".parquet" in suffixes:
        table = TableFile(path)
        if CASE_ID not in (table.names or ()):
            raise _nameless(path, table.names or ())
        return frozenset(_seen_id(record, table.where(number)) for number, record in table)
    source = TextSource(path)
    try:
        return frozenset(_ids(source, is_table={".csv", ".tsv"} & set(suffixes) != set()))
    finally:
        source.close()


def _ids(source: TextSource, *, is_table: bool) -> Iterator[str]:
    first = next((line.strip() for line in source.beginning.splitlines() if line.strip()), "")
    if first.startswith("[") or first == "{":
        found = JsonRecords(source, lambda value: not isinstance(value, Mapping) or CASE_ID in value)
        for number, value in found.records(source.refuse):
            yield _seen_id(value, f"{source.path}: {found.unit} {number}")
        return
    if not first.startswith("{"):
        table = CsvRecords(source, (CASE_ID,), must_fit=False)
        if CASE_ID in table.names:
            for number, record in table.records():
                yield _seen_id(record, f"{source.path}:{number}")
            return
        if is_table and len(table.names) > 1:
            raise BadInput(
                f"{source.path}: no column {CASE_ID!r}; it has {short(table.names)}: name it in the header"
            )
    for number, line in source.lines():
        if line.strip():
            yield _seen_id(_unquoted(line.strip()), f"{source.path}:{number}")


def _nameless(path: Path, names: Sequence[str]) -> BadInput:
    return BadInput(f"{path}: no column {CASE_ID!r}; it has {short(names)}: rename the one with the ids")


def _unquoted(line: str) -> Any:
    if line[0] not in "{\"'":
        return line
    try:
        return json.loads(line)
    except ValueError:
        return None if line[0] == "{" else line.strip("'\"")


def _seen_id(value: Any, where: str) -> str:
    given = value.get(CASE_ID) if isinstance(value, Mapping) else value
    try:
        found = cells.identifier(given)
    except ValueError:
        found = None
    if found is None:
        raise BadInput(f"{where}: needs a JSON object with case_id, or a bare id")
    return found
