"""Locks between processes: who waits is told for whom, and nothing outlives its holder."""

import os
import signal
import subprocess
import sys

import pytest

from ratchet.agent.errors import ServiceUnavailable
from ratchet.infra.locks import held
from ratchet.infra.store.project_state import (
    project_folder,
    project_lock,
    read_state,
    state_lock,
    update_state,
)

HOLD = """
import sys, time
from pathlib import Path
from ratchet.infra.locks import held
with held(Path(sys.argv[1]), "`ratchet improve`"):
    print("holds", flush=True)
    time.sleep(float(sys.argv[2]))
"""
ADD = """
import sys
from ratchet.infra.store.project_state import read_state, state_lock, update_state
for n in range(25):
    with state_lock("p"):
        update_state("p", asked=(*read_state("p").asked, f"{sys.argv[1]}-{n}"))
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds the lock for some seconds."""
    started = []

    def begin(seconds):
        command = [sys.executable, "-c", HOLD, str(tmp_path / "a.lock"), str(seconds)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "holds\n"
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def test_who_waits_is_told_once_who_holds_it_and_since_when(other, tmp_path):
    process, said = other(1.5), []
    with held(tmp_path / "a.lock", "me", tell=said.append):
        assert process.wait(5) == 0
    (line,) = said
    assert line.startswith(f"waiting: `ratchet improve` (process {process.pid} on ")
    assert "holds it since 20" in line


def test_who_waits_for_too_long_is_told_for_whom_and_what_to_do(other, tmp_path):
    process = other(30)
    with (
        pytest.raises(ServiceUnavailable, match=rf"process {process.pid} .* wait for it, or end it"),
        held(tmp_path / "a.lock", "me", patience_s=0.3),
    ):
        raise AssertionError("the lock is held by another process")


def test_a_killed_holder_holds_nothing(other, tmp_path):
    os.kill(other(30).pid, signal.SIGKILL)
    said = []
    with held(tmp_path / "a.lock", "me", patience_s=5, tell=said.append):
        assert said == []


def test_the_inner_locks_of_one_run_do_not_wait_for_its_outer_one(monkeypatch, tmp_path):
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path))
    with project_lock("p", "one", print), project_lock("p", "again", print), state_lock("p"):
        update_state("p", asked=("a",))
    assert read_state("p").asked == ("a",)


def test_the_state_of_an_older_version_is_read(monkeypatch, tmp_path):
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path))
    (project_folder("p") / "state.json").write_text('{"n_watched": 3, "asked": ["a"]}')
    assert read_state("p").asked == ("a",)


def test_two_processes_that_change_one_state_lose_nothing_of_each_other(monkeypatch, tmp_path):
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path))
    both = [subprocess.Popen([sys.executable, "-c", ADD, name]) for name in "ab"]
    assert [process.wait(120) for process in both] == [0, 0]
    assert len(read_state("p").asked) == 50


def test_a_lock_where_nothing_can_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ServiceUnavailable, match=r"cannot be locked \(Not a directory|File exists"),
        held(tmp_path / "file" / "a.lock", "me"),
    ):
        raise AssertionError("a file is no folder")
