"""`ratchet improve`, `ratchet monitor` and `ratchet demo`: the flows, called by hand, without a server to set up."""

import atexit
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from flows.commands.terminal import NO, YES, console, emit_json

INTERRUPTED = 130
"""What a shell says of a command that Ctrl-C ended."""
Folder = Annotated[str, typer.Option("--project", help="Folder with your project.py.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


def prepare_flows() -> None:
    """Let flows run here without a server: their state goes below our home, their logs stay quiet."""
    from infra.settings import Settings, prepare_environment

    prepare_environment()
    home = Settings().made_home() / "prefect"
    home.mkdir(exist_ok=True)
    os.environ.setdefault("PREFECT_HOME", str(home))
    os.environ.setdefault("PREFECT_LOCAL_STORAGE_PATH", str(home / "results"))
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")  # we say what went wrong, in a line
    os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "ERROR")
    _start_server()


def _start_server() -> None:
    """Start Prefect's temporary server where none is set, deaf to Ctrl-C, and not to outlive us.

    A terminal sends Ctrl-C to every process in it. A server that ended first would leave the flow, which wants to
    report that it was stopped, asking for minutes.
    """
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.settings import PREFECT_API_URL

    from infra.service import dismiss, guarded

    if PREFECT_API_URL.value():
        return

    class Server(SubprocessASGIServer):
        def _run_uvicorn_command(self) -> "subprocess.Popen[bytes]":
            process = super()._run_uvicorn_command()
            atexit.register(dismiss, guarded(process.pid))  # while it is still starting, too
            return process

    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a child inherits what is blocked
    try:
        Server().start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


@contextmanager
def resumable() -> Iterator[None]:
    """Say on Ctrl-C what becomes of the work done so far."""
    try:
        yield
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on from here")
        raise typer.Exit(INTERRUPTED) from None


def improve(
    project: Folder = ".",
    approve_as: Annotated[
        str, typer.Option(help="Name of the policy that approves what is proven; without it, a person does.")
    ] = "",
    model: Annotated[
        str,
        typer.Option(help="Try the champion on this LM, and nothing else: RATCHET_LM's way of writing it."),
    ] = "",
    model_at: Annotated[
        str, typer.Option(help="Address of --model's endpoint; RATCHET_LM_API_BASE if left out.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Collect, ask people, curate, propose, gate and promote, once."""
    prepare_flows()
    from flows.demo.telling import say, show_round
    from flows.improve import ImproveSettings
    from flows.improve import improve as flow
    from infra.registry import history
    from tasks.project_name import name_of

    settings = ImproveSettings(approved_by=approve_as or None, model=model or None, model_at=model_at or None)
    with resumable():
        report = flow(project, settings)
    if as_json:
        emit_json(report)
    else:
        say(f"served {report.served} waiting requests")
        show_round(report, history(name_of(project)))
        for problem in report.problems:
            console.print(f"  [yellow]{problem}")
    raise typer.Exit(YES if report.decision.best else NO)


def monitor(project: Folder = ".", as_json: Json = False) -> None:
    """Look for drift in what arrived since the last look; exit 3 while an alarm stands."""
    prepare_flows()
    from flows.demo.telling import say, show_drift
    from flows.monitor import monitor as flow

    with resumable():
        report = flow(project)
    if as_json:
        emit_json(report)
    else:
        say(f"{report.new_traces} new traces")
        show_drift(report.watched)
        if report.improve:
            say(f"the alarm started `improve` ({report.improve})")
        elif report.watched.improve:
            say("no `improve` is deployed here (`ratchet up` does): run `ratchet improve` yourself")
        for problem in report.problems:
            console.print(f"  [yellow]{problem}")
    raise typer.Exit(NO if report.watched.alarm else YES)


def demo(
    auto_approve: Annotated[
        bool, typer.Option("--auto-approve", help="Promote what is proven without asking a person.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget an earlier demo and start over.")] = False,
    size: Annotated[
        float, typer.Option(min=0.1, max=1.0, help="Share of the requests: less is quicker and proves less.")
    ] = 1.0,
    as_json: Json = False,
) -> None:
    """The whole loop on real requests with the embedded LM: no server, no key, no hub."""
    prepare_flows()
    from flows.demo.restart import forget
    from flows.demo.story import tell
    from flows.demo.weeks import NAME, begin
    from infra.project_state import project_lock

    if fresh:
        forget()
    with project_lock(NAME, "`ratchet demo`", console.print), resumable():
        begin(size)
        story = tell(auto_approve=auto_approve)
    if as_json:
        emit_json(story)
