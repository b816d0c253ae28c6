"""Errors of libraries, as one line with the remedy; what nobody foresaw stays whole."""

import errno
import sqlite3

import httpx
import pyarrow as pa
import pytest
from sqlalchemy.exc import OperationalError

from ratchet.infra.failures import in_one_line, keep_traceback


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/data/x"), "the disk is full (/data/x): free"),
        (RuntimeError("artifact: [Errno 28] No space left on device"), "the disk is full ("),
        (OSError(errno.EACCES, "Permission denied", "/data/x"), "/data/x is not ours to write (Permission"),
        (sqlite3.OperationalError("database is locked"), "a database is locked by another program"),
        (
            OperationalError("INSERT …", {}, sqlite3.OperationalError("database is locked")),
            "a database is locked by another program",
        ),
        (sqlite3.DatabaseError("database disk image is malformed"), "a database below "),
        (httpx.ReadTimeout(""), "Prefect's server does not answer (ReadTimeout): see"),
        (pa.ArrowInvalid("Couldn't deserialize thrift"), "a dataset below "),
    ],
)
def test_what_libraries_raise_is_one_line_with_a_remedy(error, line):
    told = in_one_line(error)
    assert told is not None
    assert told.startswith(line)
    assert "\n" not in told
    outer = RuntimeError("something else")
    outer.__cause__ = error
    assert in_one_line(outer) == told


def test_what_nobody_foresaw_is_not_explained_away():
    assert in_one_line(KeyError("x")) is None


def test_a_traceback_is_kept_where_the_line_says():
    try:
        raise ZeroDivisionError("of a proposer")
    except ZeroDivisionError as error:
        path = keep_traceback("p", "prompt", error)
    assert "ZeroDivisionError: of a proposer" in path.read_text()
    assert "Traceback (most recent call last)" in path.read_text()
