"""Removing what nobody needs: nothing that is named, new or newest goes, and what is kept can still be read."""

import os
import time

import pytest

from ratchet.agent.case import Case
from ratchet.agent.errors import ServiceUnavailable
from ratchet.agent.trace import Trace
from ratchet.infra.registry.registry import register
from ratchet.infra.settings import Settings
from ratchet.infra.store.collected import LABELS, TRACES, keep_labels, keep_traces, newest_traces
from ratchet.infra.store.dataset_log import log_folder
from ratchet.infra.store.dataset_store import read_dataset, write_dataset
from ratchet.infra.store.project_state import project_folder, update_state
from ratchet.infra.store.retention import Retention, remove, unneeded_files

DAYS_AGO = time.time() - 30 * 86_400


@pytest.fixture
def candidate():
    from ratchet.agent.kinds.program import base_candidate

    return base_candidate("Pick one.", model="openai/scripted", attempts=1)


def aged(*paths):
    for path in paths:
        os.utime(path, (DAYS_AGO, DAYS_AGO))


def everything_old():
    aged(*(path for path in Settings().home.rglob("*") if path.is_file()))


def gone(**rules):
    files = unneeded_files(Retention(**rules))
    remove(files)
    return {one.path.name for one in files}


def file_of(version):
    return version.uri.rpartition("/")[2]


@pytest.fixture
def own_mlflow(tmp_path, monkeypatch):
    """A home whose files may be aged and removed, with its own MLflow."""
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "own"))
    return "p"


def test_datasets_that_no_lineage_names_go_and_those_that_one_names_stay(own_mlflow, candidate):
    learned, other = (write_dataset("training", [Case(inputs={"q": q})]) for q in "ab")
    register(own_mlflow, candidate, files={}, seen_case_ids=[], cost={}, dataset=learned)
    assert gone() == set(), "what was written today may be in use"
    everything_old()
    assert gone() == {file_of(other)}
    assert read_dataset(learned, Case) == [Case(inputs={"q": "a"})]


def test_what_is_written_again_is_in_use_again(own_mlflow, candidate):
    register(own_mlflow, candidate, files={}, seen_case_ids=[], cost={})
    write_dataset("training", [Case(inputs={"q": "a"})])
    everything_old()
    write_dataset("training", [Case(inputs={"q": "a"})])
    assert gone() == set()


def test_of_a_dataset_that_grows_the_newest_and_the_named_versions_stay_readable(
    own_mlflow, candidate, make_trace
):
    register(own_mlflow, candidate, files={}, seen_case_ids=[], cost={})
    versions = [keep_traces(own_mlflow, [make_trace(str(i))]) for i in range(12)]
    update_state(own_mlflow, traces=versions[4], labels=keep_labels(own_mlflow, []))
    orphan = log_folder(TRACES, own_mlflow) / "0123456789abcdef.parquet"
    orphan.write_bytes(b"killed before its manifest")
    everything_old()
    went = gone()
    assert orphan.name in went
    assert {file_of(version) for version in versions} - went == {file_of(versions[4]), file_of(versions[11])}
    assert len(read_dataset(versions[4], Trace)) == 5
    assert len(read_dataset(newest_traces(own_mlflow), Trace)) == 12
    assert keep_traces(own_mlflow, [make_trace("more")]).n_rows == 13
    assert log_folder(LABELS, own_mlflow).exists()


def test_old_reports_go_with_their_pictures_and_the_newest_stay(own_mlflow, candidate):
    register(own_mlflow, candidate, files={}, seen_case_ids=[], cost={})
    folder = project_folder(own_mlflow) / "drift"
    snapshots = Settings().home / "evidently" / "some-id" / "snapshots"
    folder.mkdir()
    snapshots.mkdir(parents=True)
    for number in range(5):
        for ending in ("html", "json", "png"):
            path = folder / f"window_{number:05d}.{ending}"
            path.write_text("x")
            os.utime(path, (DAYS_AGO + number, DAYS_AGO + number))
        path = snapshots / f"{number}.json"
        path.write_text("x")
        os.utime(path, (DAYS_AGO + number, DAYS_AGO + number))
    gone(reports=2)
    assert {path.stem for path in folder.iterdir()} == {"window_00003", "window_00004"}
    assert len(list(folder.iterdir())) == 6
    assert {path.stem for path in snapshots.iterdir()} == {"3", "4"}


def test_kept_results_go_by_age(own_mlflow, candidate):
    register(own_mlflow, candidate, files={}, seen_case_ids=[], cost={})
    folder = Settings().home / "prefect" / "results"
    folder.mkdir(parents=True)
    for name in ("old", "new"):
        (folder / name).write_text("{}")
    aged(folder / "old")
    assert gone() == {"old"}


def test_while_mlflow_does_not_answer_nothing_is_superfluous(own_mlflow, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    write_dataset("training", [Case(inputs={"q": "a"})])
    everything_old()
    with pytest.raises(ServiceUnavailable, match="reading what versions learned from"):
        unneeded_files(Retention())
