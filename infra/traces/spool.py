"""Lines that could not be sent, on disk until they can: nothing a service was down for is lost.

Why append and fsync under a lock: two processes may fail at once, and the machine may be what failed.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from ratchet.agent.errors import ServiceUnavailable
from ratchet.infra.locks import held


def spool_lines(path: Path, lines: Sequence[str]) -> None:
    """Append whole lines durably; a write that fails leaves the file as it was.

    Raises:
        ServiceUnavailable: the disk did not take them; the caller still holds the only copy.
    """
    data = "".join(f"{line}\n" for line in lines).encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _lock(path), path.open("ab") as file:
            _append_or_undo(file.fileno(), data)
    except OSError as error:
        raise ServiceUnavailable(
            f"{path}: {len(lines)} lines are NOT saved ({error.strerror or error}); "
            "free disk space and call again with the same records"
        ) from error


def _append_or_undo(descriptor: int, data: bytes) -> None:
    before = os.fstat(descriptor).st_size
    try:
        written = 0
        while written < len(data):
            written += os.write(descriptor, data[written:])
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, before)
        raise


def drain_spool(path: Path, send: Callable[[list[str]], Sequence[str]]) -> int:
    """Hand all lines to `send`, then keep only those that it returned; if it raises, all stay.

    Returns:
        The number of lines that are gone.
    """
    if not path.exists():
        return 0
    with _lock(path):
        lines = [line for line in path.read_text().splitlines() if line.strip()]
        kept = send(lines) if lines else []
        rest = path.with_suffix(".rest")
        rest.write_text("".join(f"{line}\n" for line in kept))
        rest.replace(path)
        return len(lines) - len(kept)


def count_spooled(folder: Path) -> int:
    """Lines below `folder` that wait to be sent; those set aside as corrupt count, too."""
    return sum(
        sum(bool(line.strip()) for line in path.read_text().splitlines()) for path in folder.glob("*.jsonl")
    )


def _lock(path: Path) -> AbstractContextManager[None]:
    return held(path.with_suffix(path.suffix + ".lock"), f"a writer of {path.name}", patience_s=60)
