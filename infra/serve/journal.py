"""What was answered, on disk before the caller is told so: one append-only journal per serving process.

Decision: group commit without a timer. Lines that come while an fsync runs are written together as soon as it ends,
so a lone request waits for one fsync, and sixty-four at once share it. Another process reads the journal and sends it
to MLflow (`ratchet.infra.serve.sender`); a segment is deleted there, once MLflow has all of it.
"""

import asyncio
import os
import threading
import uuid
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from filelock import FileLock

from ratchet.agent.errors import ServiceUnavailable

SEGMENT_BYTES: Final = 8 << 20
"""A segment that has grown to this is closed; MLflow being down costs disk, never memory."""
WRITER: Final = "writer.lock"
"""Held by the process that writes into the folder, as long as it lives."""
NEW: Final = "."
"""Begins the name of a folder that is not locked yet."""
Batch = list[tuple[bytes, "asyncio.Future[None]"]]


def journals_folder(home: Path, project: str) -> Path:
    """Where the journals of all processes that served the project lie."""
    return home / "serve" / project / "journals"


class Journal:
    """Appends lines durably; to be used on one event loop."""

    def __init__(self, journals: Path) -> None:
        """Begin a journal in a folder of its own below `journals`.

        Raises:
            ServiceUnavailable: the disk has no place for it.
        """
        name = uuid.uuid4().hex
        self.folder = journals / name
        new = journals / f"{NEW}{name}"
        try:
            new.mkdir(parents=True, mode=0o700)
            self._owner = FileLock(new / WRITER)
            self._owner.acquire(timeout=0)
            new.rename(
                self.folder
            )  # before it was locked, another process might have taken it for a dead one's
            self.n_lines = self._n_segments = self._size = 0
            self._segment = -1
            self._next_segment()
        except OSError as error:
            raise _not_saved(self.folder, error) from error
        self._loop = asyncio.get_running_loop()
        self._waiting: Batch = []
        self._is_writing = False
        self._batches: SimpleQueue[Batch | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._write_all, name="journal", daemon=True)
        self._thread.start()

    async def commit(self, line: bytes) -> None:
        """Return when the line, which ends with a newline and holds no other, is on disk.

        Raises:
            ServiceUnavailable: the disk did not take it.
        """
        done = self._loop.create_future()
        self._waiting.append((line, done))
        if not self._is_writing:
            self._hand_over()
        await done

    async def close(self) -> None:
        """Wait for what is being written, and let the folder go."""
        await self.commit(b"")
        self._batches.put(None)
        await asyncio.to_thread(self._thread.join)
        os.close(self._segment)
        self._owner.release()

    def _hand_over(self) -> None:
        batch, self._waiting = self._waiting, []
        self._is_writing = True
        self._batches.put(batch)

    def _written(self, batch: Batch, error: OSError | None) -> None:
        for _, done in batch:
            if done.done():  # its caller has left
                continue
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(_not_saved(self.folder, error))
        if self._waiting:
            self._hand_over()
        else:
            self._is_writing = False

    def _write_all(self) -> None:
        while (batch := self._batches.get()) is not None:
            error = None
            try:
                self._append(b"".join(line for line, _ in batch))
                self.n_lines += sum(bool(line) for line, _ in batch)
            except OSError as failure:
                error = failure
            self._loop.call_soon_threadsafe(self._written, batch, error)

    def _append(self, data: bytes) -> None:
        if self._size >= SEGMENT_BYTES:
            self._next_segment()
        try:
            written = 0
            while written < len(data):
                written += os.write(self._segment, data[written:])
            os.fdatasync(self._segment)
        except OSError:
            size, self._size = (
                self._size,
                SEGMENT_BYTES,
            )  # should what was half written stay, nothing follows it
            os.ftruncate(self._segment, size)
            self._size = size
            raise
        self._size += len(data)

    def _next_segment(self) -> None:
        """Open one, named by the number of lines before it, and make its name durable, too."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        opened = os.open(self.folder / f"{self.n_lines:012}-{self._n_segments:06}.jsonl", flags, 0o600)
        for place in (self.folder, self.folder.parent):
            directory = os.open(place, os.O_RDONLY)
            os.fsync(directory)
            os.close(directory)
        if self._segment >= 0:
            os.close(self._segment)
        self._segment, self._size = opened, 0
        self._n_segments += 1


def _not_saved(folder: Path, error: OSError) -> ServiceUnavailable:
    return ServiceUnavailable(
        f"{folder}: the trace is NOT saved ({error.strerror or error}); free disk space and ask again"
    )
