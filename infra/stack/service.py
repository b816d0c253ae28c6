"""One server as a child process: started with its own log, watched, and stopped with all that it started.

Why a session of its own: Ctrl-C in a terminal then reaches only `ratchet up`, which stops them in order. Where that
is killed and can stop nothing, a shell that reads from it does (`guarded`).
"""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from ratchet.agent.errors import BadInput, ServiceUnavailable

_LOG_LINES: Final = 15
_POLL_S: Final = 0.25
_GUARD: Final = """
read -r _ && exit
kill -TERM "$0"
for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$0" || exit; sleep 1; done
kill -KILL "$0"
"""
"""Reading ends without a line where the process at the other end of the pipe is gone."""


@dataclass
class Service:
    """What to run and how to see that it serves."""

    name: str
    command: Sequence[str]
    is_healthy: Callable[[], bool]
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    guard: subprocess.Popen[bytes] | None = field(default=None, init=False)
    started_at: float = field(default=0.0, init=False)
    """Seconds since the epoch."""

    def start(self, environment: Mapping[str, str], folder: Path) -> None:
        """Start the process in `folder`; its output goes to `log`."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.started_at = time.time()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.guard = guarded(-self.process.pid)

    def wait_until_healthy(self, timeout_s: float) -> float:
        """Seconds from the start until it serves.

        Raises:
            ServiceUnavailable: it ended, or does not serve after `timeout_s`; holds the log's last lines.
        """
        while not self.is_healthy():
            waited = time.time() - self.started_at
            self.require_running()
            if waited > timeout_s:
                raise ServiceUnavailable(
                    f"{self.name} does not answer after {waited:.0f} s (limit {timeout_s:.0f} s); "
                    f"{self.log_tail()}"
                )
            time.sleep(_POLL_S)
        return time.time() - self.started_at

    def require_running(self) -> None:
        """Raise ServiceUnavailable, with the log's last lines, if it ended by itself."""
        if self.process is not None and self.process.poll() is not None:
            raise ServiceUnavailable(
                f"{self.name} ended with code {self.process.returncode}; {self.log_tail()}"
            )

    def log_tail(self) -> str:
        """Where the log is, and its last lines."""
        lines = self.log.read_text(errors="replace").splitlines()[-_LOG_LINES:] if self.log.exists() else []
        return "\n  ".join([f"the end of {self.log}:", *lines])

    def stop(self, grace_s: float = 15.0) -> None:
        """End it and every process that it started, those in sessions of their own included."""
        if self.process is None:
            return
        descendants = _descendants(self.process.pid)
        _signal_group(self.process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(grace_s)
        _, alive = psutil.wait_procs(descendants, timeout=grace_s)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        _signal_group(self.process.pid, signal.SIGKILL)
        self.process.wait()
        psutil.wait_procs(alive, timeout=grace_s)
        if self.guard is not None:
            dismiss(self.guard)
            self.guard = None


def guarded(target: int) -> subprocess.Popen[bytes]:
    """A small shell that ends `target` when this process is gone, however it died; on Linux and macOS alike.

    Args:
        target: a process id, or the negative of a process group's.

    Returns:
        The shell, for `dismiss` once the target is stopped.
    """
    return subprocess.Popen(
        ["/bin/sh", "-c", _GUARD, str(target)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def dismiss(guard: subprocess.Popen[bytes]) -> None:
    """There is nothing left to end."""
    guard.communicate(b"done\n")


def _descendants(pid: int) -> list[psutil.Process]:
    """Taken while the parents that name them still live."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _signal_group(leader: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: EPERM for a group of zombies
        os.killpg(leader, number)


def require_free_port(name: str, host: str, port: int, option: str) -> None:
    """Connect as well as bind: on macOS a bind succeeds beside a listener on all interfaces.

    Raises:
        BadInput: something listens there, or this user may not; names the option that chooses another port.
    """
    remedy = f"stop it, or choose another with {option}"
    with socket.socket() as probe:
        probe.settimeout(1)
        if probe.connect_ex((host, port)) == 0:
            raise BadInput(f"port {port} for {name} is taken by another program: {remedy}")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise BadInput(f"port {port} for {name} cannot be used ({error.strerror}): {remedy}") from error
