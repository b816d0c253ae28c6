"""`ratchet up`: MLflow, Prefect, a worker and the schedule, in the foreground until Ctrl-C.

Why the foreground: what a person sees running is what runs; a service manager can keep it, too, by SIGTERM.
"""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Final

import typer
from rich.panel import Panel
from rich.table import Table

from ratchet.flows.commands.terminal import console
from ratchet.infra.settings import Settings
from ratchet.infra.stack.stack import Stack, StackPlan, running_stack

_LOOK_EVERY_S: Final = 5.0


def up(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = StackPlan.host,
    mlflow_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of MLflow.")
    ] = StackPlan.mlflow_port,
    prefect_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of Prefect.")
    ] = StackPlan.prefect_port,
) -> None:
    """Start MLflow, Prefect, a worker and the scheduled flows.

    For the project in this folder, until Ctrl-C.
    """
    plan = StackPlan(Path.cwd(), host=host, mlflow_port=mlflow_port, prefect_port=prefect_port)
    status = console.status("starting; each service takes 10 to 30 seconds")
    with _stopped_by_signal(), status, running_stack(plan, Settings(), _report) as stack:
        for name, url in stack.others.items():
            console.print(f"{name}: the server at {url} is used, as the environment says; none is started")
        console.print(_panel(stack))
        status.update("running; Ctrl-C stops everything")
        _watch(stack)


@contextmanager
def _stopped_by_signal() -> Iterator[None]:
    """Ctrl-C, SIGTERM and a closed terminal end the block in the same orderly way."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def interrupt(number: int, frame: FrameType | None) -> None:
        for one in numbers:
            signal.signal(one, signal.SIG_IGN)  # a second Ctrl-C must not leave half of them running
        console.print("stopping")
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    except KeyboardInterrupt:
        console.print("stopped what was started here")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _report(name: str, seconds: float) -> None:
    console.print(f"[green]✓[/] {name} is healthy after {seconds:.0f} s")


def _panel(stack: Stack) -> Panel:
    table = Table.grid(padding=(0, 2))
    table.add_row("MLflow", stack.mlflow_url, "traces, versions, review queue")
    table.add_row("Prefect", stack.prefect_url, "schedules and runs")
    table.add_row("logs", str(stack.settings.home / "logs"), "")
    table.add_row("by hand", f"export PREFECT_API_URL={stack.prefect_api}", "then `ratchet improve`")
    return Panel(table, title="Ratchet is up", expand=False)


def _watch(stack: Stack) -> None:
    """Tell when a service stops or starts answering; one that ended ends the stack.

    Raises:
        ServiceUnavailable: a service ended by itself; holds the end of its log.
    """
    ill: set[str] = set()
    while True:
        for service in stack.services:
            service.require_running()
        now = {service.name for service in stack.services if not service.is_healthy()}
        for name in sorted(now - ill):
            console.print(f"[yellow]![/] {name} does not answer")
        for name in sorted(ill - now):
            console.print(f"[green]✓[/] {name} answers again")
        ill = now
        time.sleep(_LOOK_EVERY_S)
