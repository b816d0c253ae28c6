"""The truth about what is remembered: steps, vectors and credit in one SQLite file, durable once written.

Why SQLite: a transaction is on disk when it returns (write-ahead log, synchronous), a reader never waits for the
writer, and a step, its neighbours and its credit are one look-up each. Nothing else here needs to be crash-safe.
"""

import hashlib
import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

from ratchet.agent.memory.steps import Credit, Experience, tally
from ratchet.agent.trace import Trace

DAY: Final = 86_400
_IMPORTED: Final = "json_extract(record, '$.imported_from') IS NOT NULL"
_BATCH: Final = 5_000
_TABLES: Final = f"""
CREATE TABLE IF NOT EXISTS steps (
  id INTEGER PRIMARY KEY, trajectory TEXT NOT NULL, place INTEGER NOT NULL, role TEXT NOT NULL,
  case_id TEXT NOT NULL, trace_id TEXT NOT NULL, said TEXT NOT NULL, day REAL, shown INTEGER NOT NULL,
  led_to_success INTEGER NOT NULL, record TEXT NOT NULL, UNIQUE (trajectory, place, role));
CREATE INDEX IF NOT EXISTS steps_of_case ON steps (case_id);
CREATE INDEX IF NOT EXISTS imported_steps ON steps (place) WHERE {_IMPORTED};
CREATE TABLE IF NOT EXISTS vectors (id INTEGER PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS credit (
  trace_id TEXT PRIMARY KEY, shown INTEGER NOT NULL, led_to_success INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counted (trace_id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS recalls (
  entry TEXT NOT NULL, run TEXT NOT NULL, shown INTEGER NOT NULL, led_to_success INTEGER NOT NULL,
  PRIMARY KEY (entry, run)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
_READ: Final = (
    "SELECT s.id, s.record, c.shown, c.led_to_success FROM steps s "
    "LEFT JOIN credit c ON c.trace_id = s.trace_id "
)
_COMPARE: Final = (
    "SELECT s.id, s.case_id, s.trajectory, s.said, s.day, s.shown + coalesce(c.shown, 0), "
    f"s.led_to_success + coalesce(c.led_to_success, 0), v.value, {_IMPORTED} FROM steps s "
    "LEFT JOIN credit c ON c.trace_id = s.trace_id LEFT JOIN vectors v ON v.id = s.id "
)
_INSERT: Final = (
    "INSERT OR IGNORE INTO steps "
    "(id, trajectory, place, role, case_id, trace_id, said, day, shown, led_to_success, record) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_RETELL: Final = (
    "UPDATE steps SET record = ?1 WHERE trajectory = ?2 AND place = ?3 AND role = ?4 AND record <> ?1"
)
_FORGOTTEN: Final = "greatest number forgotten"
_OF_TRACE: Final = "WHERE trajectory >= ? || '/' AND trajectory < ? || '0'"
"""Of the index over trajectories, which are `trace/attempt`; `0` follows `/`."""

StepRow = tuple[Any, ...]


class StepStore:
    """Rows by number, in the order in which they came."""

    def __init__(self, path: Path | None) -> None:
        """Open the file, made where absent; None = in memory."""
        self._db = sqlite3.connect(":memory:" if path is None else path, check_same_thread=False, timeout=60)
        self._db.executescript(
            f"PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA mmap_size=2000000000; {_TABLES}"
        )

    def __len__(self) -> int:
        return int(self._one("SELECT count(*) FROM steps"))

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    @property
    def version(self) -> int:
        """Another number whenever another process has written."""
        return int(self._one("PRAGMA data_version"))

    def insert(self, steps: Iterable[Experience]) -> int:
        """Write the steps that are not there yet, each batch whole or not at all; returns how many were new.

        The record of one that is there is replaced: what an older version kept says less of where it came from.
        """
        added = 0
        rest = iter(steps)
        while rows := [_row(step) for step in islice(rest, _BATCH)]:
            with self._db:
                before = self._db.total_changes
                self._db.executemany(_INSERT, ((n, *row) for n, row in enumerate(rows, self._greatest() + 1)))
                new = self._db.total_changes - before
                if new < len(rows):
                    self._db.executemany(_RETELL, ((row[-1], *row[:3]) for row in rows))
            added += new
        return added

    def forget(self, trace_ids: Iterable[str]) -> list[int]:
        """Take out the steps of these traces; returns their numbers, which no other step will get."""
        gone: list[int] = []
        with self._db:
            greatest = self._greatest()
            for trace_id in trace_ids:
                found = self._rows(f"SELECT id FROM steps {_OF_TRACE}", trace_id, trace_id)
                gone += [number for (number,) in found]
            self._db.executemany("DELETE FROM steps WHERE id = ?", [(number,) for number in gone])
            self._db.executemany("DELETE FROM vectors WHERE id = ?", [(number,) for number in gone])
            if gone:
                self._db.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (_FORGOTTEN, str(greatest)))
        return gone

    def _greatest(self) -> int:
        """The greatest number that any step has or had: an index may still know it."""
        now = int(self._one("SELECT coalesce(max(id), 0) FROM steps"))
        once = self._rows("SELECT value FROM about WHERE name = ?", _FORGOTTEN)
        return max(now, int(once[0][0])) if once else now

    def credit(self, traces: Iterable[Trace], verdicts: Mapping[str, float]) -> int:
        """Count what recalled exemplars led to, each trace once; returns how many had not been counted.

        A trace that comes again, since a person judged it meanwhile, counts as it stands now.
        """
        fresh = 0
        with self._db:
            for trace in traces:
                new = self._db.execute("INSERT OR IGNORE INTO counted VALUES (?)", (trace.trace_id,)).rowcount
                fresh += new
                led_to = tally([trace], verdicts)
                for entry in dict.fromkeys(e for attempt in trace.attempts for e in attempt.recalled):
                    self._count(entry, trace.trace_id, led_to.get(entry, Credit()), new=bool(new))
        return fresh

    def _count(self, entry: str, run: str, now: Credit, *, new: bool) -> None:
        found = self._rows(
            "SELECT shown, led_to_success FROM recalls WHERE entry = ? AND run = ?", entry, run
        )
        if not found and not new:
            return  # counted by an older version, which did not keep as what
        before = Credit(shown=found[0][0], led_to_success=found[0][1]) if found else Credit()
        self._db.execute(
            "INSERT OR REPLACE INTO recalls VALUES (?, ?, ?, ?)", (entry, run, now.shown, now.led_to_success)
        )
        if found and now == before:
            return
        self._db.execute(
            "INSERT INTO credit VALUES (?, ?, ?) ON CONFLICT (trace_id) DO UPDATE SET "
            "shown = shown + excluded.shown, led_to_success = led_to_success + excluded.led_to_success",
            (entry, now.shown - before.shown, now.led_to_success - before.led_to_success),
        )

    def credits(self, entries: Sequence[str]) -> dict[str, Credit]:
        """What came of showing these, by trace id; what no scored run was shown is left out."""
        rows = self._rows(
            "SELECT trace_id, shown, led_to_success FROM credit "
            "WHERE shown > 0 AND trace_id IN (SELECT value FROM json_each(?))",
            json.dumps(list(entries)),
        )
        return {entry: Credit(shown=shown, led_to_success=won) for entry, shown, won in rows}

    def recalls(self, entry: str) -> dict[str, Credit]:
        """The runs that were shown this, with what came of it; one that nobody scored has a credit of nothing."""
        rows = self._rows("SELECT run, shown, led_to_success FROM recalls WHERE entry = ?", entry)
        return {run: Credit(shown=shown, led_to_success=won) for run, shown, won in rows}

    def about(self, name: str, value: str, *, replace: bool = False) -> str:
        """What is noted under a name; `value` where nothing is yet, or where it replaces what was."""
        how = "REPLACE" if replace else "IGNORE"
        with self._db:
            self._db.execute(f"INSERT OR {how} INTO about VALUES (?, ?)", (name, value))
        return str(self._one("SELECT value FROM about WHERE name = ?", name))

    def after(self, last: int, n: int) -> list[tuple[int, Experience]]:
        """The next `n` steps above a number, without their credit."""
        rows = self._rows("SELECT id, record FROM steps WHERE id > ? ORDER BY id LIMIT ?", last, n)
        return [(number, Experience.model_validate_json(record)) for number, record in rows]

    def vectors_after(self, last: int, n: int) -> list[tuple[int, bytes]]:
        """The next `n` vectors above a number; steps without words have none."""
        query = "SELECT id, value FROM vectors WHERE id > ? AND length(value) > 0 ORDER BY id LIMIT ?"
        return self._rows(query, last, n)

    @property
    def last_vector(self) -> int:
        """The greatest number that was embedded; 0 = none."""
        return int(self._one("SELECT coalesce(max(id), 0) FROM vectors"))

    def insert_vectors(self, pairs: Iterable[tuple[int, bytes]]) -> None:
        """Keep the vectors of these steps; an empty one lies nowhere."""
        with self._db:
            self._db.executemany("INSERT INTO vectors VALUES (?, ?)", pairs)

    def imported(self) -> list[Experience]:
        """The first step of every imported trajectory."""
        # `+`: SQLite would walk through all steps in the order of their numbers, and not look into the index
        return self._steps(f"WHERE {_IMPORTED} AND s.place <= 0 ORDER BY +s.id")

    @property
    def has_imports(self) -> bool:
        """Whether any step came in with another agent's log."""
        return bool(self._one(f"SELECT EXISTS (SELECT 1 FROM steps WHERE {_IMPORTED})"))

    def first_steps(self, case_ids: Sequence[str]) -> list[Experience]:
        """The first steps of all trajectories of these cases."""
        of_these = "s.case_id IN (SELECT value FROM json_each(?))"
        return self._steps(f"WHERE +s.place <= 0 AND {of_these} ORDER BY +s.id", json.dumps(list(case_ids)))

    def begin_with(self, text: str) -> list[Experience]:
        """Every step of the traces whose id begins with this."""
        return self._steps("WHERE s.trajectory >= ? AND s.trajectory < ? ORDER BY s.id", text, f"{text}~")

    def worst(self, n: int, text: str) -> tuple[list[str], int]:
        """The `n` traces whose steps led to success least of those that have the text, and how many have it."""
        has = "%" + re.sub("([%_!])", r"!\1", text) + "%"
        which = "WHERE s.place <= 0 AND s.record LIKE ? ESCAPE '!'"
        rows = self._rows(
            f"SELECT s.trace_id FROM steps s LEFT JOIN credit c ON c.trace_id = s.trace_id {which} "
            "GROUP BY s.trace_id ORDER BY "
            "(coalesce(c.led_to_success, 0) + 1.0) / (coalesce(c.shown, 0) + 2), min(s.id) LIMIT ?",
            has,
            n,
        )
        total = self._one(f"SELECT count(DISTINCT s.trace_id) FROM steps s {which}", has)
        return [trace_id for (trace_id,) in rows], int(total)

    def compared(self, numbers: Sequence[int]) -> list[StepRow]:
        """Number, case, trajectory, what was said, day, shown, led to success, vector, whether imported, of each."""
        return self._rows(f"{_COMPARE} WHERE s.id IN ({','.join('?' * len(numbers))})", *numbers)

    def step(self, number: int) -> Experience:
        """One step with its credit."""
        return self._steps("WHERE s.id = ?", number)[0]

    def around(self, step: Experience, number: int, window: int) -> list[Experience]:
        """The steps before and after it in its trajectory, in order, without itself."""
        place = step.index
        if place is None or window <= 0:
            return []
        query = f"{_READ} WHERE s.trajectory = ? AND s.place BETWEEN ? AND ? ORDER BY s.place, s.role"
        rows = self._rows(query, step.trajectory, place - window, place + window)
        return [_experience(row) for row in rows if row[0] != number]

    def steps(self) -> Iterator[Experience]:
        """Every step with its credit."""
        last = 0
        while rows := self._rows(f"{_READ} WHERE s.id > ? ORDER BY s.id LIMIT 1000", last):
            yield from map(_experience, rows)
            last = rows[-1][0]

    def _steps(self, which: str, *values: Any) -> list[Experience]:
        return [_experience(row) for row in self._rows(_READ + which, *values)]

    def _rows(self, query: str, *values: Any) -> list[StepRow]:
        return self._db.execute(query, values).fetchall()

    def _one(self, query: str, *values: Any) -> Any:
        return self._db.execute(query, values).fetchone()[0]


def _row(step: Experience) -> StepRow:
    place = -1 if step.index is None else step.index
    said = hashlib.sha256(f"{step.observation}\0{step.action}".encode()).hexdigest()[:16]
    day = None if step.recorded_at is None else step.recorded_at.timestamp() / DAY
    known = step.shown, step.led_to_success
    return step.trajectory, place, step.role, step.case_id, step.trace_id, said, day, *known, step.to_json()


def _experience(row: StepRow) -> Experience:
    step = Experience.model_validate_json(row[1])
    if row[2] is None:
        return step
    return step.model_copy(
        update={"shown": step.shown + row[2], "led_to_success": step.led_to_success + row[3]}
    )
