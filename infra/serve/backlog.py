"""Journals that are not in MLflow yet, read in order; a segment goes only when MLflow has all of it.

Decision: how far a segment was sent is not written down. A line that is read again makes the same trace with the same
id, which MLflow has already; so a kill at any moment costs time, and neither loses nor doubles anything.
"""

from collections.abc import Iterator
from itertools import islice, takewhile
from pathlib import Path
from typing import BinaryIO, Final

from filelock import FileLock, Timeout

from ratchet.infra.serve.journal import NEW, WRITER

SENDER: Final = "sender.lock"
"""Held by the process that sends the folder's lines, which is one at a time."""


class Backlog:
    """The unsent lines of one journal, whose sender's lock is held as long as this is used."""

    def __init__(self, folder: Path, *locks: FileLock) -> None:
        self.folder, self._locks = folder, locks
        self._sent: dict[Path, tuple[int, int]] = {}
        self.n_sent = 0
        """Lines that are in MLflow, of all that were ever written here."""

    def batches(self, size: int) -> Iterator[list[bytes]]:
        """Whole lines in order, at most `size` at once; each batch counts as sent when the next is asked for."""
        while segments := sorted(self.folder.glob("*.jsonl")):
            first = segments[0]
            yield from self._of_segment(first, size)
            if len(segments) == 1:
                return
            first.unlink()  # a later one exists, so nobody writes into this one
            del self._sent[first]

    def _of_segment(self, path: Path, size: int) -> Iterator[list[bytes]]:
        before = int(path.name.partition("-")[0])
        with path.open("rb") as file:
            while True:
                place, n = self._sent.setdefault(path, (0, 0))
                file.seek(place)
                batch = list(islice(_whole_lines(file), size))
                if not batch:
                    return
                yield batch
                self._sent[path] = (place + sum(map(len, batch)), n + len(batch))
                self.n_sent = max(self.n_sent, before + n + len(batch))

    def finish(self) -> None:
        """The journal's writer is gone and all is in MLflow: remove it."""
        for path in self.folder.glob("*.jsonl"):
            path.unlink()
        self.release()
        for path in self.folder.iterdir():
            path.unlink()
        self.folder.rmdir()

    def finish_if_left(self) -> None:
        """Remove it, unless its writer lives and may go on."""
        owner = FileLock(self.folder / WRITER)
        try:
            owner.acquire(timeout=0)
        except Timeout:
            return
        self._locks = (*self._locks, owner)
        self.finish()

    def release(self) -> None:
        """Let others send it."""
        for lock in self._locks:
            lock.release()


def _whole_lines(file: BinaryIO) -> Iterator[bytes]:
    """Up to one that is being written, or was torn by a kill: nobody was told of it."""
    return takewhile(lambda line: line.endswith(b"\n"), file)


def own(folder: Path) -> Backlog:
    """The backlog of the process that this one sends for."""
    lock = FileLock(folder / SENDER)
    lock.acquire()
    return Backlog(folder, lock)


def left_behind(journals: Path, mine: Path) -> Iterator[Backlog]:
    """Backlogs whose writer and sender are both gone, however they ended."""
    for folder in sorted(journals.iterdir()) if journals.exists() else ():
        if folder == mine or folder.name.startswith(NEW):
            continue
        locks = [FileLock(folder / SENDER), FileLock(folder / WRITER)]
        held: list[FileLock] = []
        try:
            for lock in locks:
                lock.acquire(timeout=0)
                held.append(lock)
        except (Timeout, FileNotFoundError):
            for lock in held:
                lock.release()
            continue
        yield Backlog(folder, *held)


def count_left_behind(journals: Path) -> int:
    """Lines of processes that are gone; some may be in MLflow already. The next `ratchet serve` sends them."""
    n = 0
    for backlog in left_behind(journals, mine=journals):
        n += sum(path.read_bytes().count(b"\n") for path in backlog.folder.glob("*.jsonl"))
        backlog.release()
    return n
