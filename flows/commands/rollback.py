"""`ratchet rollback`: the champion before serves again; a dry run unless `--yes`."""

from typing import Annotated

import typer

from agent.errors import BadInput
from flows.commands.terminal import console, emit_json
from flows.commands.which_project import HERE, AsJson, Folder, Name, Person, which_project


def rollback(
    by: Person = "",
    reason: Annotated[str, typer.Option(help="Why; recorded for good.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, only say what would be done.")] = False,
    project: Folder = HERE,
    name: Name = None,
    as_json: AsJson = False,
) -> None:
    """Put the champion before the present one back; again, and the one before that."""
    from flows.commands.wording import called
    from infra import registry

    chosen = which_project(project, name)
    serving, back = registry.champion(chosen), registry.aliased(chosen, "previous")
    if serving is None or back is None:
        raise BadInput(f"{chosen!r} has no earlier champion to roll back to: see `ratchet history`")
    if yes:
        registry.rollback(chosen, by=by, reason=reason)
    if as_json:
        answer = {"project": chosen, "from": serving.candidate_id, "to": back.candidate_id, "done": yes}
        emit_json(answer)
    elif yes:
        console.print(f"[green]✓[/] {called(back)} serves again instead of {called(serving)}")
    else:
        console.print(
            f"would put {called(back)} back instead of {called(serving)}; "
            '`ratchet rollback --yes --reason "…"` does it'
        )
