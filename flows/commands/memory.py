"""`ratchet memory`: what the agent remembers, what came of showing it, and what it is to forget.

Why forgetting changes nothing at once: an entry that looks wrong may carry many right answers. A version without it
is made by the next `improve` and judged as any other; until then the champion serves as it is.
"""

from typing import Annotated, Any, Final

import typer
from rich.table import Table
from rich.text import Text

from ratchet.agent.errors import BadInput
from ratchet.agent.memory.entries import MemoryEntry, entry_named, with_text
from ratchet.agent.memory.forgotten import Forgotten
from ratchet.flows.commands.options import CURRENT_FOLDER, AsJson, Folder, Name, Person
from ratchet.flows.commands.terminal import NO, console, emit_json, moment, outside
from ratchet.flows.commands.which_project import called, which_project, which_version
from ratchet.infra.registry.forgotten import forget_entries, forgotten
from ratchet.infra.registry.registry import champion, version_history
from ratchet.infra.registry.version import Version
from ratchet.infra.store.memory_entries import (
    library_entries,
    library_entries_named,
    recalls_of,
    remembered_by,
)

app = typer.Typer(help="What the agent remembers: list it, have it forgotten.", no_args_is_help=True)

EntryId = Annotated[str, typer.Argument(help="As `ratchet memory list` shows it, or its beginning.")]
Of = Annotated[
    str | None, typer.Option("--version", help="Number or id of a version, instead of the champion.")
]
_RUNS: Final = 20
"""Runs that were shown an entry, as `show` lists them."""


@app.command("list")
def list_entries(
    text: Annotated[str, typer.Option("--text", help="Only entries with this in request or answer.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="How many to show, worst first.")] = 20,
    version: Of = None,
    library: Annotated[
        bool, typer.Option("--library", help="All that ever worked, instead of what a version recalls.")
    ] = False,
    project: Folder = CURRENT_FOLDER,
    name: Name = None,
    as_json: AsJson = False,
) -> None:
    """Show entries with how often they helped and harmed, the worst first.

    Exit 3 where there are none.
    """
    chosen = which_project(project, name)
    if library and version is not None:
        raise BadInput("--library is no version's: give --library or --version, not both")
    if library:
        whose, (found, total) = "the library", library_entries(chosen, limit, text)
    else:
        of = _version(chosen, version)
        whose, every = called(of), with_text(remembered_by(chosen, of.candidate_id), text)
        found, total = every[:limit], len(every)
    gone = {one.entry_id: one for one in forgotten(chosen).entries}
    if as_json:
        rows = [_row(entry, gone) for entry in found]
        emit_json({"project": chosen, "of": whose, "total": total, "entries": rows})
    else:
        _show_list(whose, found, total, gone, text)
    if not found:
        raise typer.Exit(NO)


@app.command("show")
def show_entry(
    entry_id: EntryId,
    version: Of = None,
    project: Folder = CURRENT_FOLDER,
    name: Name = None,
    as_json: AsJson = False,
) -> None:
    """Show one entry: what it says, where it comes from, which runs were shown it and how they ended."""
    chosen = which_project(project, name)
    entry = _entry(chosen, entry_id, version)
    runs = recalls_of(chosen, entry.entry_id)
    gone = {one.entry_id: one for one in forgotten(chosen).entries}
    if as_json:
        led = {run: credit.model_dump(mode="json") for run, credit in runs.items()}
        emit_json({"project": chosen, **_row(entry, gone), "recalled_in": led})
        return
    facts = Table.grid(padding=(0, 2))
    facts.add_row("entry", f"{entry.entry_id}, the trace of its run")
    facts.add_row("from", outside(_origin(entry)))
    facts.add_row("asked", outside(entry.request, 1000))
    for said in entry.said:
        facts.add_row("answered" if said == entry.said[0] else "", outside(said, 1000))
    facts.add_row("stands in", ", ".join(entry.where) or "the library alone")
    for other in entry.supersedes:
        facts.add_row("replaced", f"{other}, which answered the same request otherwise")
    facts.add_row("counts", _counts(entry))
    if entry.entry_id in gone:
        facts.add_row("forgotten", _forgotten_line(gone[entry.entry_id]))
    console.print(facts)
    for run, credit in list(runs.items())[-_RUNS:]:
        came = f"{credit.led_to_success} won, {credit.led_to_failure} lost" if credit.shown else "not scored"
        console.print(f"  shown to {run}  {came}")
    if len(runs) > _RUNS:
        console.print(f"  and to {len(runs) - _RUNS:,} runs before (--json lists all)")


@app.command("forget")
def forget(
    entry_ids: Annotated[list[str], typer.Argument(help="Ids of entries, or their beginnings.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; recorded for good.")] = "",
    by: Person = "",
    version: Of = None,
    project: Folder = CURRENT_FOLDER,
    name: Name = None,
    as_json: AsJson = False,
) -> None:
    """Have entries forgotten: the next `improve` tests a version without them."""
    chosen = which_project(project, name)
    entries = [_entry(chosen, one, version) for one in dict.fromkeys(entry_ids)]
    fresh = forget_entries(chosen, entries, by=by, reason=reason)
    if as_json:
        told = [one.model_dump(mode="json") for one in fresh]
        emit_json({"project": chosen, "forgotten": told, "known_before": len(entries) - len(fresh)})
        return
    for one in fresh:
        console.print(f"[green]✓[/] {one.entry_id} is forgotten, by {outside(one.by).plain}")
    if len(fresh) < len(entries):
        console.print(f"{len(entries) - len(fresh)} already were; what was told first stands")
    console.print("nothing teaches it any more; the next `ratchet improve` tests a version without it")


def _version(project: str, text: str | None) -> Version:
    if text is not None:
        return which_version(version_history(project), text)
    serving = champion(project)
    if serving is None:
        raise BadInput(
            f"{project!r} has no champion yet: give --version or --library, or run `ratchet improve`"
        )
    return serving


def _entry(project: str, text: str, version: str | None) -> MemoryEntry:
    """The version's entry of this name; else the library's."""
    own = remembered_by(project, _version(project, version).candidate_id)
    wanted = text.removeprefix("tr-").lower()
    if any(one.entry_id.startswith(wanted) for one in own):
        return entry_named(own, text)
    return entry_named(library_entries_named(project, text) if len(wanted) >= 4 else [], text)


def _row(entry: MemoryEntry, gone: dict[str, Forgotten]) -> dict[str, Any]:
    known = gone.get(entry.entry_id)
    return {
        **entry.model_dump(mode="json", exclude={"credit"}),
        "helpful": entry.credit.led_to_success,
        "harmful": entry.credit.led_to_failure,
        "forgotten": known and known.model_dump(mode="json", exclude={"entry_id", "case_id", "said"}),
    }


def _show_list(
    whose: str, found: list[MemoryEntry], total: int, gone: dict[str, Forgotten], text: str
) -> None:
    having = f" with {text!r}" if text else ""
    if not found:
        console.print(
            outside(f"{whose} remembers nothing{having}; `ratchet memory list --library` shows all")
        )
        return
    table = Table(
        title=Text(f"{whose}: {total:,} entries{outside(having).plain}, worst first"),
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for title, options in (
        ("entry", {"no_wrap": True, "min_width": 8}), ("helped", {"justify": "right", "no_wrap": True}),
        ("harmed", {"justify": "right", "no_wrap": True}), ("from", {"no_wrap": True}),
        ("asked", {"ratio": 4, "overflow": "fold"}), ("answered", {"ratio": 3, "overflow": "fold"}),
    ):  # fmt: skip
        table.add_column(title, header_style="dim", **options)
    for entry in found:
        lost = "forgotten" if entry.entry_id in gone else "person" if entry.source == "human" else "own"
        table.add_row(
            entry.entry_id[:8], f"{entry.credit.led_to_success:,}", f"{entry.credit.led_to_failure:,}",
            "import" if entry.imported_from and lost == "own" else lost,
            outside(entry.request, 90), outside(" → ".join(entry.said), 70),
        )  # fmt: skip
    console.print(table)
    console.print("`ratchet memory show ENTRY` tells more; `forget ENTRY --reason …` takes it out")


def _origin(entry: MemoryEntry) -> str:
    whose = {"human": "a person's word", "own": "the agent's own success"}[entry.source]
    agent = f", in a log of {entry.imported_from}" if entry.imported_from else ""
    return f"{whose}{agent}" + (f", {moment(entry.recorded_at)}" if entry.recorded_at else "")


def _counts(entry: MemoryEntry) -> str:
    credit = entry.credit
    if not credit.shown:
        return "no run that was shown it has been scored yet"
    return f"{credit.led_to_success:,} runs that were shown it won, {credit.led_to_failure:,} lost"


def _forgotten_line(one: Forgotten) -> Text:
    return outside(f"{moment(one.at)} by {one.by}: {one.reason}")
