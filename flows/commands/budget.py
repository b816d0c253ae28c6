"""`ratchet budget`: every test that was paid for; a person may close one, or grant a new error budget.

Why a person may close a test: it stays open until its verdict, and one that nobody waits for any more holds its
share; closed, it gives back what its evidence is worth, and never goes on.

Why granting is a command of its own with a name and a reason: the promise "at most α in this project's lifetime"
ends with it and becomes one per budget; that must be somebody's decision, and stay visible for good.
"""

from typing import Annotated

import typer
from rich.table import Table

from ratchet.agent.errors import BadInput
from ratchet.evaluation.gate.ledger import Ledger
from ratchet.flows.commands.options import CURRENT_FOLDER, AsJson, Folder, Name, Person
from ratchet.flows.commands.terminal import NO, console, emit_json, moment, outside
from ratchet.flows.commands.which_project import called, which_project, which_version
from ratchet.flows.commands.wording import verdict_word
from ratchet.flows.project_settings import ledger_as_set
from ratchet.infra.registry.closing import close_open_test
from ratchet.infra.registry.ledger import grant_budget
from ratchet.infra.registry.registry import version_history


def budget(
    close: Annotated[
        str | None, typer.Option("--close", help="Candidate whose open test ends here; needs --reason.")
    ] = None,
    grant: Annotated[bool, typer.Option("--grant", help="Grant a new budget; needs --reason.")] = False,
    by: Person = "",
    reason: Annotated[str, typer.Option(help="Why; recorded for good.")] = "",
    project: Folder = CURRENT_FOLDER,
    name: Name = None,
    as_json: AsJson = False,
) -> None:
    """The error budget and every test that was paid from it.

    Closes a test, or grants a new budget.

    Exit 3 when it is exhausted.
    """
    chosen = which_project(project, name)
    if close is not None:
        _close(chosen, close, by, reason)
    if grant:
        grant_budget(chosen, granted_by=by, because=reason)
    ledger = ledger_as_set(chosen, None if name else project)
    if as_json:
        emit_json({"project": chosen, "exhausted": ledger.exhausted, **ledger.model_dump(mode="json")})
    else:
        _show(chosen, ledger)
    if ledger.exhausted:
        raise typer.Exit(NO)


def _close(project: str, candidate: str, by: str, reason: str) -> None:
    if not by.strip() or not reason.strip():
        raise BadInput(f"closed by {by!r} because {reason!r}: closing a test needs a name and a reason")
    version = which_version(version_history(project), candidate)
    closed = close_open_test(project, version.candidate_id, reason=reason, by=by)
    console.print(
        f"the test of {called(version)} is closed: e = {closed.e_value:.3g} gives back {closed.returned:.2g}, "
        f"of its share {closed.alpha_k:.2g}; its cases cannot judge again"
    )


def _show(project: str, ledger: Ledger) -> None:
    table = Table(
        title=f"{project}: {len(ledger.entries)} tests", title_justify="left", box=None, pad_edge=False
    )
    numbers = ("share α", "needs e ≥", "e", "back")
    for title in ("test", "opened", "candidate", *numbers, "verdict"):
        numeric = title in numbers
        table.add_column(title, header_style="dim", no_wrap=True, justify="right" if numeric else "left")
    for entry in ledger.entries:
        table.add_row(
            f"{entry.budget}.{entry.k}" if ledger.refreshes else str(entry.k),
            moment(entry.opened_at), outside(entry.candidate[:8]),
            f"{entry.alpha_k:.2g}", f"{entry.threshold:,.4g}",
            "–" if entry.e_value is None else f"{entry.e_value:,.3g}",
            f"{entry.returned:.2g}" if entry.gives_back and entry.decision else "–",
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
