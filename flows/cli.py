"""`ratchet`: the command line. A table of contents; each command lives in `flows/commands/`.

Why a command's module is imported when that command is asked for, and not before: they need MLflow, Prefect and
PyTorch, which take seconds; `ratchet --help` and a shell's completion answer at once.
"""

import os
import sys
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from tempfile import gettempdir
from typing import Any, Final, NoReturn

import typer
from rich.markup import escape
from typer.core import TyperGroup

from ratchet.agent.errors import RatchetError
from ratchet.flows.commands.terminal import BAD_INPUT, console, only_the_answer_on_stdout
from ratchet.infra.settings import Settings, prepare_environment

COMMANDS: Final = {
    "demo": ("demo:demo", "The whole loop on real requests: no server, no key, no hub."),
    "init": ("init:init", "Make a project of your own that runs as it is."),
    "improve": ("improve:improve", "Collect, ask people, curate, propose, gate and promote."),
    "monitor": ("improve:monitor", "Look for drift in what arrived since the last look."),
    "serve": ("serve:serve", "Serve the champion to OpenAI clients, or at /v1/act."),
    "up": ("up:up", "Start MLflow, Prefect, a worker and the scheduled flows."),
    "status": ("status:status", "The state of play in one panel, and what to do next."),
    "history": ("history:history", "All versions, a line each, and what is left to spend."),
    "show": ("show:show", "One version: what it changes, its evidence, who moved it."),
    "explain": ("explain:explain", "How one answer came about, back to the data behind it."),
    "label": ("label:app", "What waits for a person: answer it, list it, find its page."),
    "memory": ("memory:app", "What the agent remembers: list it, have it forgotten."),
    "golden": ("golden:app", "Cases with known answers, played at every promotion."),
    "export": ("export:export", "A version's weights as adapter, merged model or GGUF."),
    "approve": ("approve:approve", "Show a challenger with its evidence; --yes lets it serve."),
    "rollback": ("rollback:rollback", "Put the champion before the present one back."),
    "alarm": ("alarm:app", "The drift alarm: show it, silence it, accept the traffic."),
    "judge": ("judge:judge", "How far the judge agrees with people, and its licence."),
    "budget": (
        "budget:budget",
        "The error budget and every test that was paid from it.",
    ),
    "import": ("import_log:import_log", "Import an agent's logs as traces and as experience."),
    "gate": ("gate:gate", "Is the challenger better? Any team's pairs, in its CI."),
    "drift": ("drift:drift", "Did the traffic change? Any team's two files, no server."),
    "characteristics": ("gate:characteristics", "Measure how often the gate errs, and what it costs."),
    "doctor": ("doctor:doctor", "What must hold before anything runs, and what to mend."),
    "gc": ("gc:gc", "Remove what no version's lineage names any more."),
}
"""Name to its place in `flows/commands/` and its line in `ratchet --help`, in the order in which a newcomer asks."""


class Lazy(TyperGroup):
    """Replaces a command by the real one when it is asked for."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that the arguments name, imported."""
        name, command, rest = super().resolve_command(ctx, args)
        if name not in COMMANDS:
            return name, command, rest
        return name, _imported(name, runs=not ctx.resilient_parsing and "--help" not in rest), rest


app = typer.Typer(
    name="ratchet",
    help="An LLM agent improves from its own production experience, and never gets worse unnoticed.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    cls=Lazy,
)


@app.callback()
def ratchet() -> None:
    """Commands exit with 0 (yes, proven, no drift), 3 (no, not yet, refused, drift) or 2 (bad input)."""


for _name, (_, _line) in COMMANDS.items():
    app.command(_name, help=_line)(lambda: None)


def _imported(name: str, *, runs: bool) -> Any:
    module, _, attribute = COMMANDS[name][0].partition(":")
    prepare_environment()  # MLflow and Prefect read theirs when they are imported
    if module in ("demo", "improve"):
        _prepare_prefect(runs=runs)
    found = getattr(import_module(f"{__package__}.commands.{module}"), attribute)
    if isinstance(found, typer.Typer):
        return typer.main.get_group(found)
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
    alone.command(name)(found)
    return typer.main.get_command(alone)


def _prepare_prefect(*, runs: bool) -> None:
    """Let flows run here without a server: their state goes below our home, their logs stay quiet."""
    # Prefect makes its home when it is imported; who asks for help or completion wants none
    home = Settings().made_home() / "prefect" if runs else Path(gettempdir())
    os.environ.setdefault("PREFECT_HOME", str(home))
    os.environ.setdefault("PREFECT_LOCAL_STORAGE_PATH", str(home / "results"))
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")  # we say what went wrong, in a line
    os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "ERROR")


def main() -> None:
    """Run the command line; an error that is foreseen is one line and exit code 2."""
    quiet = only_the_answer_on_stdout() if "--json" in sys.argv else nullcontext()
    try:
        with quiet:
            app()
    except RatchetError as error:
        _refuse(str(error))
    except Exception as error:
        from ratchet.infra.failures import in_one_line  # SQLAlchemy and pyarrow: only where something broke

        line = in_one_line(error)
        if line is None:
            raise
        _refuse(line)


def _refuse(line: str) -> NoReturn:
    console.print(f"[bold red]error[/] {escape(line)}", soft_wrap=True)
    sys.exit(BAD_INPUT)
