"""`ratchet up` as a person meets it: one error for a taken port, news of a sick service, nothing left behind."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from unittest.mock import patch

import psutil
import pytest
from tests.flows.conftest import free_port

from ratchet.agent.errors import ServiceUnavailable
from ratchet.flows.commands import up as up_command
from ratchet.infra.settings import Settings
from ratchet.infra.stack.service import Service
from ratchet.infra.stack.stack import Stack, StackPlan

COMMAND = [sys.executable, "-c", "from ratchet.flows.cli import main; main()", "up"]
START_LIMIT_S = 300.0


def watched(folder: Path, code: str, health: list[bool]) -> Stack:
    """A stack of one service whose health is read from the list; the last value stays."""
    service = Service(
        "probe",
        [sys.executable, "-c", code],
        lambda: health.pop(0) if len(health) > 1 else health[0],
        folder / "probe.log",
    )
    service.start(os.environ, folder)
    return Stack(StackPlan(folder), Settings(home=folder / "home"), [service])


@pytest.fixture
def up(ratchet, tmp_path, monkeypatch):
    """`ratchet up` in an empty folder, which must refuse before it starts anything."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RATCHET_HOME")
    with patch.dict(os.environ):  # it sets what Prefect reads
        yield partial(ratchet, "up")


def test_a_taken_port_is_one_line_that_names_the_option(up):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        options = ["--mlflow-port", str(free_port()), "--prefect-port", str(port)]
        done = up(*options, columns=250)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"port {port} for Prefect is taken" in done.stderr
    assert "--prefect-port" in done.stderr
    assert done.stdout == ""


def test_a_remote_mlflow_that_does_not_answer_is_named_before_anything_starts(up, tmp_path, monkeypatch):
    monkeypatch.setenv("RATCHET_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    done = up()
    assert done.returncode == 2
    assert "RATCHET_TRACKING_URI" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_prefect_server_that_is_named_and_does_not_answer_is_said_before_anything_starts(
    up, tmp_path, monkeypatch
):
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{free_port()}/api")
    done = up(columns=250)
    assert done.returncode == 2
    assert "the Prefect server that PREFECT_API_URL names does not answer" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_port_beyond_65535_is_bad_input(up):
    assert up("--mlflow-port", "70000").returncode == 2


def test_a_service_that_dies_ends_the_watch_with_its_last_words(tmp_path, monkeypatch):
    monkeypatch.setattr(up_command, "_LOOK_EVERY_S", 0.05)
    stack = watched(tmp_path, "print('disk full'); raise SystemExit(5)", [True])
    with pytest.raises(ServiceUnavailable, match=r"probe ended with code 5(?s:.*)disk full"):
        up_command._watch(stack)
    stack.stop()


def test_a_service_that_stops_answering_is_told_once_and_so_is_its_return(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(up_command, "_LOOK_EVERY_S", 0.05)
    stack = watched(tmp_path, "import time; time.sleep(1.5)", [True, False, False, True, True])
    with pytest.raises(ServiceUnavailable):
        up_command._watch(stack)
    stack.stop()
    told = capsys.readouterr().err
    assert told.count("probe does not answer") == 1
    assert told.count("probe answers again") == 1


@pytest.mark.server
@pytest.mark.slow
def test_ctrl_c_stops_every_process_and_frees_the_ports_and_the_chosen_database_was_used(tmp_path):
    ports = [free_port(), free_port()]
    options = ["--mlflow-port", str(ports[0]), "--prefect-port", str(ports[1])]
    log, database = tmp_path / "up.log", tmp_path / "chosen.db"
    environment = os.environ | {"PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{database}"}
    with log.open("wb") as output:
        up = subprocess.Popen(
            [*COMMAND, *options], cwd=tmp_path, env=environment, stderr=output, start_new_session=True
        )
    wait_for(log, "Ratchet is up", up)
    family = psutil.Process(up.pid).children(recursive=True)
    up.send_signal(signal.SIGINT)
    assert up.wait(timeout=60) == 0, log.read_text()
    assert len(family) >= 3
    assert [process for process in family if process.is_running()] == []
    for port in ports:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
    assert database.exists()
    assert re.search(r"MLflow is healthy after \d+ s", log.read_text())


def wait_for(log: Path, text: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while text not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.5)
