"""Pairs from a file, one at a time: JSON lines or CSV with the fields of `Pair`. Errors name the line.

Nothing is kept: a file of any length needs the memory of one line.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from agent.errors import BadInput
from evaluation.pairs import Pair

FORMATS: Final = (".jsonl", ".ndjson", ".json", ".csv")
_SCORES: Final = ("champion", "challenger", "champion_judge", "challenger_judge")


class PairFile:
    """Iterate over the pairs of a file; `line` and `bytes_read` say how far it is."""

    def __init__(self, path: Path) -> None:
        if path.suffix.lower() not in FORMATS:
            raise BadInput(f"{path}: unknown format {path.suffix!r}; give one of {', '.join(FORMATS)}")
        if not path.is_file():
            raise BadInput(f"{path}: no such file")
        self.path = path
        self.size = path.stat().st_size
        self.line = 0
        self.bytes_read = 0

    def __iter__(self) -> Iterator[Pair]:
        """Each pair in order; BadInput with file and line when one cannot be read."""
        return self._csv() if self.path.suffix.lower() == ".csv" else self._json_lines()

    def locate(self, error: BadInput) -> BadInput:
        """The same error with file and line in front, for one that a pair caused after it was read."""
        where = f"{self.path}:{self.line}: "
        return error if str(error).startswith(str(self.path)) else BadInput(where + str(error))

    def _json_lines(self) -> Iterator[Pair]:
        with self.path.open("rb") as lines:
            for raw in lines:
                self.line += 1
                self.bytes_read += len(raw)
                if not raw.strip():
                    continue
                try:
                    pair = Pair.model_validate_json(raw)
                except ValidationError as error:
                    raise BadInput(self._explain(error)) from None
                yield pair

    def _csv(self) -> Iterator[Pair]:
        with self.path.open(encoding="utf-8-sig", newline="") as lines:
            rows = csv.reader(self._counted(lines), strict=True)
            try:
                header = [name.strip() for name in next(rows, [])]
                for row in rows:
                    if row:
                        yield self._from_row(header, row)
            except (csv.Error, UnicodeDecodeError) as error:
                raise BadInput(f"{self.path}:{self.line}: not CSV in UTF-8 ({error})") from None

    def _counted(self, lines: Iterator[str]) -> Iterator[str]:
        for line in lines:
            self.line += 1
            self.bytes_read += len(line)
            yield line

    def _from_row(self, header: list[str], row: list[str]) -> Pair:
        if len(row) != len(header):
            raise BadInput(f"{self.path}:{self.line}: {len(row)} columns, the header names {len(header)}")
        cells = {name: cell for name, cell in zip(header, row, strict=True) if cell.strip()}
        try:
            return Pair.model_validate(cells)
        except ValidationError as error:
            raise BadInput(self._explain(error)) from None

    def _explain(self, error: ValidationError) -> str:
        first = error.errors(include_url=False, include_context=False)[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        return f"{self.path}:{self.line}: {_remedy(first['type'], name, first['input'], first['msg'])}"


def _remedy(kind: str, name: str, value: object, message: str) -> str:
    shown = repr(value) if len(repr(value)) <= 40 else repr(value)[:37] + "…"
    if kind == "json_invalid":
        return "not one JSON object; write one pair a line, as JSON"
    if kind == "missing":
        return f"{name} is missing; every pair needs one"
    if kind == "extra_forbidden":
        return f"unknown field {name!r}; a pair has {', '.join(Pair.model_fields)}"
    if name in _SCORES:
        return f"{name} = {shown} is outside [0, 1]; scale it to [0, 1], or leave it out if it is not known"
    return f"{name} = {shown}: {message[0].lower()}{message[1:]}" if name else message
