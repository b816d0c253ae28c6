"""What to say of an error that nobody foresaw: one line for a person, and its traceback in a file.

Why by a list: a full disk or a locked database may show itself in any library's own exception; each is told here
once, as what it is, with the remedy. An error that is on no list is a fault of ours and is shown whole.
"""

import errno
import sqlite3
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import httpx
import pyarrow as pa
from sqlalchemy.exc import OperationalError

from ratchet.agent.errors import RatchetError, named, said
from ratchet.infra.settings import Settings

_NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FULL: Final = ("No space left on device", "database or disk is full", "File too large")
_REFUSED: Final = {errno.EROFS, errno.EACCES, errno.EPERM}


def in_one_line(error: BaseException) -> str | None:
    """The line for a person; None = nobody foresaw this one."""
    for one in _chain(error):
        line = _line(one)
        if line is not None:
            return line
    return None


def _line(error: BaseException) -> str | None:
    if isinstance(error, RatchetError):
        return str(error)
    text = str(error)
    if (isinstance(error, OSError) and error.errno in _NO_ROOM) or any(sign in text for sign in _FULL):
        where = getattr(error, "filename", None) or Settings().home
        return f"the disk is full ({where}): free space and repeat; what was written before is whole"
    if isinstance(error, OSError) and error.errno in _REFUSED:
        where = error.filename or Settings().home
        return f"{where} is not ours to write ({error.strerror}): make it writable, or set RATCHET_HOME"
    if isinstance(error, sqlite3.OperationalError | OperationalError) and "locked" in text:
        return "a database is locked by another program for too long: end that, or wait, and repeat"
    if isinstance(error, sqlite3.DatabaseError | OperationalError):
        return f"a database below {Settings().home} cannot be used ({said(error)}): restore it from a copy"
    if isinstance(error, httpx.TransportError):
        return f"Prefect's server does not answer ({named(error)}): see that it runs, then repeat"
    if isinstance(error, httpx.HTTPStatusError):
        code = error.response.status_code
        return f"Prefect's server answered {code}: see its log (a full disk, a locked database?), then repeat"
    if isinstance(error, pa.ArrowException):
        return f"a dataset below {Settings().home} cannot be read ({said(error)}): restore or remove it"
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and what it came of."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__


def keep_traceback(project: str, doing: str, error: BaseException) -> Path:
    """Write the traceback where a person can find it; the newest of its kind replaces the one before."""
    path = Settings().home / "logs" / f"{project}-{doing}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{datetime.now(UTC).isoformat()}\n{''.join(traceback.format_exception(error))}")
    return path
