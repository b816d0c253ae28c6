"""`ratchet approve`: a person sees what changed, how it was proven and what got worse, then lets it serve or says no.

Why a dry run first: the alias is what users meet; it moves only on `--yes`, in somebody's name.
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from ratchet.agent.errors import BadInput
from ratchet.agent.project import has_project, load_project
from ratchet.evaluation.gate.approval import Waiting
from ratchet.flows.approval_evidence import (
    SHOWN,
    ApprovalEvidence,
    approval_evidence,
    asked_json,
    case_sides,
    evidence_json,
    memory_lines,
)
from ratchet.flows.commands.options import CURRENT_FOLDER, AsJson, Folder, Name, Person
from ratchet.flows.commands.show import difference, facts
from ratchet.flows.commands.terminal import NO, console, emit_json, outside
from ratchet.flows.commands.which_project import called, which_project, which_version
from ratchet.flows.project_settings import ProjectSettings, in_file, read_settings
from ratchet.infra.registry import approval as approvals
from ratchet.infra.registry.compared_cases import ComparedCase
from ratchet.infra.registry.event_log import now
from ratchet.infra.registry.promotion import require_promotable
from ratchet.infra.registry.registry import version_history
from ratchet.infra.registry.version import Version

_SIGNS = {"+": "green", "-": "red", "~": "yellow"}


def approve(
    candidate: Annotated[
        str | None, typer.Argument(help="Id (or its beginning) or number; without, those that wait.")
    ] = None,
    by: Person = "",
    reason: Annotated[str, typer.Option(help="Why; the verdict's sentence if left out.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Promote; without, only show the evidence.")] = False,
    no: Annotated[
        bool, typer.Option("--no", help="Decline, with --reason: it must be proven anew to serve.")
    ] = False,
    cases: Annotated[int, typer.Option(min=0, help="Cases lost and won to show, of each.")] = SHOWN,
    project: Folder = CURRENT_FOLDER,
    name: Name = None,
    as_json: AsJson = False,
) -> None:
    """Show a challenger with its evidence; --yes lets it serve.

    What changes, what it remembers, the verdict, and the cases lost and won with whose label says so.
    """
    if yes and no:
        raise BadInput("--yes and --no: give one of them")
    chosen = which_project(project, name)
    versions = version_history(chosen)
    champion = next((v for v in versions if "champion" in v.aliases), None)
    if candidate is None:
        _list_waiting(chosen, versions, champion, as_json=as_json)
        return
    version = which_version(versions, candidate)
    if yes or no:
        _take_policy(chosen, project, name)
    refusal = _refusal(chosen, version, by if yes or no else "")
    found = approval_evidence(chosen, version, champion, most=cases) if champion else None
    if no and refusal is None:
        approvals.decline(chosen, version.candidate_id, by=by, reason=reason, via="terminal")
    served = None
    if yes and refusal is None:
        reason = reason or version.reason
        served = approvals.approve(
            chosen,
            version.candidate_id,
            by=by,
            reason=reason,
            via="terminal",
            upstream=_upstream(project, name),
        )
    if as_json:
        more = {"promoted": served is not None, "declined": no and refusal is None}
        emit_json({**_answer(chosen, version, champion, found), **more, "refusal": refusal and str(refusal)})
    else:
        _show(version, versions, found)
        if refusal is None:
            console.print(_what_came(chosen, version, yes=yes, no=no, served=served is not None))
    if refusal is not None:
        raise refusal


def awaiting_approval(
    project: str, versions: list[Version], champion: Version | None
) -> list[tuple[Version, Waiting]]:
    """Versions that are proven against the champion of now and that nobody promoted or declined in time."""
    if champion is None or not any(_may_wait(version, champion) for version in versions):
        return []
    by_id = {version.candidate_id: version for version in versions}
    found = [one for one in approvals.all_waiting(project) if not one.lapsed(now())]
    return [(by_id[one.candidate_id], one) for one in found if _may_wait(by_id[one.candidate_id], champion)]


def _may_wait(version: Version, champion: Version) -> bool:
    proven = version.decision == "promote" and version.compared_with == champion.candidate_id
    return proven and version is not champion


def _take_policy(chosen: str, folder: Path, name: str | None) -> None:
    """What the project's own file says of approvals holds from now on, not at the next `improve` alone."""
    if name is None and has_project(folder) and "approval" in in_file(folder):
        approvals.set_policy(chosen, read_settings(folder, ProjectSettings).approval)


def _upstream(folder: Path, name: str | None) -> str | None:
    """Where a chat endpoint is now, if its project's folder is here."""
    if name is not None or not has_project(folder):
        return None
    from ratchet.infra.registry.agents import upstream_of  # with DSPy, for which a reader must not wait

    return upstream_of(load_project(folder))


def _refusal(project: str, version: Version, by: str) -> BadInput | None:
    try:
        require_promotable(project, version.candidate_id, by=by)
    except BadInput as error:
        return error
    return None


def _show(version: Version, versions: list[Version], found: ApprovalEvidence | None) -> None:
    console.print(facts(version, versions))
    if found is None:
        return
    console.print(difference(version, found.champion, limit=4000))
    for name, one in found.memory.items():
        console.print(Text.assemble((name, "bold"), f"  {one.summary}"))
        for sign, line in memory_lines(one):
            console.print(Text.assemble((f"  {sign} ", _SIGNS[sign]), outside(line)))
    if found.version.verdict is not None and found.version.verdict.slices:
        told = (f"{part.name} {part.gain:+.3f} on {part.n_bets:,}" for part in found.version.verdict.slices)
        console.print(Text.assemble(("slices", "bold"), "  ", outside(", ".join(told), 1000)))
    cases = found.cases
    if cases.n_lost or cases.n_won:
        same = f"{cases.n_won:,} won, {cases.n_lost:,} lost, {cases.n_same:,} scored the same"
        console.print(Text.assemble(("cases", "bold"), f"  {same}"))
        _show_cases("lost", cases.lost)
        _show_cases("won", cases.won)
    if found.waiting is not None:
        console.print(Text.assemble(("approval", "bold"), "  ", outside(found.waiting.asked, 1000)))


def _show_cases(title: str, several: tuple[ComparedCase, ...]) -> None:
    if not several:
        return
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="dim")
    for column, ratio in (("request", 5), ("champion", 3), ("challenger", 3), ("label", 2)):
        table.add_column(column, ratio=ratio, overflow="fold")
    for one in several:
        sides = (outside(side, 200) for side in case_sides(one))
        table.add_row(outside(one.request or one.case_id, 200), *sides, outside(one.label_by))
    console.print(table)


def _what_came(project: str, version: Version, *, yes: bool, no: bool, served: bool) -> str:
    short = version.candidate_id[:8]
    if no:
        return f"[yellow]declined[/]: {called(version)} is not promoted unless it is proven anew"
    if served:
        return f"[green]✓[/] {called(version)} serves; `ratchet rollback --yes` undoes it"
    if yes:
        waiting = approvals.waiting_approval(project, version.candidate_id)
        missing = waiting.missing() if waiting else 0
        return f"[green]✓[/] written down; {missing} more must approve before {called(version)} serves"
    return f"`ratchet approve {short} --yes` lets it serve; `--no --reason …` declines"


def _list_waiting(project: str, versions: list[Version], champion: Version | None, *, as_json: bool) -> None:
    found = awaiting_approval(project, versions, champion)
    if as_json:
        rows = [_summary(version) | asked_json(waiting) for version, waiting in found]
        emit_json({"project": project, "waiting": rows})
    elif not found:
        console.print("no proven challenger waits; `ratchet history` tells how far the others are")
    for version, waiting in [] if as_json else found:
        console.print(Text.assemble((called(version), "bold"), "  ", outside(version.reason)))
        console.print(outside(f"  {waiting.asked}", 1000))
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


def _answer(
    project: str, version: Version, champion: Version | None, found: ApprovalEvidence | None
) -> dict[str, Any]:
    return {
        **_summary(version),
        "project": project,
        "champion": champion and champion.candidate_id,
        "verdict": version.verdict and version.verdict.model_dump(mode="json"),
        **(evidence_json(found) if found else {"changes": []}),
    }
