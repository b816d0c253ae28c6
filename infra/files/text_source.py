"""A file as lines of text, whatever wrote it: plain or gzipped, with a byte order mark or without, UTF-8 or UTF-16.

Why nothing else is guessed: in UTF-8 a wrong byte is certain and its line can be named; in an older code page any
byte is some letter, and a file read in the wrong one is silently another text.
"""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from ratchet.agent.errors import BadInput

GZIP: Final = b"\x1f\x8b"
_HEAD: Final = 1 << 16
_TOLD_EVERY: Final = 500
_MARKS: Final = (
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_ARCHIVES: Final = {
    b"PK\x03\x04": "a zip archive or an Excel workbook",
    b"(\xb5/\xfd": "zstd",
    b"BZh": "bzip2",
}


class TextSource:
    """Lines with their numbers from 1; `bytes_read` says how far the file has been read, of `size`."""

    def __init__(self, path: Path) -> None:
        """Look at the first bytes.

        Raises:
            BadInput: no such file, or one that is packed in a way that is not read.
        """
        if not path.is_file():
            raise BadInput(f"{path}: no such file")
        self.path = path
        self.size = path.stat().st_size
        self.bytes_read = 0
        self._raw: IO[bytes] | None = None
        self._opened: list[IO[bytes]] = []
        with path.open("rb") as file:
            first = file.read(4)
        self.is_zipped = first.startswith(GZIP)
        packed = next((name for magic, name in _ARCHIVES.items() if first.startswith(magic)), None)
        if packed is not None:
            raise BadInput(f"{path}: {packed}; unpack it, or save it as CSV in UTF-8")
        try:
            with _unpacking(self.path):
                self.head = self._open().read(_HEAD)
        finally:
            self.close()
        self.encoding = _encoding(self.head)

    @property
    def beginning(self) -> str:
        """The first 64 kB as text, as far as they are."""
        return self.head.decode(self.encoding, "ignore").removeprefix("\ufeff")

    def lines(self) -> Iterator[tuple[int, str]]:
        """Each line with its end."""
        for number, line in self.raw_lines():
            if isinstance(line, UnicodeDecodeError):
                self.refuse(number, undecodable(line))
            else:
                yield number, line

    def raw_lines(self) -> Iterator[tuple[int, str | UnicodeDecodeError]]:
        """Each line, or in UTF-8 what keeps it from being text."""
        with _unpacking(self.path), self._open() as file:
            lines = self._decoded(file) if self._in_lines else enumerate(self._wrapped(file), 1)
            try:
                for number, line in lines:
                    if number % _TOLD_EVERY == 0 and self._raw is not None:
                        self.bytes_read = self._raw.tell()
                    yield number, line
            except UnicodeDecodeError as error:
                raise BadInput(
                    f"{self.path}: {self.encoding.upper()} that breaks off ({error.reason})"
                ) from None

    def text(self) -> "IO[str]":
        """The whole as one stream of text, for what is not in lines; decoding errors are UnicodeDecodeErrors."""
        return self._wrapped(self._open())

    def count_line_ends(self) -> int:
        """How many there are, without decoding."""
        lines = 0
        with _unpacking(self.path), self._open() as file:
            while block := file.read(1 << 20):
                lines += block.count(b"\n")
        return lines

    @property
    def _in_lines(self) -> bool:
        return self.encoding == "utf-8" and (b"\n" in self.head or b"\r" not in self.head)

    def _decoded(self, file: IO[bytes]) -> Iterator[tuple[int, str | UnicodeDecodeError]]:
        for number, raw in enumerate(file, 1):
            try:
                line: str | UnicodeDecodeError = raw.decode()
            except UnicodeDecodeError as error:
                line = error
            yield number, line.removeprefix("\ufeff") if number == 1 and isinstance(line, str) else line

    def _wrapped(self, file: IO[bytes]) -> IO[str]:
        encoding = "utf-8-sig" if self.encoding == "utf-8" else self.encoding
        return io.TextIOWrapper(file, encoding=encoding, newline="")

    def refuse(self, number: int, reason: str) -> None:
        """Raise BadInput about a line."""
        raise BadInput(f"{self.path}:{number}: {reason}")

    def close(self) -> None:
        """Let go of the file, also where a pass over it was not finished."""
        while self._opened:
            self._opened.pop().close()

    def _open(self) -> IO[bytes]:
        self._raw = self.path.open("rb")
        self._opened.append(self._raw)
        if self.is_zipped:
            self._opened.append(io.BufferedReader(gzip.GzipFile(fileobj=self._raw)))
        return self._opened[-1]


@contextmanager
def _unpacking(path: Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadInput(f"{path}: gzip that breaks off or is damaged ({error}); copy it again") from None


def undecodable(error: UnicodeDecodeError) -> str:
    """What is wrong with the bytes, which encoding they are likely in, and the remedy."""
    byte = error.object[error.start : error.start + 1]
    letter = byte.decode("cp1252", "replace")
    return f"not UTF-8 (byte 0x{byte.hex()}, {letter!r} in Windows-1252 and Latin-1); save the file as UTF-8"


def _encoding(head: bytes) -> str:
    marked = next((name for mark, name in _MARKS if head.startswith(mark)), None)
    if marked is not None:
        return marked
    zeros = [head[place:200:2].count(0) for place in (0, 1)]
    if max(zeros) > 0.3 * len(head[:200]) / 2:
        return "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
    return "utf-8"
