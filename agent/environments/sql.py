"""Questions over SQLite databases in InterCode's protocol: act = a query, observation = rows or the error.

Reward: multiset intersection over union of the rows of the last query and of the gold query, times Kendall's tau of
the order of the rows that both have (a negative one counts as 0, since a score lies in [0, 1]).
Source: Yang et al., InterCode (2023), section 3.3 and its SQL environment. What the agent runs is kept from harm by
a copy in memory, an authorizer that lets only SELECT through, a deadline, and bounds on rows and lengths.
"""

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from scipy.stats import kendalltau

from ratchet.agent.case import Case
from ratchet.agent.environment import Action, Observation, Option, Outcome
from ratchet.agent.errors import BadInput, said
from ratchet.agent.record import Json

SUBMIT = "submit"
"""The action that ends an attempt early; the last query counts."""
SCORED_ROWS = 10_000
SHOWN_ROWS = 5
SHOWN_CHARS = 300
VALUE_BYTES = 1_000_000
READING = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
)
Rows = list[tuple[object, ...]]


class Sql:
    """One question, answered by queries; an attempt ends after `turns` of them."""

    def __init__(
        self,
        folder: Path,
        *,
        turns: int = 1,
        seconds: float = 2.0,
        offer: Callable[[Case, Mapping[str, Sequence[str]]], Sequence[str]] | None = None,
    ) -> None:
        """Read databases `<name>.sqlite` in `folder`.

        Args:
            folder: where the databases lie.
            turns: queries of one attempt; 1 is InterCode's single turn, and retries are its "try again".
            seconds: a query that takes longer is broken off: an error that the agent sees.
            offer: queries to choose from, given the case and its schema; None = the agent writes freely.
        """
        self._folder, self._turns, self._seconds, self._offer = folder, turns, seconds, offer
        self._database: sqlite3.Connection | None = None

    def reset(self, case: Case) -> Observation:
        """Open a copy of the case's database and show question and schema.

        Raises:
            BadInput: the case names no question or no database, or its gold query does not run.
        """
        question, name = case.inputs.get("question"), case.inputs.get("database")
        if not isinstance(question, str) or not isinstance(name, str):
            raise BadInput(
                f"case {case.case_id}: inputs need `question` and `database` (text); got {sorted(case.inputs)}"
            )
        if self._database is not None:
            self._database.close()
        original = open_copy(self._folder, name)
        self._gold = self._run_gold(original, case)
        self._database = renamed(original, case.inputs.get("renamed") or {})
        tables = schema(self._database)
        guard(self._database)
        offered = (
            [*self._offer(case, tables), SUBMIT][: None if self._turns > 1 else -1] if self._offer else []
        )
        self._options = tuple(Option(name=query) for query in offered)
        self._rows: Rows | None = None
        self._error, self._left = "", self._turns
        listed = "; ".join(f"{table}({', '.join(columns)})" for table, columns in tables.items())
        self._question, self._tables = question, f"Tables: {listed}"
        return Observation(text=f"{question} {self._tables}", options=self._options)

    def step(self, action: Action) -> tuple[Observation, bool]:
        """Run the query; what it gave stands behind the question."""
        if action.name.strip().rstrip(";").lower() == SUBMIT:
            return Observation(text="submitted"), True
        assert self._database is not None, "reset comes first"
        self._left -= 1
        try:
            self._rows, self._error = run_query(self._database, action.name, self._seconds), ""
            said = rows_as_text(self._rows)
        except (sqlite3.Error, sqlite3.Warning, OverflowError, UnicodeError) as error:
            self._rows, self._error = None, f"{error}"[:SHOWN_CHARS]
            said = f"Error: {self._error}"
        text = f"{self._question} Last query: {said} {self._tables}"
        return Observation(text=text, options=self._options), self._left <= 0

    def outcome(self) -> Outcome:
        """1 where the last query's rows are the gold query's; None where no gold query is known."""
        if self._gold is None:
            return Outcome()
        score = 0.0 if self._rows is None else agreement(self._rows, self._gold)
        if score == 1:
            return Outcome(score=1.0)
        said = f"The query failed: {self._error}" if self._error else "The rows are not those asked for."
        return Outcome(
            score=score, feedback=said if self._rows is not None or self._error else "No query ran."
        )

    def _run_gold(self, database: sqlite3.Connection, case: Case) -> Rows | None:
        if case.expected is None:
            return None
        try:
            return run_query(database, str(case.expected), 10 * self._seconds)
        except sqlite3.Error as error:
            raise BadInput(
                f"case {case.case_id}: the gold query {case.expected!r} does not run: {said(error)}: "
                "correct or drop it"
            ) from error


def open_copy(folder: Path, name: str) -> sqlite3.Connection:
    """The database in memory: nothing that is run on it reaches the file."""
    path = folder / f"{name}.sqlite"
    if Path(name).name != name or not path.is_file():
        raise BadInput(f"no database {name!r} in {folder}: give the name of a .sqlite file there")
    source = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    copy = sqlite3.connect(":memory:")
    copy.text_factory = lambda raw: raw.decode("utf-8", "replace")
    try:
        source.backup(copy)
    finally:
        source.close()
    return copy


def renamed(database: sqlite3.Connection, names: Mapping[str, str]) -> sqlite3.Connection:
    """The database with tables under other names (those that it has)."""
    for old in set(schema(database)) & set(names):
        database.execute(f"ALTER TABLE {quoted(old)} RENAME TO {quoted(names[old])}")
    return database


def quoted(name: str) -> str:
    """An SQL identifier, whatever stands in it."""
    return '"' + name.replace('"', '""') + '"'


def schema(database: sqlite3.Connection) -> dict[str, list[str]]:
    """Columns of each table, in the order of their making."""
    tables = database.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY rootpage"
    )
    return {
        name: [row[1] for row in database.execute(f"PRAGMA table_info({quoted(name)})")]
        for (name,) in tables.fetchall()
    }


def guard(database: sqlite3.Connection) -> None:
    """From now on only reading; no value longer than a megabyte."""
    database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, VALUE_BYTES)
    database.set_authorizer(lambda what, *_: sqlite3.SQLITE_OK if what in READING else sqlite3.SQLITE_DENY)


def run_query(database: sqlite3.Connection, query: str, seconds: float) -> Rows:
    """The query's rows.

    Raises:
        sqlite3.Error: it does not run, takes too long, or gives more than `SCORED_ROWS` rows.
    """
    until = time.monotonic() + seconds
    database.set_progress_handler(lambda: int(time.monotonic() > until), 10_000)
    try:
        rows: Rows = database.execute(query).fetchmany(SCORED_ROWS + 1)
    except sqlite3.OperationalError as error:
        if str(error) == "interrupted":
            raise sqlite3.OperationalError(f"broken off after {seconds:g} s: ask for less") from error
        raise
    finally:
        database.set_progress_handler(None, 0)
    if len(rows) > SCORED_ROWS:
        raise sqlite3.DataError(f"more than {SCORED_ROWS} rows: add a condition or LIMIT")
    return rows


def rows_as_text(rows: Rows) -> str:
    """The first rows, as the agent sees them."""
    if not rows:
        return "No rows."
    first = "; ".join(", ".join(str(value) for value in row) for row in rows[:SHOWN_ROWS])
    return f"{len(rows)} rows: {first}"[:SHOWN_CHARS]


def agreement(rows: Rows, gold: Rows) -> float:
    """InterCode's reward in [0, 1]: 1 only for the same rows, in the same order."""
    ours, theirs = [repr(row) for row in rows], [repr(row) for row in gold]
    both = Counter(ours) & Counter(theirs)
    either = Counter(ours) | Counter(theirs)
    if not either:
        return 1.0
    score = both.total() / either.total()
    tau = _order(_only(ours, both), _only(theirs, both))
    return score * max(tau, 0.0)


def _only(rows: Sequence[str], wanted: Counter[str]) -> list[str]:
    left, found = wanted.copy(), []
    for row in rows:
        if left[row] > 0:
            left[row] -= 1
            found.append(row)
    return found


def _order(ours: Sequence[str], theirs: Sequence[str]) -> float:
    """Kendall's tau-b of two lists of the same rows; 1 where there is no order to compare."""
    if list(ours) == list(theirs):
        return 1.0
    rank = {row: index for index, row in enumerate(sorted(set(ours)))}
    return float(kendalltau([rank[row] for row in ours], [rank[row] for row in theirs]).statistic)


def sql_cases(
    folder: Path, *, databases: Sequence[str] = (), renamed: Mapping[str, str] | None = None
) -> tuple[Case, ...]:
    """The questions in `questions.json` of a folder of databases; the slice is the database.

    Args:
        folder: holds `questions.json` (`db`, `query`, `gold`) and the databases.
        databases: only these; empty = all.
        renamed: drift: these tables bear other names from now on. The gold query runs on the names of old.
    """
    path = folder / "questions.json"
    if not path.is_file():
        raise BadInput(f"no questions.json in {folder}: give the folder of an InterCode-SQL data set")
    rows: list[dict[str, Json]] = json.loads(path.read_text(encoding="utf-8"))
    drift: dict[str, Json] = {"renamed": dict(renamed)} if renamed else {}
    cases = (
        Case(
            inputs={"question": row["query"], "database": row["db"], **drift},
            expected=row["gold"],
            slice=row["db"],
        )
        for row in rows
        if not databases or row["db"] in databases
    )
    return tuple({case.case_id: case for case in cases}.values())
