"""Datasets that only grow: Parquet partitions, a manifest that names them, an index of ids.

Decision: adding rows writes those rows, and little else. A version is a manifest, whose digest is the version; the
newest manifest, written last and whole, is what counts, so a kill at any moment leaves the version before it and
files that nobody names (`infra.retention` removes them). Every version is the beginning of the next one: the place
of a row never changes, and "since row n" is all that a reader of news must remember.

Why eight: eight partitions of like size become one when the next rows come, as in a log-structured merge tree
(O'Neil et al., 1996), until one has `SEALED` rows or bytes. A row is written at most six times, a million rows are
about sixty files, and older manifests keep the files that they name.
Why a digest for each column: who reads three columns of a million rows checks just these.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, Literal, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from filelock import FileLock, Timeout

from agent.errors import BadInput, CorruptRecord, ServiceUnavailable
from agent.record import Record, content_hash
from infra.dataset_files import DatasetVersion, TableFile, datasets_folder, write_table, write_text
from infra.dataset_index import DatasetIndex

RecordT = TypeVar("RecordT", bound=Record)

SEALED_ROWS: Final = 20_000
SEALED_BYTES: Final = 32_000_000
"""Of records as JSON; a partition this large is never written again."""
FANOUT: Final = 8
RECORD: Final = "record"
"""Column that holds each record whole, as JSON."""
_ROW_GROUP: Final = 1_000
_DIGESTS: Final = b"ratchet.digests"
_PATIENCE_S: Final = 600.0


@dataclass(frozen=True)
class Kind(Generic[RecordT]):
    """What a dataset holds, and what of it can be read without reading it all."""

    name: str
    record: type[RecordT]
    columns: pa.Schema
    """Beside the record; the first is the row's own id, the second the id of what it is about (both hexadecimal)."""
    facts: Callable[[RecordT], tuple[Any, ...]]
    """A record's values in these columns."""


class Partition(Record):
    """One Parquet file."""

    digest: str
    n_rows: int


class Manifest(Record):
    """One version: its partitions in order."""

    schema_version: Literal[1] = 1
    partitions: tuple[Partition, ...] = ()

    @property
    def digest(self) -> str:
        """The version."""
        return content_hash([[one.digest, one.n_rows] for one in self.partitions])

    @property
    def n_rows(self) -> int:
        """Rows in all partitions."""
        return sum(one.n_rows for one in self.partitions)


def log_folder(kind: Kind[Any], project: str) -> Path:
    """Where partitions, manifests and index of a project's dataset lie."""
    return datasets_folder() / kind.name / project


def is_log(version: DatasetVersion) -> bool:
    """Whether it is a version of a dataset that only grows, or one that was written whole."""
    return version.uri.endswith(".json")


def newest(kind: Kind[Any], project: str) -> DatasetVersion:
    """The version that counts; one without rows where nothing was added yet.

    Raises:
        CorruptRecord: its manifest is damaged.
    """
    folder = log_folder(kind, project)
    return _version(kind, folder, _newest(folder))


def add_rows(kind: Kind[RecordT], project: str, rows: Iterable[RecordT]) -> DatasetVersion:
    """Add the rows whose id is not there yet, in their order; returns the version that holds them.

    Raises:
        ServiceUnavailable: the disk did not take them, or another writer has not ended for ten minutes; the
            version before is untouched.
    """
    folder = log_folder(kind, project)
    folder.mkdir(parents=True, exist_ok=True)
    with _only_writer(folder, kind):
        manifest = _newest(folder)
        table = _without_known(kind, project, table_of(kind, rows))
        if table.num_rows:
            manifest = _with_table(kind, folder, manifest, table)
        version = _version(kind, folder, manifest)
        if not Path(version.uri).exists():
            write_text(manifest.to_json(), Path(version.uri), kind.name, manifest.n_rows)
        with _index(kind, project, locked=True):
            return version


def rows_since(version: DatasetVersion, n: int, record: type[RecordT]) -> Iterator[RecordT]:
    """The records from place `n` on, each partition's digest checked."""
    for path, first, size in _partitions(version, n):
        table = _checked(path, size, version, [RECORD])
        for place, text in enumerate(table.column(RECORD)[max(n - first, 0) :].to_pylist(), max(n, first)):
            yield record.from_json(text, where=f"{path} row {place - first + 1}")


def columns_since(kind: Kind[Any], version: DatasetVersion, names: Sequence[str], n: int = 0) -> pa.Table:
    """These columns of the rows from place `n` on, without reading the records, their digests checked."""
    wanted = pa.schema([kind.columns.field(name) for name in names])
    tables = [
        _current(kind, path, size, version, names).slice(max(n - first, 0))
        for path, first, size in _partitions(version, n)
    ]
    return pa.concat_tables([wanted.empty_table(), *tables]).select(list(names))


def find_rows(kind: Kind[RecordT], project: str, ids: Sequence[str]) -> list[RecordT]:
    """The records with these ids, in their order; ids that are not there are left out."""
    with _index(kind, project) as index:
        places = index.places(ids)
    rows = _rows_at(kind, newest(kind, project), sorted(places.values()), 0, set(places))
    return [rows[places[one]] for one in dict.fromkeys(ids) if one in places]


def find_about(kind: Kind[RecordT], project: str, about: Sequence[str]) -> list[RecordT]:
    """All records about these, in the order in which they came."""
    with _index(kind, project) as index:
        places = index.places_about(about)
    return list(_rows_at(kind, newest(kind, project), places, 1, set(about)).values())


def known_about(kind: Kind[Any], project: str, about: Sequence[str]) -> set[str]:
    """Which of these any row is about."""
    with _index(kind, project) as index:
        return index.known_about(about)


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
    return pa.table([pa.array(texts, pa.string()), *arrays], names=[RECORD, *kind.columns.names])


@contextmanager
def _only_writer(folder: Path, kind: Kind[Any]) -> Iterator[None]:
    try:
        with FileLock(folder / "writer.lock", timeout=_PATIENCE_S):
            yield
    except Timeout as error:
        raise ServiceUnavailable(
            f"another process has written to {kind.name} in {folder} for {_PATIENCE_S / 60:.0f} minutes: "
            "end it, or wait, and repeat"
        ) from error


def _version(kind: Kind[Any], folder: Path, manifest: Manifest) -> DatasetVersion:
    path = folder / f"{manifest.n_rows:012d}-{manifest.digest}.json"
    return DatasetVersion(name=kind.name, uri=str(path), digest=manifest.digest, n_rows=manifest.n_rows)


def _newest(folder: Path) -> Manifest:
    path = max(folder.glob("*-*.json"), default=None)
    return Manifest() if path is None else _manifest(path)


def _manifest(path: Path) -> Manifest:
    try:
        manifest = Manifest.from_json(path.read_bytes(), where=str(path))
    except FileNotFoundError as error:
        raise BadInput(
            f"dataset {path.parent.parent.name} is not at {path}: {_remedy(path.parent)}"
        ) from error
    if path.stem != f"{manifest.n_rows:012d}-{manifest.digest}":
        raise CorruptRecord(
            f"{path}: its partitions have digest {manifest.digest}, not that of its name; {_remedy(path.parent)}"
        )
    return manifest


def _remedy(folder: Path) -> str:
    return f"restore it, or remove {folder} and collect again: everything is read anew from MLflow"


def _partitions(version: DatasetVersion, n: int = 0) -> Iterator[tuple[Path, int, Partition]]:
    """File, first place and size of every partition that reaches beyond place `n`."""
    path, first = Path(version.uri), 0
    if not version.n_rows:
        return
    for partition in _manifest(path).partitions:
        if first + partition.n_rows > n:
            yield path.parent / f"{partition.digest}.parquet", first, partition
        first += partition.n_rows


def _checked(path: Path, partition: Partition, version: DatasetVersion, names: Sequence[str]) -> pa.Table:
    """These columns of a partition, after the digests of just these were checked."""
    file = TableFile(path, version.name, _remedy(path.parent))
    table = file.read(names)
    found = _digest(file.schema, table, names)
    if found != partition.digest or table.num_rows != partition.n_rows:
        raise CorruptRecord(
            f"{path}: its rows have digest {found}, not {partition.digest}; {_remedy(path.parent)}"
        )
    return table


def _digest(schema: pa.Schema, table: pa.Table, names: Sequence[str]) -> str:
    """The partition's, from what was read and what is noted of the rest; a damaged note cannot give the right one."""
    try:
        noted = json.loads((schema.metadata or {}).get(_DIGESTS, b"{}"))
        return content_hash(dict(noted) | {name: column_digest(table.column(name)) for name in names})
    except (ValueError, KeyError, pa.ArrowException) as error:
        return f"({error})"


def _current(
    kind: Kind[Any], path: Path, partition: Partition, version: DatasetVersion, names: Sequence[str]
) -> pa.Table:
    """The same with today's columns: what an older program did not write is made from the records."""
    file = TableFile(path, version.name, _remedy(path.parent))
    if all(name in (RECORD, *kind.columns.names) and name in file.schema.names for name in names):
        return _checked(path, partition, version, names)
    texts = _checked(path, partition, version, [RECORD]).column(RECORD).to_pylist()
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


def _without_known(kind: Kind[Any], project: str, table: pa.Table) -> pa.Table:
    if not table.num_rows:
        return table
    ids = table.column(kind.columns.names[0]).to_pylist()
    with _index(kind, project, locked=True) as index:
        known = index.places(ids)
    return table.filter(pa.array([one not in known for one in ids])) if known else table


def _with_table(kind: Kind[Any], folder: Path, manifest: Manifest, table: pa.Table) -> Manifest:
    """The manifest with the rows at its end, together with the small partitions that are due to be merged."""
    kept = list(manifest.partitions)
    due = _due([*(one.n_rows for one in kept), table.num_rows])
    if due < len(kept):
        version = _version(kind, folder, manifest)
        names = [RECORD, *kind.columns.names]
        small = [_current(kind, folder / f"{one.digest}.parquet", one, version, names) for one in kept[due:]]
        table, kept = pa.concat_tables([*small, table]), kept[:due]
    return Manifest(partitions=(*kept, *(_write(kind, folder, part) for part in _portions(table))))


def _due(sizes: Sequence[int]) -> int:
    """From which partition on they are merged: `FANOUT` or more at the end, none above a power of it."""
    limit = FANOUT
    start = len(sizes) - 1
    while limit < SEALED_ROWS * FANOUT:
        tail = len(sizes)
        while tail and sizes[tail - 1] < min(limit, SEALED_ROWS):
            tail -= 1
        if len(sizes) - tail >= FANOUT:
            start = tail
        limit *= FANOUT
    return start


def _portions(table: pa.Table) -> Iterator[pa.Table]:
    """At most `SEALED_ROWS` rows and about `SEALED_BYTES` each."""
    sizes = np.cumsum(pc.binary_length(table.column(RECORD)).to_numpy())
    start = 0
    while start < table.num_rows:
        before = sizes[start - 1] if start else 0
        end = int(np.searchsorted(sizes, before + SEALED_BYTES, side="right"))
        end = min(max(end, start + 1), start + SEALED_ROWS)
        yield table.slice(start, end - start)
        start = end


def _write(kind: Kind[Any], folder: Path, table: pa.Table) -> Partition:
    digests = {name: column_digest(table.column(name)) for name in table.column_names}
    partition = Partition(digest=content_hash(digests), n_rows=table.num_rows)
    path = folder / f"{partition.digest}.parquet"
    if not path.exists():
        noted = table.replace_schema_metadata({_DIGESTS: json.dumps(digests).encode()})
        write_table(noted, path, kind.name, row_group=_ROW_GROUP)
    return partition


@contextmanager
def _index(kind: Kind[Any], project: str, *, locked: bool = False) -> Iterator[DatasetIndex]:
    """The index with everything that the newest version holds."""
    folder = log_folder(kind, project)
    folder.mkdir(parents=True, exist_ok=True)
    index = DatasetIndex(folder / "index.db")
    try:
        version = newest(kind, project)
        if len(index) != version.n_rows:
            if locked:
                _catch_up(kind, index, version)
            else:
                with _only_writer(folder, kind):
                    _catch_up(kind, index, newest(kind, project))
        yield index
    finally:
        index.close()


def _catch_up(kind: Kind[Any], index: DatasetIndex, version: DatasetVersion) -> None:
    if len(index) > version.n_rows:  # a version was taken away
        index.clear()
    names = kind.columns.names[:2]
    for path, first, partition in _partitions(version, len(index)):
        table = _current(kind, path, partition, version, names).slice(max(len(index) - first, 0))
        ids, about = (table.column(name).to_pylist() for name in names)
        index.add(max(len(index), first), ids, about)


def _rows_at(
    kind: Kind[RecordT], version: DatasetVersion, places: Sequence[int], fact: int, wanted: Set[str]
) -> dict[int, RecordT]:
    """Records by place; of each file only the row groups that hold them, whose pages carry checksums.

    Each must have one of the wanted values as its fact of that number: a damaged file may lead elsewhere.
    """
    found: dict[int, RecordT] = {}
    for path, first, partition in _partitions(version, places[0]) if places else ():
        mine = [place - first for place in places if first <= place < first + partition.n_rows]
        for row, text in _texts_at(path, mine, version) if mine else ():
            record = kind.record.from_json(text, where=f"{path} row {row + 1}")
            if kind.facts(record)[fact] not in wanted:
                raise CorruptRecord(f"{path}: row {row + 1} is another than expected; {_remedy(path.parent)}")
            found[first + row] = record
    if len(found) != len(places):
        path = Path(version.uri)
        raise CorruptRecord(f"{path}: {len(places) - len(found)} rows are missing; {_remedy(path.parent)}")
    return found


def _texts_at(path: Path, rows: Sequence[int], version: DatasetVersion) -> Iterator[tuple[int, str]]:
    file, start = TableFile(path, version.name, _remedy(path.parent)), 0
    for group, size in enumerate(file.group_sizes):
        mine = [row for row in rows if start <= row < start + size]
        if mine:
            texts = file.read([RECORD], [group]).column(RECORD).to_pylist()
            yield from ((row, texts[row - start]) for row in mine if row - start < len(texts))
        start += size
