"""`ratchet approve`: a person sees what changed and how it was proven, then lets it serve.

Why a dry run first: the alias is what users meet; it moves only on `--yes`, in somebody's name.
"""

from typing import Annotated, Any

import typer
from rich.text import Text

from ratchet.agent.errors import BadInput
from ratchet.flows.commands.options import CURRENT_FOLDER, AsJson, Folder, Name, Person
from ratchet.flows.commands.show import changes, difference, facts
from ratchet.flows.commands.terminal import NO, console, emit_json, outside
from ratchet.flows.commands.which_project import called, which_project, which_version
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
    project: Folder = CURRENT_FOLDER,
    name: Name = None,
    as_json: AsJson = False,
) -> None:
    """Show a challenger with its evidence; --yes lets it serve."""
    chosen = which_project(project, name)
    versions = registry.version_history(chosen)
    champion = next((v for v in versions if "champion" in v.aliases), None)
    if candidate is None:
        _list_waiting(chosen, awaiting_approval(versions, champion), as_json=as_json)
        return
    version = which_version(versions, candidate)
    refusal = _refusal(chosen, version)
    promoted = yes and refusal is None
    if promoted:
        registry.promote(chosen, version.candidate_id, approved_by=by, reason=reason or version.reason)
    if as_json:
        emit_json(_answer(chosen, version, champion, promoted=promoted, refusal=refusal))
    else:
        console.print(facts(version, versions))
        if champion is not None:
            console.print(difference(version, champion))
        if promoted:
            console.print(f"[green]✓[/] {called(version)} serves; `ratchet rollback --yes` undoes it")
        elif refusal is None:
            console.print(f"`ratchet approve {version.candidate_id[:8]} --yes` lets it serve")
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


def _list_waiting(project: str, found: list[Version], *, as_json: bool) -> None:
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


def _answer(
    project: str, version: Version, champion: Version | None, *, promoted: bool, refusal: BadInput | None
) -> dict[str, Any]:
    rows = changes(champion.candidate, version.candidate) if champion is not None else []
    return {
        **_summary(version),
        "project": project,
        "champion": champion and champion.candidate_id,
        "changes": [row._asdict() for row in rows],
        "verdict": version.verdict and version.verdict.model_dump(mode="json"),
        "refusal": refusal and str(refusal),
        "promoted": promoted,
    }
