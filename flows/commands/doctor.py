"""`ratchet doctor`: what must hold before anything runs, what was found, and what to do about it."""

from typing import Final

import typer
from rich.table import Table

from ratchet.flows.commands.options import AsJson
from ratchet.flows.commands.terminal import NO, YES, console, emit_json
from ratchet.infra.doctor import Check, run_checks

_MARK: Final = {"ok": "[green]✓[/]", "warning": "[yellow]![/]", "failed": "[red]✗[/]"}


def doctor(as_json: AsJson = False) -> None:
    """What must hold before anything runs, and what to mend.

    Python, pins, data, disk, MLflow, ports and alerts; exit 3 if something must be mended first.
    """
    with console.status("looking"):
        checks = run_checks()
    healthy = all(check.state != "failed" for check in checks)
    if as_json:
        emit_json({"healthy": healthy, "checks": [check.model_dump() for check in checks]})
    else:
        console.print(_table(checks))
        failed = sum(check.state == "failed" for check in checks)
        console.print("ready" if healthy else f"{failed} of {len(checks)} must be mended first")
    raise typer.Exit(YES if healthy else NO)


def _table(checks: list[Check]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("", "check", "found", "what to do"):
        table.add_column(title, overflow="fold")
    for check in checks:
        table.add_row(_MARK[check.state], check.name, check.found, check.remedy)
    return table
