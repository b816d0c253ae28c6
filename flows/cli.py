"""`ratchet`: the command line. A table of contents; each command lives in `flows/commands/`.

Heavy libraries are imported inside the commands, so that `ratchet --help` answers in under a second.
"""

import sys

import typer

from agent.errors import RatchetError
from flows.commands import doctor as doctor_command
from flows.commands import drift as drift_command
from flows.commands import gate as gate_commands
from flows.commands import up as up_command
from flows.commands.terminal import BAD_INPUT, console

app = typer.Typer(
    name="ratchet",
    help="An LLM agent improves from its own production experience, and never gets worse unnoticed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.callback()
def ratchet() -> None:
    """Commands exit with 0 (yes, promote, no drift), 3 (no, continue, reject, drift) or 2 (bad input)."""


app.command("gate")(gate_commands.gate)
app.command("characteristics")(gate_commands.characteristics)
app.command("drift")(drift_command.drift)
app.command("up")(up_command.up)
app.command("doctor")(doctor_command.doctor)


def main() -> None:
    """Run the command line; an error that we raise on purpose is one line and exit code 2."""
    try:
        app()
    except RatchetError as error:
        console.print(f"[bold red]error[/] {error}", soft_wrap=True)
        sys.exit(BAD_INPUT)
