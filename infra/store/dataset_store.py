"""Datasets on disk, named by the digest of what they hold: snapshots written whole, and logs that only grow.

Why the digest is taken from the rows and not from the file: another Parquet writer gives other bytes for the
same rows, and lineage names what was learned from, not how it was compressed.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import pyarrow as pa

from ratchet.agent.errors import CorruptRecord
from ratchet.agent.record import Record
from ratchet.infra.store.dataset_files import DatasetVersion, ParquetTable, datasets_folder, write_table
from ratchet.infra.store.dataset_log import is_log, rows_since

__all__ = ["DatasetVersion", "read_dataset", "read_since", "write_dataset"]

RecordT = TypeVar("RecordT", bound=Record)
_RECORD: Final = "record"
"""Column that holds each record whole, as JSON; the others are for people, pandas and Evidently."""


def write_dataset(name: str, rows: Sequence[Record]) -> DatasetVersion:
    """Write `rows` below `home/datasets/name`; no rows is a valid (empty) version.

    Raises:
        ServiceUnavailable: the disk did not take it; what was there before is untouched.
    """
    table = _table(rows)
    digest = _digest(table)
    path = datasets_folder() / name / f"{digest}.parquet"
    if path.exists():
        os.utime(path)  # it is in use again (see `ratchet.infra.store.retention`)
    else:
        write_table(table, path, name)
    return DatasetVersion(name=name, uri=str(path), digest=digest, n_rows=table.num_rows)


def _table(rows: Sequence[Record]) -> pa.Table:
    columns = [_readable(row) for row in rows]
    names = dict.fromkeys(
        name for row in columns for name in row
    )  # a field may be left out where it says nothing
    table = {name: _column([row.get(name) for row in columns]) for name in names}
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


def read_dataset(version: DatasetVersion, record_type: type[RecordT]) -> list[RecordT]:
    """The records that were written, equal to the originals, after their digest was checked."""
    return read_since(version, 0, record_type)


def column_of(version: DatasetVersion, name: str) -> list[Any]:
    """One column of a dataset that was written whole, its digest checked; no record is read."""
    return _checked(version).column(name).to_pylist() if version.n_rows else []


def read_since(version: DatasetVersion, n: int, record_type: type[RecordT]) -> list[RecordT]:
    """The same without the first `n`: what is new to one who has read so many.

    Of a dataset that only grows, nothing of the others is read, and every later version begins with the same rows.
    """
    if is_log(version):
        return list(rows_since(version, n, record_type))
    return list(_records(_checked(version), version, record_type, n))


def _records(
    table: pa.Table, version: DatasetVersion, record_type: type[RecordT], n: int
) -> Iterator[RecordT]:
    for number, text in enumerate(table.column(_RECORD)[n:].to_pylist(), start=n + 1):
        yield record_type.from_json(text, where=f"{version.uri} row {number}")


def _checked(version: DatasetVersion) -> pa.Table:
    table = ParquetTable(Path(version.uri), version.name).read()
    found = _digest(table)
    if found != version.digest:
        raise CorruptRecord(
            f"{version.uri}: its rows have digest {found}, not {version.digest}; restore or remove it"
        )
    return table
