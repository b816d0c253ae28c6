"""`ratchet budget`: every test that was paid for, and a new error budget in a person's name.

Why granting is a command of its own with a name and a reason: the promise "at most α in this project's lifetime"
ends with it and becomes one per budget; that must be somebody's decision, and stay visible for good.
"""

from typing import Annotated

import typer
from rich.table import Table

from ratchet.evaluation.gate.ledger import Ledger
from ratchet.flows.commands.options import CURRENT_FOLDER, AsJson, Folder, Name, Person
from ratchet.flows.commands.terminal import NO, console, emit_json, moment, outside
from ratchet.flows.commands.which_project import which_project
from ratchet.flows.commands.wording import verdict_word
from ratchet.flows.project_settings import ledger_as_set
from ratchet.infra.registry.ledger import grant_budget


def budget(
    grant: Annotated[bool, typer.Option("--grant", help="Grant a new budget; needs --reason.")] = False,
    by: Person = "",
    reason: Annotated[str, typer.Option(help="Why; recorded for good.")] = "",
    project: Folder = CURRENT_FOLDER,
    name: Name = None,
    as_json: AsJson = False,
) -> None:
    """The error budget and every test that was paid from it.

    Exit 3 when it is exhausted.
    """
    chosen = which_project(project, name)
    if grant:
        grant_budget(chosen, granted_by=by, because=reason)
    ledger = ledger_as_set(chosen, None if name else project)
    if as_json:
        emit_json({"project": chosen, "exhausted": ledger.exhausted, **ledger.model_dump(mode="json")})
    else:
        _show(chosen, ledger)
    if ledger.exhausted:
        raise typer.Exit(NO)


def _show(project: str, ledger: Ledger) -> None:
    table = Table(
        title=f"{project}: {len(ledger.entries)} tests", title_justify="left", box=None, pad_edge=False
    )
    for title in ("budget", "test", "opened", "candidate", "share α", "needs e ≥", "e", "verdict"):
        numeric = title in ("share α", "needs e ≥", "e")
        table.add_column(title, header_style="dim", no_wrap=True, justify="right" if numeric else "left")
    for entry in ledger.entries:
        table.add_row(
            str(entry.budget), str(entry.k), moment(entry.opened_at), outside(entry.candidate[:8]),
            f"{entry.alpha_k:.2g}", f"{entry.threshold:,.4g}",
            "–" if entry.e_value is None else f"{entry.e_value:,.4g}",
            verdict_word(entry.decision) if entry.decision else "[dim]open[/]",
        )  # fmt: skip
    if ledger.entries:
        console.print(table)
    for one in ledger.refreshes:
        console.print(
            f"budget {one.budget} granted by",
            outside(one.granted_by),
            moment(one.at),
            "·",
            outside(one.because),
        )
    console.print(outside(ledger.summary))
    if ledger.exhausted:
        console.print('`ratchet budget --grant --reason "…"` grants a new one, in your name')
