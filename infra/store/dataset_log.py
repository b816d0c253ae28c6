"""Datasets that only grow: Parquet partitions, a manifest that names them, an index of ids.

Decision: adding rows writes those rows, and little else. A version is a manifest, whose digest is the version; the
newest manifest, written last and whole, is what counts, so a kill at any moment leaves the version before it and
files that nobody names (`ratchet.infra.store.retention` removes them). Every version is the beginning of the next
one: the place of a row never changes, and "since row n" is all that a reader of news must remember.

Why eight: eight partitions of like size become one when the next rows come, as in a log-structured merge tree
(O'Neil et al., 1996), until one is sealed. A row is written at most six times, a million rows are some sixty files,
and older manifests keep the files that they name.
"""

from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ratchet.agent.errors import BadInput, CorruptRecord
from ratchet.agent.record import Record, content_hash
from ratchet.infra.locks import held
from ratchet.infra.store.dataset_files import DatasetVersion, datasets_folder, write_text
from ratchet.infra.store.dataset_index import DatasetIndex
from ratchet.infra.store.dataset_partition import (
    RECORD_COLUMN,
    SEALED_ROWS,
    Kind,
    Partition,
    RecordT,
    checked,
    current,
    n_bytes,
    portions,
    remedy,
    table_of,
    texts_at,
    weight_of,
    write_partition,
)

FANOUT: Final = 8


class Manifest(Record):
    """One version: its partitions in order."""

    schema_version: Literal[1] = 1
    partitions: tuple[Partition, ...] = ()

    @property
    def digest(self) -> str:
        """The version."""
        return content_hash([[one.digest, one.n_rows, one.n_bytes] for one in self.partitions])

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
    with writing(kind, project):
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
        table = checked(path, size, version.name, [RECORD_COLUMN])
        for place, text in enumerate(
            table.column(RECORD_COLUMN)[max(n - first, 0) :].to_pylist(), max(n, first)
        ):
            yield record.from_json(text, where=f"{path} row {place - first + 1}")


def columns_since(kind: Kind[Any], version: DatasetVersion, names: Sequence[str], n: int = 0) -> pa.Table:
    """These columns of the rows from place `n` on, without reading the records, their digests checked."""
    wanted = pa.schema([kind.columns.field(name) for name in names])
    return pa.concat_tables([wanted.empty_table(), *column_parts(kind, version, names, n)])


def column_parts(
    kind: Kind[Any], version: DatasetVersion, names: Sequence[str], n: int = 0
) -> Iterator[pa.Table]:
    """The same, one partition in memory at a time."""
    for path, first, size in _partitions(version, n):
        yield current(kind, path, size, names).slice(max(n - first, 0)).select(list(names))


def columns_at(
    kind: Kind[Any], version: DatasetVersion, names: Sequence[str], places: NDArray[np.int64]
) -> pa.Table:
    """These columns of the rows at these places, in this order, one partition in memory at a time."""
    tables, order = [pa.schema([kind.columns.field(name) for name in names]).empty_table()], []
    for path, first, partition in _partitions(version):
        mine = np.flatnonzero((places >= first) & (places < first + partition.n_rows))
        if len(mine):
            tables.append(current(kind, path, partition, names).take(pa.array(places[mine] - first)))
            order.append(mine)
    read = pa.concat_tables(tables)
    return read.take(pa.array(np.argsort(np.concatenate(order)))) if order else read


def find_rows(kind: Kind[RecordT], project: str, ids: Sequence[str]) -> list[RecordT]:
    """The records with these ids, in their order; ids that are not there are left out."""
    with _index(kind, project) as index:
        places = index.places(ids)
    rows = _rows_at(kind, newest(kind, project), sorted(places.values()), 0, set(places))
    return [rows[places[one]] for one in dict.fromkeys(ids) if one in places]


def places(kind: Kind[Any], project: str, ids: Sequence[str]) -> dict[str, int]:
    """Place by id, of those that are there."""
    with _index(kind, project) as index:
        return index.places(ids)


def find_about(kind: Kind[RecordT], project: str, about: Sequence[str]) -> list[RecordT]:
    """All records about these, in the order in which they came."""
    places = places_about(kind, project, about).tolist()
    return list(_rows_at(kind, newest(kind, project), places, 1, set(about)).values())


def places_about(kind: Kind[Any], project: str, about: Sequence[str]) -> NDArray[np.int64]:
    """Places of all records about these, in order."""
    with _index(kind, project) as index:
        return np.array(index.places_about(about), dtype=np.int64)


def known_about(kind: Kind[Any], project: str, about: Sequence[str]) -> set[str]:
    """Which of these any row is about."""
    with _index(kind, project) as index:
        return index.known_about(about)


def writing(kind: Kind[Any], project: str) -> AbstractContextManager[None]:
    """Hold the dataset: nobody else adds to it meanwhile.

    Raises:
        ServiceUnavailable: somebody else has held it for ten minutes.
    """
    return held(log_folder(kind, project) / "writer.lock", f"adding {kind.name} of {project!r}")


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
            f"dataset {path.parent.parent.name} is not at {path}: {remedy(path.parent)}"
        ) from error
    if path.stem != f"{manifest.n_rows:012d}-{manifest.digest}":
        raise CorruptRecord(
            f"{path}: its partitions have digest {manifest.digest}, not that of its name; {remedy(path.parent)}"
        )
    return manifest


def _partitions(version: DatasetVersion, n: int = 0) -> Iterator[tuple[Path, int, Partition]]:
    """File, first place and size of every partition that reaches beyond place `n`."""
    path, first = Path(version.uri), 0
    if not version.n_rows:
        return
    for partition in _manifest(path).partitions:
        if first + partition.n_rows > n:
            yield path.parent / f"{partition.digest}.parquet", first, partition
        first += partition.n_rows


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
    due = _due([*(one.weight for one in kept), weight_of(table.num_rows, n_bytes(table))])
    if due < len(kept):
        names = [RECORD_COLUMN, *kind.columns.names]
        small = [current(kind, folder / f"{one.digest}.parquet", one, names) for one in kept[due:]]
        table, kept = pa.concat_tables([*small, table]), kept[:due]
    return Manifest(partitions=(*kept, *(write_partition(kind, folder, part) for part in portions(table))))


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
                with writing(kind, project):
                    _catch_up(kind, index, newest(kind, project))
        yield index
    finally:
        index.close()


def _catch_up(kind: Kind[Any], index: DatasetIndex, version: DatasetVersion) -> None:
    if len(index) > version.n_rows:  # a version was taken away
        index.clear()
    names = kind.columns.names[:2]
    for path, first, partition in _partitions(version, len(index)):
        table = current(kind, path, partition, names).slice(max(len(index) - first, 0))
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
        for row, text in texts_at(path, mine, version.name) if mine else ():
            record = kind.record.from_json(text, where=f"{path} row {row + 1}")
            if kind.facts(record)[fact] not in wanted:
                raise CorruptRecord(f"{path}: row {row + 1} is another than expected; {remedy(path.parent)}")
            found[first + row] = record
    if len(found) != len(places):
        path = Path(version.uri)
        raise CorruptRecord(f"{path}: {len(places) - len(found)} rows are missing; {remedy(path.parent)}")
    return found
