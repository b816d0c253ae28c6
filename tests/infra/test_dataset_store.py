import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from ratchet.agent.case import Case
from ratchet.agent.errors import BadInput, CorruptRecord, ServiceUnavailable
from ratchet.agent.trace import Trace
from ratchet.infra.settings import Settings
from ratchet.infra.store.dataset_store import read_dataset, write_dataset


def cases(n):
    return [
        Case(inputs={"request": f"naïve {i}", "n": i}, expected=None if i % 2 else "tool") for i in range(n)
    ]


def test_records_come_back_equal_and_in_order():
    version = write_dataset("cases", cases(5))
    assert read_dataset(version, Case) == cases(5)
    assert version.n_rows == 5


def test_traces_come_back_equal(make_trace):
    traces = [make_trace(), make_trace(score=None, session_id=None)]
    assert read_dataset(write_dataset("traces", traces), Trace) == traces


def test_a_field_that_only_some_records_write_is_kept(make_trace):
    traces = [make_trace(), make_trace(user="anna"), make_trace(user="ben", system="be kind")]
    for order in (traces, traces[::-1]):
        assert read_dataset(write_dataset("traces", order), Trace) == order


def test_the_same_rows_are_the_same_version_and_others_another():
    assert write_dataset("cases", cases(3)) == write_dataset("cases", cases(3))
    assert write_dataset("cases", cases(3)).digest != write_dataset("cases", cases(3)[::-1]).digest


def test_a_field_that_is_now_text_now_number_is_kept():
    mixed = [Case(inputs={"q": 1}, expected=expected) for expected in ("a", 2, None, ["b"], 0.5)]
    version = write_dataset("cases", mixed)
    assert read_dataset(version, Case) == mixed
    assert list(pd.read_parquet(version.uri)["expected"].fillna("-")) == ["a", "2", "-", '["b"]', "0.5"]


def test_no_rows_are_a_version_too():
    version = write_dataset("cases", [])
    assert (version.n_rows, read_dataset(version, Case)) == (0, [])


def test_hugging_face_datasets_reads_the_file(tmp_path):
    import datasets

    version = write_dataset("cases", cases(4))
    read = datasets.load_dataset(
        "parquet", data_files=version.uri, cache_dir=str(tmp_path / "cache"), split="train"
    )
    assert [row["expected"] for row in read] == [
        "tool",
        None,
        "tool",
        None,
    ]


def test_a_changed_file_is_refused(tmp_path):
    version, other = write_dataset("cases", cases(3)), write_dataset("cases", cases(4))
    Path(version.uri).write_bytes(Path(other.uri).read_bytes())
    with pytest.raises(CorruptRecord, match=f"not {version.digest}"):
        read_dataset(version, Case)


def test_a_torn_file_is_refused():
    version = write_dataset("cases", cases(3))
    whole = Path(version.uri).read_bytes()
    Path(version.uri).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CorruptRecord, match="not a readable Parquet file"):
        read_dataset(version, Case)


def test_a_lost_file_says_where_it_should_be():
    version = write_dataset("cases", cases(3))
    Path(version.uri).unlink()
    with pytest.raises(BadInput, match="restore it or collect again"):
        read_dataset(version, Case)


@pytest.fixture
def full_disk(tmp_path, monkeypatch):
    """A real file system of 256 KiB, with a dataset on it."""
    place = tmp_path / "full"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(
            f"cannot mount here ({mounted.stderr.decode().strip()}): the next test limits the file size instead"
        )
    monkeypatch.setenv("RATCHET_HOME", str(place))
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_one_clear_error_and_leaves_what_was_there(full_disk):
    before = write_dataset("cases", cases(3))
    noise = [Case(inputs={"request": os.urandom(1000).hex()}) for _ in range(400)]
    with pytest.raises(
        ServiceUnavailable, match=r"400 rows\) was not written .*No space left.*earlier versions"
    ):
        write_dataset("cases", noise)
    assert [path.name for path in (full_disk / "datasets" / "cases").iterdir()] == [
        f"{before.digest}.parquet"
    ]
    assert read_dataset(before, Case) == cases(3)


_LIMITED = """
import os, resource, signal
from ratchet.agent.case import Case
from ratchet.agent.errors import ServiceUnavailable
from ratchet.infra.store.dataset_store import write_dataset
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    write_dataset("cases", [Case(inputs={"request": os.urandom(1000).hex()}) for _ in range(400)])
except ServiceUnavailable as error:
    print(error)
"""


def test_a_file_that_may_not_grow_is_one_clear_error_and_leaves_no_part():
    done = subprocess.run([sys.executable, "-c", _LIMITED], capture_output=True, text=True, timeout=60)
    assert "400 rows) was not written" in done.stdout, done.stderr
    assert list((Settings().home / "datasets" / "cases").iterdir()) == []
