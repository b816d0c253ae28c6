"""The first start of a home: a kill at any moment of it costs a second start, and nothing else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ratchet.infra.settings import Settings
from ratchet.infra.stack.mlflow_database import ensure_database
from ratchet.infra.traces.write import collect, log_traces

pytestmark = pytest.mark.slow

DIE_AFTER = """
import os, signal, sys
from sqlalchemy import event
from sqlalchemy.engine import Engine

@event.listens_for(Engine, "after_cursor_execute")
def die(connection, cursor, statement, *_):
    if sys.argv[1] in statement:
        os.kill(os.getpid(), signal.SIGKILL)

from ratchet.infra.mlflow_client import connect
connect("p")
"""


def kill_first_start(home: Path, statement: str) -> None:
    given = os.environ | {"RATCHET_HOME": str(home)}
    killed = subprocess.run([sys.executable, "-c", DIE_AFTER, statement], env=given, check=False, timeout=300)
    assert killed.returncode == -9


def test_a_start_that_was_killed_anywhere_is_made_good_by_the_next(tmp_path, monkeypatch, make_trace):
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path))
    for statement in ("CREATE TABLE runs", "CREATE TABLE _alembic_tmp_experiments"):
        kill_first_start(tmp_path, statement)
        assert not (tmp_path / "mlflow.db").exists()
    log_traces("p", [make_trace()])
    assert len(collect("p").traces) == 1
    assert (tmp_path / "mlflow.db").stat().st_mode & 0o077 == 0
    before = (tmp_path / "mlflow.db").stat().st_ino
    ensure_database(Settings())
    assert (tmp_path / "mlflow.db").stat().st_ino == before


def test_an_unfinished_database_of_an_earlier_version_is_made_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path))
    import sqlite3

    with sqlite3.connect(tmp_path / "mlflow.db") as unfinished:
        unfinished.execute("CREATE TABLE experiments (experiment_id INTEGER)")
        unfinished.execute("CREATE TABLE _alembic_tmp_experiments (experiment_id INTEGER)")
    unfinished.close()
    assert collect("p").traces == ()


def test_a_database_that_cannot_be_read_is_never_replaced(tmp_path, monkeypatch):
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path))
    (tmp_path / "mlflow.db").write_bytes(b"not a database, but perhaps somebody's only copy" * 100)
    ensure_database(Settings())
    assert (tmp_path / "mlflow.db").read_bytes().startswith(b"not a database")


def test_a_home_is_its_users_alone_and_an_older_database_becomes_so(tmp_path, monkeypatch, make_trace):
    home = tmp_path / "new" / "home"
    monkeypatch.setenv("RATCHET_HOME", str(home))
    log_traces("p", [make_trace()])
    assert home.stat().st_mode & 0o777 == 0o700
    database = home / "mlflow.db"
    for before, after in ((0o644, 0o600), (0o660, 0o660)):  # the second was opened to a group on purpose
        database.chmod(before)
        ensure_database(Settings())
        assert database.stat().st_mode & 0o777 == after
