"""`ratchet`: the command line. A table of contents; each command lives in `flows/commands/`.

Heavy libraries are imported inside the commands, so that `ratchet --help` answers in under a second.
"""

import sys
from contextlib import nullcontext
from typing import NoReturn

import typer
from rich.markup import escape

from agent.errors import RatchetError
from flows.commands import alarm as alarm_commands
from flows.commands import approve as approve_command
from flows.commands import budget as budget_command
from flows.commands import doctor as doctor_command
from flows.commands import drift as drift_command
from flows.commands import explain as explain_command
from flows.commands import gate as gate_commands
from flows.commands import gc as gc_command
from flows.commands import history as history_command
from flows.commands import import_log as import_command
from flows.commands import improve as flow_commands
from flows.commands import init as init_command
from flows.commands import label as label_commands
from flows.commands import pictures as pictures_command
from flows.commands import rollback as rollback_command
from flows.commands import status as status_command
from flows.commands import up as up_command
from flows.commands.terminal import BAD_INPUT, console, only_the_answer_on_stdout

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
    from infra.settings import prepare_environment

    prepare_environment()  # before a command imports MLflow, which reads some of it then


app.command("gate")(gate_commands.gate)
app.command("characteristics")(gate_commands.characteristics)
app.command("drift")(drift_command.drift)
app.command("demo")(flow_commands.demo)
app.command("improve")(flow_commands.improve)
app.command("monitor")(flow_commands.monitor)
app.command("up")(up_command.up)
app.command("doctor")(doctor_command.doctor)
app.command("init")(init_command.init)
app.command("import")(import_command.import_log)
app.command("status")(status_command.status)
app.command("history")(history_command.history)
app.command("explain")(explain_command.explain)
app.add_typer(alarm_commands.app, name="alarm")
app.add_typer(label_commands.app, name="label")
app.command("approve")(approve_command.approve)
app.command("budget")(budget_command.budget)
app.command("gc")(gc_command.gc)
app.command("rollback")(rollback_command.rollback)
app.command("pictures", hidden=True)(pictures_command.pictures)


def main() -> None:
    """Run the command line; an error that is foreseen is one line and exit code 2."""
    quiet = only_the_answer_on_stdout() if "--json" in sys.argv else nullcontext()
    try:
        with quiet:
            app()
    except RatchetError as error:
        _refuse(str(error))
    except Exception as error:
        from infra.failures import in_one_line

        line = in_one_line(error)
        if line is None:
            raise
        _refuse(line)


def _refuse(line: str) -> NoReturn:
    console.print(f"[bold red]error[/] {escape(line)}", soft_wrap=True)
    sys.exit(BAD_INPUT)
