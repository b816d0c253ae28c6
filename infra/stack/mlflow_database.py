"""MLflow's own SQLite file below home, made whole or not at all.

Why aside and renamed: MLflow makes its tables by a hundred migrations, each committed for itself; a kill in between
leaves a file that no later start can finish (`_alembic_tmp_experiments already exists`). Only for the default
database: one that a person set up is theirs.
"""

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Final

from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from ratchet.infra.locks import held
from ratchet.infra.settings import Settings

_SUFFIXES: Final = ("", "-journal", "-wal", "-shm")


def ensure_database(settings: Settings) -> None:
    """Make the default database where it is absent or was never finished; of a used one only who reads it changes.

    Raises:
        ServiceUnavailable: another process has been making it for ten minutes.
    """
    path = settings.home / "mlflow.db"
    if settings.tracking_uri != f"sqlite:///{path}":
        return
    if not _is_unused(path):
        _close_to_others(path)
        return
    with held(settings.home / "locks" / "mlflow.lock", "a first start"):
        if _is_unused(path):
            _make(path, settings.home / "artifacts")


def _is_unused(path: Path) -> bool:
    """Without its first experiment, MLflow's last step, nothing can have been written."""
    if not path.exists():
        return True
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            return database.execute("SELECT 1 FROM experiments LIMIT 1").fetchone() is None
    except sqlite3.DatabaseError as error:
        return "no such table" in str(error)  # anything else is a used file that is broken or busy


def _close_to_others(path: Path) -> None:
    """Earlier versions left it readable for everybody; one that others may write was opened on purpose."""
    state = path.stat()
    if state.st_mode & 0o077 and not state.st_mode & 0o022 and state.st_uid == os.geteuid():
        for suffix in _SUFFIXES:
            with contextlib.suppress(FileNotFoundError):
                path.with_name(path.name + suffix).chmod(0o600)


def _make(path: Path, artifacts: Path) -> None:
    aside = path.with_name("mlflow.db.new")
    for suffix in _SUFFIXES:
        aside.with_name(aside.name + suffix).unlink(missing_ok=True)
    aside.touch(mode=0o600)
    store = SqlAlchemyStore(f"sqlite:///{aside}", artifacts.as_uri())  # type: ignore[no-untyped-call]
    store.engine.dispose()
    for suffix in _SUFFIXES[1:]:  # of a file that is replaced
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    aside.replace(path)
