"""`ratchet rollback`: the champion before serves again; a dry run unless `--yes`."""

from typing import Annotated

import typer

from ratchet.flows.commands.options import CURRENT_FOLDER, AsJson, Folder, Name, Person
from ratchet.flows.commands.terminal import console, emit_json
from ratchet.flows.commands.which_project import called, which_project
from ratchet.infra.registry import registry
from ratchet.infra.registry.promotion import rollback_target


def rollback(
    by: Person = "",
    reason: Annotated[str, typer.Option(help="Why; recorded for good.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, only say what would be done.")] = False,
    project: Folder = CURRENT_FOLDER,
    name: Name = None,
    as_json: AsJson = False,
) -> None:
    """Put the champion before the present one back.

    If the champion's alias is gone, the one that served last. A dry run unless --yes.
    """
    chosen = which_project(project, name)
    serving, back = rollback_target(chosen)
    if yes:
        registry.roll_back(chosen, by=by, reason=reason)
    instead = f" instead of {called(serving)}" if serving else ": the alias of the champion was gone"
    if as_json:
        gone = serving and serving.candidate_id
        emit_json({"project": chosen, "from": gone, "to": back.candidate_id, "done": yes})
    elif yes:
        console.print(f"[green]✓[/] {called(back)} serves again{instead}")
    else:
        console.print(
            f'would put {called(back)} back{instead}; `ratchet rollback --yes --reason "…"` does it'
        )
