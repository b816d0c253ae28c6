"""How a table gets to the disk and back: whole or not at all, and never silently wrong.

Why pages carry checksums: a reader that takes a few columns or a few rows cannot compare the digest of them all,
and a flipped bit must not become somebody's label.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ratchet.agent.errors import BadInput, CorruptRecord, ServiceUnavailable, said
from ratchet.agent.record import Record
from ratchet.infra.settings import Settings


class DatasetVersion(Record):
    """One version of a dataset: the same rows are the same version."""

    name: str
    uri: str
    """Path of the Parquet file (`datasets.load_dataset("parquet", data_files=uri)` reads it), or of the manifest of a
    dataset that only grows (see `ratchet.infra.store.dataset_log`)."""
    digest: str
    """First 16 hex digits of the SHA-256 of the rows, in their order, or of the manifest."""
    n_rows: int


def datasets_folder() -> Path:
    """Where all datasets lie."""
    return Settings().made_home() / "datasets"


def write_table(table: pa.Table, path: Path, name: str, *, row_group: int | None = None) -> None:
    """Write Parquet, so that a crash leaves no part under `path`.

    Raises:
        ServiceUnavailable: the disk did not take it; what was there before is untouched.
    """

    def write(temporary: int) -> None:
        with os.fdopen(temporary, "wb") as file:
            pq.write_table(
                table,
                file,
                row_group_size=row_group,
                compression="zstd",
                write_page_checksum=True,
                write_statistics=False,  # else the footer holds whole records
            )
            file.flush()
            os.fsync(file.fileno())

    _whole(write, path, name, table.num_rows)


def write_text(text: str, path: Path, name: str, n_rows: int) -> None:
    """Write a small file in the same way.

    Raises:
        ServiceUnavailable: the disk did not take it; what was there before is untouched.
    """

    def write(temporary: int) -> None:
        with os.fdopen(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    _whole(write, path, name, n_rows)


def _whole(write: Callable[[int], None], path: Path, name: str, n_rows: int) -> None:
    folder = path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{path.stem}-", suffix=".part")
        try:
            write(handle)
            Path(temporary).replace(path)
        finally:
            Path(temporary).unlink(missing_ok=True)
    except OSError as error:
        raise ServiceUnavailable(
            f"dataset {name} ({n_rows} rows) was not written to {folder}: {error.strerror or error}; "
            f"{_free(folder)}; earlier versions are untouched: free space and repeat"
        ) from error


def _free(folder: Path) -> str:
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return f"{shutil.disk_usage(place).free / 1e6:,.1f} MB free there"


class ParquetTable:
    """An open Parquet file whose every failure names it."""

    def __init__(self, path: Path, name: str, remedy: str | None = None) -> None:
        """Open it.

        Args:
            path: where it is.
            name: the dataset's, for the error.
            remedy: what to do about a damaged one.

        Raises:
            BadInput: it is not there.
            CorruptRecord: it cannot be read.
        """
        self._path, self._remedy = path, remedy or "restore or remove it"
        try:
            self._file = pq.ParquetFile(path, page_checksum_verification=True)
            self.schema: pa.Schema = self._file.schema_arrow
            """Names and types of the columns, and what was noted beside them."""
        except FileNotFoundError as error:
            raise BadInput(
                f"dataset {name} is not at {path}: {remedy or 'restore it or collect again'}"
            ) from error
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            raise self._corrupt(said(error)) from error

    @property
    def group_sizes(self) -> list[int]:
        """Rows in each row group."""
        about = self._file.metadata
        return [about.row_group(number).num_rows for number in range(about.num_row_groups)]

    def read(self, columns: Sequence[str] | None = None, groups: Sequence[int] | None = None) -> pa.Table:
        """These columns (None = all) of these row groups (None = all).

        Raises:
            CorruptRecord: it cannot be read.
        """
        missing = [name for name in columns or () if name not in self.schema.names]
        if missing:
            raise self._corrupt(f"no column {missing[0]}")
        chosen = range(self._file.num_row_groups) if groups is None else groups
        try:
            return self._file.read_row_groups(
                list(chosen), columns=None if columns is None else list(columns)
            )
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            raise self._corrupt(said(error)) from error

    def _corrupt(self, why: str) -> CorruptRecord:
        return CorruptRecord(f"{self._path}: not a readable Parquet file ({why}); {self._remedy}")
