"""CSV as records, in the dialect that it is written in: commas, semicolons, tabs or bars between the cells.

Why the csv module and not pandas' or pyarrow's reader: both take a bad quote as text, and neither can say in which
line of the file a row stands once cells hold line breaks. A row with more or fewer cells than the header is refused:
which cell is which cannot be known.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final

from ratchet.agent.errors import BadInput
from ratchet.infra.files.cells import excerpt
from ratchet.infra.files.text_source import TextSource

SEPARATORS: Final = (",", ";", "\t", "|")
_SAID: Final = re.compile(r'"?sep=(.)"?\r?\n?$')
"""Excel's own first line, which names the separator and is no row."""
_LOOKED_AT: Final = 50
_LONGEST: Final = 1 << 27
"""Characters of one cell; beyond this a quote was left open."""
_NAMED: Final = 8
_NAME: Final = 40


class CsvRecords:
    """The rows below a header, each as an object from name to cell; an empty cell is None."""

    unit: Final = "line"

    def __init__(self, source: TextSource, expected: Sequence[str], *, must_fit: bool = True) -> None:
        """Find the separator and read the header.

        Args:
            source: the file.
            expected: names that the header should hold, to tell the dialect and to say what is missing.
            must_fit: refuse a first row that is no header; else whoever asks looks at `names`.

        Raises:
            BadInput: a name stands twice in the header, or the first row is no header.
        """
        self._source, self._expected = source, expected
        sample = [line for _, line in islice(source.lines(), _LOOKED_AT)]
        said = _SAID.match(sample[0]) if sample else None
        self._above = 0 if said is None else 1
        self.separator = said[1] if said else _separator(sample, expected)
        header = next(self._rows(), (1, []))[1]
        self.names = [name.strip() for name in header]
        if must_fit:
            self._check_header()

    @property
    def decimal_comma(self) -> bool:
        """Whether a comma in a number stands before its decimals."""
        return self.separator in (";", "\t")

    def records(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Each row that has a cell with something in it, with the number of its first line."""
        rows = self._rows()
        next(rows, None)
        names, n = self.names, len(self.names)
        plain = all(names)
        for number, cells in rows:
            if len(cells) != n:
                if not any(map(str.strip, cells)):
                    continue
                cells = self._fitted(number, cells)
            record: dict[str, Any] = {
                name: cell or None for name, cell in zip(names, cells, strict=True) if name
            }
            if not plain:
                self._check_unnamed(number, cells)
            if any(cell is not None and not cell.isspace() for cell in record.values()):
                yield number, record

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        csv.field_size_limit(_LONGEST)
        lines = (line for _, line in islice(self._source.lines(), self._above, None))
        rows = csv.reader(lines, delimiter=self.separator, strict=True)
        begun = 1 + self._above
        try:
            for cells in rows:
                if cells:
                    yield begun, cells
                begun = 1 + self._above + rows.line_num
        except csv.Error as error:
            raise BadInput(
                f"{self._source.path}:{begun}: not CSV ({error}); a quote inside a quoted cell is written twice"
            ) from None

    def _fitted(self, number: int, cells: list[str]) -> list[str]:
        n = len(self.names)
        if len(cells) > n and not any(map(str.strip, cells[n:])):
            return cells[:n]
        raise BadInput(
            f"{self._source.path}:{number}: {len(cells)} cells, the header names {n}; "
            + ("quote the text that holds a separator" if len(cells) > n else "complete the row or remove it")
        )

    def _check_header(self) -> None:
        named = [name for name in self.names if name]
        missing = [name for name in self._expected if name not in named]
        twice = next((name for name in named if named.count(name) > 1), None)
        if missing and any(map(_is_data, named)):
            raise BadInput(
                f"{self._source.path}: no column {missing[0]!r}; its first row looks like data "
                f"({excerpt(named[0])}, …): add a header"
            )
        if twice is not None:
            lacking = f", and {' and '.join(missing)} is missing" if missing else ""
            raise BadInput(
                f"{self._source.path}: its header names {twice!r} twice{lacking}; rename one of them"
            )

    def _check_unnamed(self, number: int, cells: list[str]) -> None:
        """A column without a name is a spreadsheet's empty one, or in the first place pandas' index."""
        for place, (name, cell) in enumerate(zip(self.names, cells, strict=True)):
            if not name and cell.strip() and not (place == 0 and cell.strip().isdigit()):
                raise BadInput(
                    f"{self._source.path}:{number}: {excerpt(cell)} stands in column {place + 1}, "
                    "which has no name; name it in the header or empty it"
                )


def short(names: Sequence[str]) -> str:
    """Column names as an error lists them."""
    listed = [name if len(name) <= _NAME else name[: _NAME - 1] + "…" for name in names[:_NAMED]]
    return (", ".join(listed) or "none") + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _is_data(name: str) -> bool:
    return len(name) > 2 * _NAME or name.replace(".", "", 1).replace("-", "", 1).isdigit() or "\n" in name


def _separator(lines: list[str], expected: Sequence[str]) -> str:
    """The one whose header holds what is expected, else the one that cuts the rows alike into the most cells."""

    def worth(separator: str) -> tuple[int, float, int]:
        try:
            rows = [row for row in csv.reader(lines, delimiter=separator) if row]
        except csv.Error:
            return 0, 0.0, 0
        if not rows:
            return 0, 0.0, 0
        found = sum(name in [cell.strip() for cell in rows[0]] for name in expected)
        alike = sum(len(row) == len(rows[0]) for row in rows) / len(rows)
        return found, alike if len(rows[0]) > 1 else 0.0, len(rows[0])

    return max(SEPARATORS, key=worth)
