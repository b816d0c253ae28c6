"""One partition of a dataset that only grows: a Parquet file of records and of columns to read without them.

Why a digest for each column: who reads three columns of a million rows checks just these, and the partition's own
digest, by which it is named, is that of them all.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ratchet.agent.errors import CorruptRecord
from ratchet.agent.record import Record, content_hash
from ratchet.infra.store.dataset_files import ParquetTable, write_table

RecordT = TypeVar("RecordT", bound=Record)

SEALED_ROWS: Final = 20_000
SEALED_BYTES: Final = 32_000_000
"""Of records as JSON; a partition this large is never written again."""
RECORD_COLUMN: Final = "record"
"""Column that holds each record whole, as JSON."""
_ROW_GROUP: Final = 1_000
_DIGESTS: Final = b"ratchet.digests"


class Partition(Record):
    """One Parquet file."""

    digest: str
    n_rows: int
    n_bytes: int
    """Of its records as JSON."""

    @property
    def weight(self) -> int:
        """Its size in rows of usual length."""
        return weight_of(self.n_rows, self.n_bytes)


def weight_of(n_rows: int, n_bytes: int) -> int:
    """`SEALED_ROWS` where either limit is reached."""
    return max(n_rows, n_bytes * SEALED_ROWS // SEALED_BYTES)


@dataclass(frozen=True)
class Kind(Generic[RecordT]):
    """What a dataset holds, and what of it can be read without reading it all."""

    name: str
    record: type[RecordT]
    columns: pa.Schema
    """Beside the record; the first is the row's own id, the second the id of what it is about (both hexadecimal)."""
    facts: Callable[[RecordT], tuple[Any, ...]]
    """A record's values in these columns."""


def table_of(kind: Kind[RecordT], rows: Iterable[RecordT]) -> pa.Table:
    """The rows as they are stored; of rows with the same id the first."""
    columns: list[list[Any]] = [[] for _ in kind.columns]
    texts, known = [], set()
    for row in rows:
        facts = kind.facts(row)
        if facts[0] in known:
            continue
        known.add(facts[0])
        texts.append(row.to_json())
        for column, value in zip(columns, facts, strict=True):
            column.append(value)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, kind.columns, strict=True)]
    return pa.table([pa.array(texts, pa.string()), *arrays], names=[RECORD_COLUMN, *kind.columns.names])


def checked(path: Path, partition: Partition, name: str, names: Sequence[str]) -> pa.Table:
    """These columns of a partition, after the digests of just these were checked.

    Raises:
        BadInput: the file is not there.
        CorruptRecord: it is damaged.
    """
    file = ParquetTable(path, name, remedy(path.parent))
    table = file.read(names)
    found = _digest(file.schema, table, names)
    if found != partition.digest or table.num_rows != partition.n_rows:
        raise CorruptRecord(
            f"{path}: its rows have digest {found}, not {partition.digest}; {remedy(path.parent)}"
        )
    return table


def _digest(schema: pa.Schema, table: pa.Table, names: Sequence[str]) -> str:
    """The partition's, from what was read and what is noted of the rest; a damaged note cannot give the right one."""
    try:
        noted = json.loads((schema.metadata or {}).get(_DIGESTS, b"{}"))
        return content_hash(dict(noted) | {name: column_digest(table.column(name)) for name in names})
    except (ValueError, KeyError, pa.ArrowException) as error:
        return f"({error})"


def current(kind: Kind[Any], path: Path, partition: Partition, names: Sequence[str]) -> pa.Table:
    """The same with today's columns: what an older program did not write is made from the records."""
    file = ParquetTable(path, kind.name, remedy(path.parent))
    if all(one in file.schema.names for one in names):
        return checked(path, partition, kind.name, names)
    texts = checked(path, partition, kind.name, [RECORD_COLUMN]).column(RECORD_COLUMN).to_pylist()
    return table_of(kind, (kind.record.from_json(text, where=str(path)) for text in texts)).select(
        list(names)
    )


def column_digest(column: pa.ChunkedArray) -> str:
    """SHA-256 (16 hex digits) of the values and gaps, however they are chunked or compressed."""
    array = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    sha = hashlib.sha256(f"{array.type} {len(array)}".encode())
    sha.update(np.packbits(array.is_null().to_numpy(zero_copy_only=False)).tobytes())
    if pa.types.is_string(array.type):
        filled = array.fill_null("")
        lengths = pc.binary_length(filled).to_numpy(zero_copy_only=False)
        sha.update(lengths.tobytes())
        if lengths.sum():
            offsets = np.frombuffer(filled.buffers()[1], np.int32)[filled.offset :]
            sha.update(memoryview(filled.buffers()[2])[int(offsets[0]) : int(offsets[len(filled)])])
    else:
        filled = array.fill_null(pa.scalar(0).cast(array.type))
        sha.update(filled.to_numpy(zero_copy_only=False).tobytes())
    return sha.hexdigest()[:16]


def n_bytes(table: pa.Table) -> int:
    """Length of its records as JSON."""
    return int(pc.sum(pc.binary_length(table.column(RECORD_COLUMN))).as_py() or 0)


def portions(table: pa.Table) -> Iterator[pa.Table]:
    """At most `SEALED_ROWS` rows and about `SEALED_BYTES` each."""
    sizes = np.cumsum(pc.binary_length(table.column(RECORD_COLUMN)).to_numpy())
    start = 0
    while start < table.num_rows:
        before = sizes[start - 1] if start else 0
        end = int(np.searchsorted(sizes, before + SEALED_BYTES, side="right"))
        end = min(max(end, start + 1), start + SEALED_ROWS)
        yield table.slice(start, end - start)
        start = end


def write_partition(kind: Kind[Any], folder: Path, table: pa.Table) -> Partition:
    """Write the rows; the same rows are the same file.

    Raises:
        ServiceUnavailable: the disk did not take them.
    """
    digests = {name: column_digest(table.column(name)) for name in table.column_names}
    partition = Partition(digest=content_hash(digests), n_rows=table.num_rows, n_bytes=n_bytes(table))
    path = folder / f"{partition.digest}.parquet"
    if not path.exists():
        noted = table.replace_schema_metadata({_DIGESTS: json.dumps(digests).encode()})
        write_table(noted, path, kind.name, row_group=_ROW_GROUP)
    return partition


def remedy(folder: Path) -> str:
    """What to do about a file that is damaged or gone."""
    return f"restore it, or remove {folder} and collect again: everything is read anew from MLflow"


def texts_at(path: Path, rows: Sequence[int], name: str) -> Iterator[tuple[int, str]]:
    """Records as JSON by row, ascending; only the row groups that hold them are read, whose pages carry checksums."""
    file, start = ParquetTable(path, name, remedy(path.parent)), 0
    for group, size in enumerate(file.group_sizes):
        mine = [row for row in rows if start <= row < start + size]
        if mine:
            texts = file.read([RECORD_COLUMN], [group]).column(RECORD_COLUMN).to_pylist()
            yield from ((row, texts[row - start]) for row in mine if row - start < len(texts))
        start += size
