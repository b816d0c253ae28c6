"""`ratchet history`: every version ever made, what it scored, why it serves or not, and who moved what.

Why refused versions are shown beside the others: a history that lists winners only cannot be learned from.
"""

from typing import Any

from rich.table import Table
from rich.text import Text

from ratchet.evaluation.gate.ledger import Ledger
from ratchet.flows.commands.options import HERE, AsJson, Folder, Name
from ratchet.flows.commands.terminal import console, emit_json, moment, outside
from ratchet.flows.commands.which_project import which_project
from ratchet.flows.commands.wording import DECISION, accuracy_text, aliases, cost
from ratchet.infra.registry.ledger import read_ledger
from ratchet.infra.registry.registry import version_history as versions_of
from ratchet.infra.registry.version import Version


def history(project: Folder = HERE, name: Name = None, as_json: AsJson = False) -> None:
    """All versions, a line each, and what is left to spend."""
    chosen = which_project(project, name)
    versions, ledger = versions_of(chosen), read_ledger(chosen)
    if as_json:
        emit_json(_answer(chosen, versions, ledger))
    elif not versions:
        console.print(f"{chosen}: no version yet; `ratchet improve` makes the first")
    else:
        _show(chosen, versions, ledger)


def _answer(project: str, versions: list[Version], ledger: Ledger) -> dict[str, Any]:
    return {
        "project": project,
        "versions": [
            {
                **version.model_dump(mode="json"),
                "candidate_id": version.candidate_id,
                "decision": version.decision,
                "reason": version.reason,
            }
            for version in versions
        ],
        "ledger": {
            "summary": ledger.summary,
            "alpha": ledger.alpha,
            "spent": ledger.spent,
            "left": max(ledger.alpha - ledger.spent, 0.0),
            "tests": len(ledger.current),
            "budget": ledger.budget,
            "next_threshold": 1 / ledger.next_alpha,
            "exhausted": ledger.exhausted,
        },
    }


def _show(project: str, versions: list[Version], ledger: Ledger) -> None:
    console.print(_versions(project, versions))
    moves = _moves(versions)
    if moves.row_count:
        console.print(moves)
    console.print(Text.assemble(("error budget  ", "bold"), outside(ledger.summary)))
    console.print(
        "[dim]one answer: `ratchet explain TRACE_ID`; back to the champion before: `ratchet rollback`[/]"
    )


def _versions(project: str, versions: list[Version]) -> Table:
    table = Table(title=f"{project}: {len(versions)} versions", title_justify="left", show_lines=True)
    table.add_column("version", no_wrap=True)
    table.add_column("how made", ratio=3)
    table.add_column("accuracy, 95 %", no_wrap=True)
    table.add_column("verdict", ratio=4)
    table.add_column("cost", no_wrap=True, justify="right")
    numbers = {version.candidate_id: version.number for version in versions}
    for version in versions:
        title = Text.assemble((f"v{version.number}", "bold"), f" {version.candidate_id[:8]}")
        if version.aliases:
            title = Text("\n").join([title, aliases(version)])
        table.add_row(
            title, _made(version, numbers), accuracy_text(version), _verdict(version), cost(version)
        )
    return table


def _made(version: Version, numbers: dict[str, int]) -> Text:
    candidate = version.candidate
    parent = f" from v{numbers[candidate.parent]}" if candidate.parent in numbers else ""
    parts = [Text.assemble((candidate.origin.proposer, "bold"), parent)]
    if candidate.origin.note:
        parts.append(outside(candidate.origin.note, 300))
    return Text("\n").join(parts)


def _verdict(version: Version) -> Text:
    if version.decision is None:
        return outside(version.notes) if version.notes else Text("none", style="dim")
    sentence = version.reason.removesuffix(f": {version.decision}")
    parts = [Text(version.decision, style=f"bold {DECISION[version.decision]}"), outside(sentence)]
    if version.notes:
        parts.append(outside(version.notes))
    return Text("\n").join(parts)


def _moves(versions: list[Version]) -> Table:
    names = {version.candidate_id: f"v{version.number}" for version in versions}
    table = Table(title="who moved the champion", title_justify="left", box=None, pad_edge=False)
    for title in ("when", "what", "by", "why"):
        table.add_column(title, overflow="fold", no_wrap=title == "when")
    moves = [
        (event.at, version, event)
        for version in versions
        for event in version.events
        if event.action in ("promoted", "restored")
    ]
    for at, version, event in sorted(moves, key=lambda move: move[0]):
        instead = f" instead of {names.get(event.other, event.other[:8])}" if event.other else ""
        table.add_row(
            moment(at),
            f"v{version.number} {event.action}{instead}",
            outside(event.by, 40),
            outside(event.reason),
        )
    return table
