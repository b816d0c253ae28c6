"""`ratchet gc`: what nobody needs any more below the home; a dry run unless `--yes`."""

from typing import Annotated

import typer
from rich.table import Table

from ratchet.flows.commands.options import AsJson
from ratchet.flows.commands.terminal import console, emit_json
from ratchet.infra.store.retention import Retention, remove, unneeded_files

KEPT = Retention()


def gc(
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, only say what would go.")] = False,
    days: Annotated[float, typer.Option(min=1, help="Keep whatever was written or used since.")] = KEPT.days,
    reports: Annotated[
        int, typer.Option(min=1, help="Newest drift reports to keep, per project.")
    ] = KEPT.reports,
    as_json: AsJson = False,
) -> None:
    """Remove what no version's lineage names any more.

    Old reports, kept results and dataset versions; a dry run unless --yes.
    """
    files = unneeded_files(Retention(days=days, reports=reports))
    if yes:
        remove(files)
    sums: dict[str, list[int]] = {}
    for one in files:
        sums.setdefault(one.what, []).append(one.n_bytes)
    if as_json:
        told = {what: {"files": len(sizes), "bytes": sum(sizes)} for what, sizes in sums.items()}
        emit_json({"done": yes, "files": len(files), "bytes": sum(f.n_bytes for f in files), **told})
        return
    table = Table("", "files", "MB")
    for what, sizes in sums.items():
        table.add_row(what, f"{len(sizes):,}", f"{sum(sizes) / 1e6:,.1f}")
    if files:
        console.print(table)
    if not files:
        console.print("nothing is superfluous")
    elif yes:
        console.print(f"[green]✓[/] removed {len(files):,} files")
    else:
        console.print("nothing was removed; `ratchet gc --yes` removes them")
