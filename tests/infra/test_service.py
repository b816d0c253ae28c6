"""A child process: started, watched, and stopped with everything that it started."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ratchet.agent.errors import BadInput, ServiceUnavailable
from ratchet.infra.stack.service import Service, require_free_port

STARTS_A_CHILD_IN_ITS_OWN_SESSION = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(600)
"""
IGNORES_SIGTERM = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(600)
"""


LEAVES_A_SERVICE = """
import os, sys, time
from pathlib import Path
from ratchet.infra.stack.service import Service
service = Service("probe", [sys.executable, "-c", sys.argv[2]], lambda: True, Path(sys.argv[1]) / "probe.log")
service.start(os.environ, Path(sys.argv[1]))
print(service.process.pid, flush=True)
time.sleep(600)
"""
LEAVES_PREFECT = """
import time
import psutil
from ratchet.flows.commands.run_here import start_server
start_server()
print(next(p.pid for p in psutil.Process().children() if "uvicorn" in p.cmdline()), flush=True)
time.sleep(600)
"""


def started(folder: Path, code: str, *, healthy: bool = True) -> Service:
    service = Service("probe", [sys.executable, "-c", code], lambda: healthy, folder / "logs" / "probe.log")
    service.start(os.environ, folder)
    return service


def first_line(log: Path) -> str:
    deadline = time.monotonic() + 30
    while "\n" not in log.read_text():
        assert time.monotonic() < deadline, "the child printed nothing in 30 s"
        time.sleep(0.05)
    return log.read_text().splitlines()[0]


def test_stopping_ends_a_grandchild_in_a_session_of_its_own(tmp_path):
    service = started(tmp_path, STARTS_A_CHILD_IN_ITS_OWN_SESSION)
    grandchild = int(first_line(service.log))
    service.stop(grace_s=1)
    assert not psutil.pid_exists(grandchild) or psutil.Process(grandchild).status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("code", ["import time; time.sleep(600)", IGNORES_SIGTERM], ids=["plain", "deaf"])
def test_what_a_killed_process_had_started_ends_by_itself(tmp_path, code):
    orphan = left_by([sys.executable, "-c", LEAVES_A_SERVICE, str(tmp_path), code])
    assert psutil.wait_procs([orphan], timeout=30)[1] == []


@pytest.mark.slow
@pytest.mark.server
def test_prefects_temporary_server_does_not_outlive_a_killed_run():
    orphan = left_by([sys.executable, "-c", LEAVES_PREFECT])
    assert psutil.wait_procs([orphan], timeout=30)[1] == []


def left_by(command: list[str]) -> psutil.Process:
    """The process whose id the command prints, after the command was killed."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        orphan = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    return orphan


def test_stopping_ends_a_process_that_ignores_sigterm(tmp_path):
    service = started(tmp_path, IGNORES_SIGTERM)
    first_line(service.log)
    service.stop(grace_s=0.5)
    assert service.process is not None
    assert service.process.returncode == -9


def test_stopping_what_has_ended_or_never_started_is_harmless(tmp_path):
    never = Service("never", ["false"], lambda: False, tmp_path / "never.log")
    never.stop()
    ended = started(tmp_path, "pass")
    assert ended.process is not None
    ended.process.wait()
    ended.stop()


def test_a_service_that_ends_while_starting_is_named_with_code_and_last_words(tmp_path):
    service = started(tmp_path, "print('no such table'); raise SystemExit(7)", healthy=False)
    with pytest.raises(ServiceUnavailable, match=r"probe ended with code 7; .*probe\.log:\s+no such table"):
        service.wait_until_healthy(timeout_s=30)
    service.stop()


def test_a_service_that_never_answers_is_given_up_at_its_limit(tmp_path):
    service = started(tmp_path, "import time; time.sleep(600)", healthy=False)
    with pytest.raises(ServiceUnavailable, match=r"probe does not answer after \d+ s \(limit 1 s\)"):
        service.wait_until_healthy(timeout_s=1)
    service.stop()


def test_a_taken_port_names_the_option_that_chooses_another():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(BadInput, match=f"port {port} for Prefect is taken .* --prefect-port"):
            require_free_port("Prefect", "127.0.0.1", port, "--prefect-port")


def test_an_address_of_another_machine_is_refused_with_the_systems_reason():
    with pytest.raises(BadInput, match="cannot be used"):
        require_free_port("Prefect", "192.0.2.1", 4200, "--prefect-port")


def test_a_free_port_passes():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    require_free_port("Prefect", "127.0.0.1", port, "--prefect-port")
