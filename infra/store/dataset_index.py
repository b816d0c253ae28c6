"""Where the rows of a dataset that only grows lie, by their own id and by what they are about.

Why SQLite beside Parquet: whether one of a million ids is known must cost a look-up, not a scan. It is made from
the partitions and catches up by itself, so it may be lost at any time.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ratchet.agent.errors import CorruptRecord, ServiceUnavailable

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS rows (place INTEGER PRIMARY KEY, id BLOB NOT NULL, about BLOB NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS rows_by_id ON rows (id);
CREATE INDEX IF NOT EXISTS rows_by_about ON rows (about);
"""
_ASKED_AT_ONCE: Final = 500


class DatasetIndex:
    """Places by id; every id is hexadecimal."""

    def __init__(self, path: Path) -> None:
        """Open the file, made where absent and anew where it is not an index.

        Raises:
            ServiceUnavailable: the file is locked, or the disk did not take it.
        """
        self._path = path
        with self._errors():
            try:
                self._db = _opened(path)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError:
                for one in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
                    one.unlink(missing_ok=True)
                self._db = _opened(path)

    def __len__(self) -> int:
        with self._errors():
            return int(self._db.execute("SELECT coalesce(max(place), -1) + 1 FROM rows").fetchone()[0])

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def add(self, first: int, ids: Iterable[str], about: Iterable[str]) -> None:
        """Take in rows from place `first` on, all or none."""
        rows = (
            (place, bytes.fromhex(one), bytes.fromhex(other))
            for place, (one, other) in enumerate(zip(ids, about, strict=True), start=first)
        )
        with self._errors(), self._db:
            self._db.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?, ?)", rows)

    def clear(self) -> None:
        """Forget everything."""
        with self._errors(), self._db:
            self._db.execute("DELETE FROM rows")

    def places(self, ids: Sequence[str]) -> dict[str, int]:
        """Place by id, of those that are there."""
        return dict(self._found("id", ids))

    def places_about(self, about: Sequence[str]) -> list[int]:
        """Places of all rows about these, in order."""
        return sorted(place for _, place in self._found("about", about))

    def known_about(self, about: Sequence[str]) -> set[str]:
        """Which of these any row is about."""
        return {one for one, _ in self._found("about", about)}

    def _found(self, column: str, wanted: Sequence[str]) -> Iterator[tuple[str, int]]:
        for start in range(0, len(wanted), _ASKED_AT_ONCE):
            asked = [bytes.fromhex(one) for one in wanted[start : start + _ASKED_AT_ONCE]]
            marks = ",".join("?" * len(asked))
            query = f"SELECT {column}, place FROM rows WHERE {column} IN ({marks})"
            with self._errors():
                rows = self._db.execute(query, asked).fetchall()
            yield from ((one.hex(), place) for one, place in rows)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise ServiceUnavailable(
                f"{self._path}: {error}; see that its disk has room, and repeat"
            ) from error
        except sqlite3.DatabaseError as error:
            raise CorruptRecord(
                f"{self._path}: not a readable index ({error}); remove it: it is made anew from the dataset"
            ) from error


def _opened(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=60)
    db.executescript(f"PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; {_TABLES}")
    return db
