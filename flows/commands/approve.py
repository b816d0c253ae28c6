"""`ratchet approve`: a person sees what changed and how it was proven, then lets it serve.

Why a dry run first: the alias is what users meet; it moves only on `--yes`, in somebody's name.
"""

from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from ratchet.agent.errors import BadInput
from ratchet.evaluation.gate.verdict import Verdict
from ratchet.flows.commands.candidate_changes import Change, changes
from ratchet.flows.commands.options import HERE, AsJson, Folder, Name, Person
from ratchet.flows.commands.terminal import NO, console, emit_json, outside
from ratchet.flows.commands.which_project import which_project, which_version
from ratchet.flows.commands.wording import DECISION, called
from ratchet.infra.registry import registry
from ratchet.infra.registry.promotion import require_promotable
from ratchet.infra.registry.version import Version


def approve(
    candidate: Annotated[
        str | None, typer.Argument(help="Id (or its beginning) or number; without, those that wait.")
    ] = None,
    by: Person = "",
    reason: Annotated[str, typer.Option(help="Why; the verdict's sentence if left out.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Promote; without, only show the evidence.")] = False,
    project: Folder = HERE,
    name: Name = None,
    as_json: AsJson = False,
) -> None:
    """Show a challenger with its evidence; --yes lets it serve."""
    chosen = which_project(project, name)
    versions = registry.version_history(chosen)
    champion = next((v for v in versions if "champion" in v.aliases), None)
    if candidate is None:
        _list_waiting(chosen, versions, champion, as_json=as_json)
        return
    version = which_version(versions, candidate)
    refusal = _refusal(chosen, version)
    promoted = yes and refusal is None
    if promoted:
        registry.promote(chosen, version.candidate_id, approved_by=by, reason=reason or version.reason)
    _report(chosen, version, champion, promoted=promoted, refusal=refusal, as_json=as_json)
    if refusal is not None:
        raise refusal


def awaiting_approval(versions: list[Version], champion: Version | None) -> list[Version]:
    """Versions that are proven against the champion of now and that nobody has promoted."""
    against = champion and champion.candidate_id
    return [
        v for v in versions if v is not champion and v.decision == "promote" and v.compared_with == against
    ]


def _refusal(project: str, version: Version) -> BadInput | None:
    try:
        require_promotable(project, version.candidate_id)
    except BadInput as error:
        return error
    return None


def _list_waiting(project: str, versions: list[Version], champion: Version | None, *, as_json: bool) -> None:
    found = awaiting_approval(versions, champion)
    if as_json:
        emit_json({"project": project, "waiting": [_summary(version) for version in found]})
    elif not found:
        console.print("no proven challenger waits; `ratchet history` tells how far the others are")
    for version in [] if as_json else found:
        console.print(Text.assemble((called(version), "bold"), "  ", outside(version.reason)))
        console.print(f"  `ratchet approve {version.candidate_id[:8]}` shows what changes")
    if not found:
        raise typer.Exit(NO)


def _summary(version: Version) -> dict[str, Any]:
    return {
        "candidate_id": version.candidate_id,
        "number": version.number,
        "proposer": version.candidate.origin.proposer,
        "reason": version.reason,
    }


def _report(
    project: str,
    version: Version,
    champion: Version | None,
    *,
    promoted: bool,
    refusal: BadInput | None,
    as_json: bool,
) -> None:
    rows = changes(champion.candidate, version.candidate) if champion is not None else []
    if as_json:
        emit_json(
            {
                **_summary(version),
                "project": project,
                "champion": champion and champion.candidate_id,
                "changes": [row._asdict() for row in rows],
                "verdict": version.verdict and version.verdict.model_dump(mode="json"),
                "refusal": refusal and str(refusal),
                "promoted": promoted,
            }
        )
        return
    console.print(_difference(rows, version, champion))
    if version.verdict is not None:
        console.print(_evidence(version.verdict))
    if promoted:
        console.print(f"[green]✓[/] {called(version)} serves; `ratchet rollback --yes` undoes it")
    elif refusal is None:
        console.print(f"`ratchet approve {version.candidate_id[:8]} --yes` lets it serve")


def _difference(rows: list[Change], version: Version, champion: Version | None) -> Table:
    now = called(champion) if champion is not None else "no champion yet"
    table = Table(title=f"{called(version)} beside {now}", title_justify="left", show_lines=True)
    for title, ratio in (("what", 2), ("champion", 3), ("challenger", 3)):
        table.add_column(title, ratio=ratio, overflow="fold")
    for row in rows:
        table.add_row(outside(row.what), outside(row.old), outside(row.new))
    return table


def _evidence(verdict: Verdict) -> Table:
    table = Table.grid(padding=(0, 2))
    decision = Text(verdict.decision, style=f"bold {DECISION[verdict.decision]}")
    low, high = verdict.ci
    gain = "not known" if verdict.gain is None else f"{verdict.gain:+.3f}"
    table.add_row("verdict", decision)
    table.add_row("gain", f"{gain}, {verdict.confidence:.0%} interval {low:+.3f} to {high:+.3f}")
    table.add_row("evidence", f"e = {verdict.e_value:,.4g}; promotes at {verdict.threshold:,.4g}")
    table.add_row("cases", f"{verdict.n_labelled:,} labelled, {verdict.n_judged:,} judged")
    for blocked in verdict.blocked_by:
        table.add_row("[red]blocked by[/]", outside(blocked))
    return table
