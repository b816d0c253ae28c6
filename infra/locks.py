"""One process at a time: who holds a lock is written beside it, so that whoever waits is told.

Why the system's file locks: they end with the process that holds them, however it dies. They hold below one home
on one machine; what must hold between homes on one MLflow server is decided by ids and by MLflow itself.

Order, so that no two processes wait for each other: the run of a project, then its state or its watch, then the
registry or a spool. Nobody who holds an inner one asks for an outer one.
"""

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from ratchet.agent.errors import ServiceUnavailable

_PATIENCE_S: Final = 600.0
_SAY_AFTER_S: Final = 1.0


def _silent(_: str) -> None: ...


@contextmanager
def held(
    path: Path, doing: str, *, patience_s: float = _PATIENCE_S, tell: Callable[[str], None] = _silent
) -> Iterator[None]:
    """Hold the lock at `path`; within one thread it may be taken again.

    Args:
        path: the lock's file; its folder is made.
        doing: what for, as others are told: "`ratchet improve`".
        patience_s: how long to wait for whoever holds it.
        tell: called once, with one line, where there is somebody to wait for.

    Raises:
        ServiceUnavailable: it is still held after `patience_s`, or the disk has no place for it.
    """
    lock = _acquired(path, patience_s, tell)
    outermost = lock.lock_counter == 1
    holder = _holder_file(path)
    try:
        if outermost:
            _write_holder(holder, doing)
        yield
    finally:
        if outermost:
            with contextlib.suppress(OSError):
                holder.unlink(missing_ok=True)
        lock.release()


def _acquired(path: Path, patience_s: float, tell: Callable[[str], None]) -> FileLock:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, is_singleton=True)
        began = time.monotonic()
        try:
            lock.acquire(timeout=min(_SAY_AFTER_S, patience_s), poll_interval=0.05)
        except Timeout:
            tell(f"waiting: {_holder(path)}; this goes on when that ends")
            lock.acquire(timeout=max(0.0, patience_s - (time.monotonic() - began)), poll_interval=0.2)
    except Timeout as error:
        raise ServiceUnavailable(
            f"{_holder(path)}, and did not end within {patience_s:.0f} s: wait for it, or end it, and repeat"
        ) from error
    except OSError as error:
        raise ServiceUnavailable(
            f"{path} cannot be locked ({error.strerror or error}): make room there, or make it writable, and repeat"
        ) from error
    return lock


def _holder_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.holder")


def _write_holder(path: Path, doing: str) -> None:
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    with contextlib.suppress(OSError):  # only words for who waits: a full disk must not keep the lock from us
        path.write_text(f"{doing} (process {os.getpid()} on {socket.gethostname()}) holds it since {since}")


def _holder(path: Path) -> str:
    """Who holds the lock, in words; one that has just begun may not have said it yet."""
    try:
        said = _holder_file(path).read_text().strip()
    except OSError:
        said = ""
    return said or f"another process holds {path}"
