"""Datasets on disk: Parquet, named by the digest of its rows, written whole or not at all.

Why the digest is taken from the rows and not from the file: another Parquet writer gives other bytes for the
same rows, and lineage names what was learned from, not how it was compressed.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from agent.errors import BadInput, CorruptRecord, ServiceUnavailable
from agent.record import Record
from infra.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

RecordT = TypeVar("RecordT", bound=Record)
_RECORD: Final = "record"
"""Column that holds each record whole, as JSON; the others are for people, pandas and Evidently."""


class DatasetVersion(Record):
    """One version of a dataset: the same rows are the same version."""

    name: str
    uri: str
    """Path of the Parquet file; `datasets.load_dataset("parquet", data_files=uri)` reads it."""
    digest: str
    """First 16 hex digits of the SHA-256 of the rows, in their order."""
    n_rows: int


def write_dataset(name: str, rows: "Sequence[Record] | pd.DataFrame") -> DatasetVersion:
    """Write `rows` below `home/datasets/name`; no rows is a valid (empty) version.

    Raises:
        ServiceUnavailable: the disk did not take it; what was there before is untouched.
    """
    table = _table(rows)
    digest = _digest(table)
    folder = Settings().home / "datasets" / name
    path = folder / f"{digest}.parquet"
    version = DatasetVersion(name=name, uri=str(path), digest=digest, n_rows=table.num_rows)
    if path.exists():
        return version
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_whole(table, path)
    except OSError as error:
        raise ServiceUnavailable(
            f"dataset {name} ({table.num_rows} rows) was not written to {folder}: {error.strerror or error}; "
            f"{_free(folder)}; earlier versions are untouched: free space and repeat"
        ) from error
    return version


def _table(rows: "Sequence[Record] | pd.DataFrame") -> pa.Table:
    if not isinstance(rows, Sequence):
        return pa.Table.from_pandas(rows, preserve_index=False)
    columns = [_readable(row) for row in rows]
    names = list(columns[0]) if columns else []
    table = {name: _column([row[name] for row in columns]) for name in names}
    return pa.table({_RECORD: pa.array([row.to_json() for row in rows], pa.string()), **table})


def _readable(row: Record) -> dict[str, Any]:
    fields = row.model_dump(mode="json")
    return {
        name: json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value
        for name, value in fields.items()
    }


def _column(values: list[Any]) -> pa.Array:
    """Values of one kind keep it; a field that is now text, now number is text throughout."""
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) <= 1 or kinds <= {int, float}:
        return pa.array(values)
    return pa.array(
        [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
    )


def _digest(table: pa.Table) -> str:
    sha = hashlib.sha256(json.dumps(table.column_names).encode())
    for batch in table.to_batches(max_chunksize=10_000):
        for row in batch.to_pylist():
            sha.update(
                json.dumps(row, ensure_ascii=False, default=str).encode("utf-8", "surrogatepass") + b"\n"
            )
    return sha.hexdigest()[:16]


def _write_whole(table: pa.Table, path: Path) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            pq.write_table(table, file)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _free(folder: Path) -> str:
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return f"{shutil.disk_usage(place).free / 1e6:,.1f} MB free there"


def load_frame(version: DatasetVersion) -> "pd.DataFrame":
    """The dataset as a pandas frame, after its digest was checked."""
    return _checked(version).to_pandas()  # type: ignore[no-any-return]


def read_dataset(version: DatasetVersion, record_type: type[RecordT]) -> list[RecordT]:
    """The records that were written, equal to the originals, after the digest was checked."""
    return list(_records(_checked(version), version, record_type))


def _records(table: pa.Table, version: DatasetVersion, record_type: type[RecordT]) -> Iterator[RecordT]:
    if _RECORD not in table.column_names:
        raise BadInput(
            f"{version.uri} was written from a frame and holds no records: read it with load_frame"
        )
    for number, text in enumerate(table.column(_RECORD).to_pylist(), start=1):
        yield record_type.from_json(text, where=f"{version.uri} row {number}")


def _checked(version: DatasetVersion) -> pa.Table:
    try:
        table = pq.read_table(version.uri, partitioning=None)
    except FileNotFoundError as error:
        raise BadInput(
            f"dataset {version.name} is not at {version.uri}: restore it or collect again"
        ) from error
    except (OSError, pa.ArrowInvalid) as error:
        raise CorruptRecord(
            f"{version.uri}: not a readable Parquet file ({error}); restore or remove it"
        ) from error
    found = _digest(table)
    if found != version.digest:
        raise CorruptRecord(
            f"{version.uri}: its rows have digest {found}, not {version.digest}; restore or remove it"
        )
    return table
