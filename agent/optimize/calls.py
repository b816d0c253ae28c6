"""Calls that a proposer paid, kept by their content: a start after a kill pays none of them twice.

Why SQLite: each call is on disk before the next begins, and several proposers may write at once. Why a scope: a kept
answer is for going on with the very same proposal (same proposer, evidence, parent, seed and project file); another
night's proposal asks anew, since the world may have changed.
"""

import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from ratchet.agent.record import Json, content_hash

KEPT_DAYS: Final = 14
"""Days after which calls of a proposal that was never ended are forgotten."""


class Kept(NamedTuple):
    """What a call came to, and the seconds that it took."""

    value: Json
    seconds: float


class Calls:
    """One proposal's calls; `path` None keeps them in memory only. Safe for use from several threads."""

    def __init__(self, path: Path | None = None, scope: str = "") -> None:
        self._path, self._scope = path, scope
        self._memory: dict[str, Kept] = {}
        self._lock = threading.Lock()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # it holds what people asked
            with self._open() as db:
                db.execute(
                    "CREATE TABLE IF NOT EXISTS call (scope TEXT, key TEXT, value TEXT, seconds REAL, at REAL, "
                    "PRIMARY KEY (scope, key))"
                )
                db.execute("DELETE FROM call WHERE at < ?", (time.time() - KEPT_DAYS * 86400,))

    def kept(self, *content: Json) -> Kept | None:
        """What this call came to in this start or an earlier one; None = it was not made."""
        key = content_hash(list(content), length=32)
        if self._path is None:
            return self._memory.get(key)
        with self._open() as db:
            row = db.execute(
                "SELECT value, seconds FROM call WHERE scope = ? AND key = ?", (self._scope, key)
            ).fetchone()
        return Kept(json.loads(row[0]), row[1]) if row else None

    def keep(self, *content: Json, value: Json, seconds: float) -> None:
        """Write down what a call came to."""
        key = content_hash(list(content), length=32)
        if self._path is None:
            self._memory[key] = Kept(value, seconds)
            return
        with self._open() as db:
            db.execute(
                "INSERT OR REPLACE INTO call VALUES (?, ?, ?, ?, ?)",
                (self._scope, key, json.dumps(value), seconds, time.time()),
            )

    def forget(self) -> None:
        """The proposal is registered: what it came from need not be kept."""
        self._memory.clear()
        if self._path is not None:
            with self._open() as db:
                db.execute("DELETE FROM call WHERE scope = ?", (self._scope,))

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        assert self._path is not None, "kept in memory only"
        with self._lock, closing(sqlite3.connect(self._path, timeout=60)) as db, db:
            db.execute("PRAGMA secure_delete = ON")  # else what is deleted stays readable in the file
            yield db


def forget_all(path: Path) -> None:
    """Forget the calls of every proposal: people had something forgotten, and a kept answer may show it."""
    if path.exists():
        calls = Calls(path)
        with calls._open() as db:
            db.execute("DELETE FROM call")
