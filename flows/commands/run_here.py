"""Flows that a person starts by hand run in this process, without a server to set up; Ctrl-C loses nothing."""

import atexit
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_API_URL

from ratchet.flows.commands.terminal import console
from ratchet.infra.stack.service import dismiss, guarded

INTERRUPTED = 130
"""What a shell says of a command that Ctrl-C ended."""


def start_server() -> None:
    """Start Prefect's temporary server where none is set, deaf to Ctrl-C, and not to outlive us.

    A terminal sends Ctrl-C to every process in it. A server that ended first would leave the flow, which wants to
    report that it was stopped, asking for minutes.
    """
    if PREFECT_API_URL.value():
        return
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a child inherits what is blocked
    try:
        _Server().start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


class _Server(SubprocessASGIServer):
    def _run_uvicorn_command(self) -> subprocess.Popen[bytes]:
        process = super()._run_uvicorn_command()
        atexit.register(dismiss, guarded(process.pid))  # while it is still starting, too
        return process


@contextmanager
def resumable() -> Iterator[None]:
    """Say on Ctrl-C what becomes of the work done so far."""
    try:
        yield
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on from here")
        raise typer.Exit(INTERRUPTED) from None
