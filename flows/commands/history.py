"""`ratchet history`: every version ever made, a line each; what `ratchet show` tells of one stands there.

Why refused versions are shown beside the others: a history that lists winners only cannot be learned from.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from ratchet.evaluation.gate.ledger import Ledger
from ratchet.flows.commands.options import CURRENT_FOLDER, AsJson, Folder, Name
from ratchet.flows.commands.terminal import console, emit_json, outside
from ratchet.flows.commands.which_project import which_project
from ratchet.flows.commands.wording import amount, gain, money, spent, summed, verdict_word
from ratchet.flows.project_settings import ledger_as_set
from ratchet.infra.registry.fruitless import Fruitless, all_fruitless
from ratchet.infra.registry.registry import version_history as versions_of
from ratchet.infra.registry.version import Version

ALIAS: Final = {"champion": "bold green", "challenger": "yellow", "canary": "cyan", "previous": "dim"}


def history(project: Folder = CURRENT_FOLDER, name: Name = None, as_json: AsJson = False) -> None:
    """All versions, a line each, and what is left to spend."""
    chosen = which_project(project, name)
    versions, ledger = versions_of(chosen), ledger_as_set(chosen, None if name else project)
    fruitless = all_fruitless(chosen)
    if as_json:
        emit_json(_answer(chosen, versions, ledger, fruitless))
    elif not versions:
        console.print(f"{chosen}: no version yet; `ratchet improve` makes the first")
    else:
        console.print(lines(versions, title=f"{chosen}: {len(versions)} versions"))
        if costs := cost_lines(versions, fruitless):
            console.print(costs)
        console.print(Text.assemble(("error budget  ", "bold"), outside(ledger.summary)))
        console.print("[dim]one of them: `ratchet show VERSION`; one answer: `ratchet explain TRACE_ID`[/]")


def lines(versions: list[Version], title: str) -> Table:
    """One line a version: 80 columns hold it."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="dim")
    for column in ("", "made", "by", "verdict", "gain, 95 %", "accuracy", "serves"):
        table.add_column(column, no_wrap=True, overflow="ellipsis", min_width=5 if column == "by" else None)
    for version in versions:
        score = next(iter(version.scores.values()), None)
        table.add_row(
            Text(f"v{version.number}", style="bold"),
            f"{version.created_at.astimezone():%Y-%m-%d}",
            outside(version.candidate.origin.proposer),
            verdict_word(version.decision) if version.decision else "–",
            gain(version.verdict),
            f"{score.mean:.3f}" if score else "–",
            aliases(version),
        )
    return table


def cost_lines(versions: Sequence[Version], fruitless: Sequence[Fruitless]) -> Table | None:
    """What making each took, and what came to nothing: one line each; None where nothing is known."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("cost", no_wrap=True, overflow="ellipsis", max_width=22)
    for column in ("calls", "tokens", "money", "seconds"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("for each point gained", no_wrap=True, overflow="ellipsis", max_width=24)
    for version in versions:
        if spent(version.cost):
            name = Text.assemble((f"v{version.number}", "bold"), f"  {version.candidate.origin.proposer}")
            table.add_row(name, *_units(version.cost), _worth(version.cost_per_point))
    for proposer, costs in _by_proposer(fruitless).items():
        times = f" {len(costs)} ×" if len(costs) > 1 else ""
        table.add_row(outside(proposer), *_units(summed(costs)), Text(f"nothing came of it{times}", "yellow"))
    return table if table.row_count else None


def _worth(per_point: Mapping[str, float]) -> str:
    """Calls and money; seconds where neither was needed. `ratchet show` and `--json` tell all of it."""
    paid = {unit: per_point[unit] for unit in ("calls", "usd") if per_point.get(unit)}
    return spent(paid or per_point)


def _units(cost: Mapping[str, float]) -> list[str]:
    return [
        amount(cost["calls"]) if cost.get("calls") else "–",
        amount(cost["tokens"]) if cost.get("tokens") else "–",
        money(cost["usd"]) if cost.get("usd") else "–",
        amount(cost["seconds"]) if cost.get("seconds") else "–",
    ]


def _by_proposer(fruitless: Sequence[Fruitless]) -> dict[str, list[dict[str, float]]]:
    found: dict[str, list[dict[str, float]]] = {}
    for one in fruitless:
        found.setdefault(one.proposer, []).append(one.cost)
    return found


def aliases(version: Version) -> Text:
    """Its aliases, each in its colour."""
    return Text(", ").join(Text(name, style=ALIAS.get(name, "")) for name in version.aliases)


def version_json(version: Version) -> dict[str, Any]:
    """A version in JSON."""
    return {
        **version.model_dump(mode="json"),
        "candidate_id": version.candidate_id,
        "decision": version.decision,
        "reason": version.reason,
        "cost_per_point": version.cost_per_point,
    }


def _answer(
    project: str, versions: list[Version], ledger: Ledger, fruitless: Sequence[Fruitless]
) -> dict[str, Any]:
    return {
        "project": project,
        "versions": [version_json(version) for version in versions],
        "fruitless": [one.model_dump(mode="json") for one in fruitless],
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
