"""Datasets that only grow: what is added is what is written, nothing is lost to a kill, nothing read unverified."""

import json
import random
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ratchet.agent.case import Case
from ratchet.agent.errors import BadInput, CorruptRecord
from ratchet.agent.trace import Trace
from ratchet.infra.store import dataset_log, dataset_partition
from ratchet.infra.store.collected import (
    TRACES,
    collected_traces,
    columns_of,
    keep_traces,
    newest_traces,
    served,
)
from ratchet.infra.store.dataset_log import log_folder
from ratchet.infra.store.dataset_partition import column_digest
from ratchet.infra.store.dataset_store import read_dataset, read_since, write_dataset


@pytest.fixture
def some(make_trace):
    """`n` traces, each with a request and an id of its own."""

    def make(n, first=0):
        return [make_trace(f"request {i}", trace_id=f"{i:032x}") for i in range(first, first + n)]

    return make


def files(project="p"):
    return {path.name: path.stat().st_mtime_ns for path in log_folder(TRACES, project).glob("*.parquet")}


def written(project="p"):
    return sum(path.stat().st_size for path in log_folder(TRACES, project).glob("*.parquet"))


def test_what_is_added_is_read_back_equal_and_in_order(some):
    first, second = some(3), some(4, first=3)
    keep_traces("p", first)
    version = keep_traces("p", second)
    assert read_dataset(version, Trace) == [*first, *second]
    assert version.n_rows == 7
    assert newest_traces("p") == version


def test_an_earlier_version_stays_what_it_was(some):
    versions = [keep_traces("p", some(2, first=2 * i)) for i in range(20)]
    for i, version in enumerate(versions):
        assert read_dataset(version, Trace) == some_equal(version, 2 * i + 2)


def some_equal(version, n):
    rows = read_dataset(version, Trace)
    assert [int(row.trace_id, 16) for row in rows] == list(range(n))
    return rows


def test_adding_writes_in_proportion_to_what_is_new(some):
    keep_traces("p", some(3000))
    before, size = files(), written()
    keep_traces("p", some(10, first=3000))
    assert {name: at for name, at in files().items() if name in before} == before, "nothing is written again"
    assert written() - size < 10_000


def test_what_is_there_already_is_not_added_again_and_makes_no_version(some):
    one = keep_traces("p", some(3))
    assert keep_traces("p", some(3)) == one
    assert keep_traces("p", [*some(4), *some(4)]).n_rows == 4


def test_only_what_is_new_is_read(some):
    version = keep_traces("p", some(50))
    later = keep_traces("p", some(2, first=50))
    (old,) = {
        path for path in log_folder(TRACES, "p").glob("*.parquet") if pq.read_metadata(path).num_rows == 50
    }
    old.write_bytes(b"")
    assert [row.trace_id for row in read_since(later, version.n_rows, Trace)] == [
        f"{i:032x}" for i in (50, 51)
    ]
    with pytest.raises(CorruptRecord, match=r"not a readable Parquet file .*remove .* and collect again"):
        read_since(later, version.n_rows - 1, Trace)


def test_many_small_additions_become_few_files_of_which_older_versions_read_their_own(some, monkeypatch):
    for module in (dataset_log, dataset_partition):
        monkeypatch.setattr(module, "SEALED_ROWS", 40)
    versions = [keep_traces("p", some(1, first=i)) for i in range(100)]
    manifest = dataset_log._manifest(Path(versions[-1].uri))
    sizes = [one.n_rows for one in manifest.partitions]
    assert sum(sizes) == 100
    assert len(sizes) < 24
    assert max(sizes) < 40 + 64
    for version in versions[::17]:
        some_equal(version, version.n_rows)


def test_rows_are_found_by_id_and_by_case_without_reading_the_rest(some):
    traces = some(2500)
    keep_traces("p", traces[:2000])
    keep_traces("p", traces[2000:])
    wanted = [traces[2400].trace_id, traces[7].trace_id, "f" * 32]
    assert collected_traces("p", wanted) == [traces[2400], traces[7]]
    cases = [traces[3].case.case_id, Case(inputs={"request": "never asked"}).case_id]
    assert served("p", cases) == {cases[0]}


def test_a_lost_or_broken_index_is_made_anew(some):
    keep_traces("p", some(5))
    index = log_folder(TRACES, "p") / "index.db"
    for path in index.parent.glob("index.db*"):
        path.unlink()
    assert len(collected_traces("p", [f"{i:032x}" for i in range(5)])) == 5
    index.write_bytes(b"no database at all, but long enough to be taken for one" * 100)
    assert keep_traces("p", some(6)).n_rows == 6
    assert len(collected_traces("p", [f"{i:032x}" for i in range(6)])) == 6


def test_columns_come_without_the_records_and_of_a_dataset_written_whole_too(some):
    traces = some(5)
    for version in (keep_traces("p", traces), write_dataset("traces", traces)):
        table = columns_of(TRACES, version, "trace_id", "text", "confidence", "answered")
        assert table.column("text").to_pylist() == [f"request {i}" for i in range(5)]
        assert table.column("confidence").to_pylist() == [0.9] * 5
        assert table.column("answered").to_pylist() == [True] * 5
    assert columns_of(TRACES, newest_traces("empty"), "trace_id").num_rows == 0


def test_a_column_that_an_older_program_did_not_write_is_made_from_the_records(some, monkeypatch):
    shorter = pa.schema(list(TRACES.columns)[:2])
    older = dataset_partition.Kind(
        name="traces", record=Trace, columns=shorter, facts=lambda t: (t.trace_id, t.case.case_id)
    )
    dataset_log.add_rows(older, "p", some(4))
    version = keep_traces("p", some(1, first=4))
    assert columns_of(TRACES, version, "text").column("text").to_pylist() == [
        f"request {i}" for i in range(5)
    ]
    assert some_equal(version, 5)


@pytest.mark.parametrize("seed", range(40))
def test_a_flipped_bit_is_an_error_or_changes_nothing(some, seed):
    traces = some(30)
    version = keep_traces("p", traces)
    (path,) = log_folder(TRACES, "p").glob("*.parquet")
    whole, rng = bytearray(path.read_bytes()), random.Random(seed)
    whole[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(whole))
    reads = {
        "whole": (lambda: read_dataset(version, Trace), traces),
        "columns": (
            lambda: columns_of(TRACES, version, "text").column("text").to_pylist(),
            [f"request {i}" for i in range(30)],
        ),
        "some": (lambda: collected_traces("p", [traces[11].trace_id]), [traces[11]]),
    }
    for read, right in reads.values():
        assert outcome(read) in (right, f"{path}: collect again")


def outcome(read):
    """What was read, or which file is to be collected again."""
    try:
        return read()
    except CorruptRecord as error:
        return f"{str(error).split(':')[0]}: {'collect again' if 'collect again' in str(error) else error}"


def test_a_partition_in_place_of_another_is_refused(some):
    version = keep_traces("p", some(3))
    (ours,) = log_folder(TRACES, "p").glob("*.parquet")
    keep_traces("q", some(3, first=3))
    (theirs,) = log_folder(TRACES, "q").glob("*.parquet")
    ours.write_bytes(theirs.read_bytes())
    for read in (lambda: read_dataset(version, Trace), lambda: columns_of(TRACES, version, "text")):
        with pytest.raises(CorruptRecord, match="its rows have digest"):
            read()


def test_a_changed_or_lost_manifest_is_named(some):
    version = keep_traces("p", some(3))
    path = Path(version.uri)
    manifest = json.loads(path.read_text())
    manifest["partitions"][0]["n_rows"] = 2
    path.write_text(json.dumps(manifest))
    with pytest.raises(CorruptRecord, match="not that of its name"):
        newest_traces("p")
    path.unlink()
    with pytest.raises(BadInput, match=r"dataset traces is not at .*collect again"):
        read_dataset(version, Trace)


def test_the_digest_is_of_the_values_however_they_are_chunked_or_compressed():
    for values, kind in (
        (["a", None, "ü", ""], pa.string()),
        ([1.5, None, 0.0], pa.float64()),
        ([True, None], pa.bool_()),
    ):
        whole = pa.chunked_array([pa.array(values, kind)])
        parts = pa.chunked_array(
            [
                pa.array(values[:1], kind),
                pa.array([*values, "x"][1:-1] if kind == pa.string() else values[1:], kind),
            ]
        )
        sliced = pa.chunked_array([pa.array([values[0], *values], kind).slice(1)])
        assert column_digest(whole) == column_digest(parts) == column_digest(sliced)
    distinct = [["a", "bc"], ["ab", "c"], ["a", None], ["a", ""], ["a"]]
    assert len({column_digest(pa.chunked_array([pa.array(v, pa.string())])) for v in distinct}) == 5


_KILLED = """
import os, signal, sys
from pathlib import Path
from ratchet.agent.trace import Trace
from ratchet.infra.store import dataset_log
from ratchet.infra.store import dataset_partition
from ratchet.infra.store.collected import keep_traces

traces = [Trace.from_json(line) for line in sys.stdin]
point = sys.argv[1]

def dying(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

keep_traces("p", traces[:5])
if point == "in the partition":
    import pyarrow.parquet as pq
    pq.write_table = dying
elif point == "before the manifest":
    dataset_log.write_text = dying
elif point == "before the index":
    dataset_log.DatasetIndex.add = dying
keep_traces("p", traces)
"""


@pytest.mark.parametrize(
    ("point", "rows"), [("in the partition", 5), ("before the manifest", 5), ("before the index", 9)]
)
def test_a_kill_leaves_the_version_before_or_the_new_one_and_the_next_addition_mends_the_rest(
    some, point, rows
):
    lines = "\n".join(trace.to_json() for trace in some(9))
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, point], input=lines, text=True, timeout=120, check=False
    )
    assert done.returncode == -9
    some_equal(newest_traces("p"), rows)
    version = keep_traces("p", some(10))
    some_equal(version, 10)
    assert len(collected_traces("p", [f"{i:032x}" for i in range(10)])) == 10


def test_two_that_add_at_once_lose_nothing_and_double_nothing(some):
    def add(first):
        for i in range(first, first + 40, 4):
            keep_traces("p", some(8, first=i))

    threads = [threading.Thread(target=add, args=(first,)) for first in (0, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = read_dataset(newest_traces("p"), Trace)
    assert sorted(int(row.trace_id, 16) for row in rows) == list(range(64))
