"""`ratchet show VERSION`: one version whole: how it was made, what it changes, its evidence, its moves.

Why beside the version that it was tested against: a verdict says nothing about any other.
"""

import json
from collections.abc import Sequence
from typing import Annotated, Final, NamedTuple

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from ratchet.agent.candidate import Candidate
from ratchet.evaluation.data.intervals import Interval
from ratchet.evaluation.gate.verdict import Verdict
from ratchet.flows.commands.history import aliases, told
from ratchet.flows.commands.options import HERE, AsJson, Folder, Name
from ratchet.flows.commands.terminal import console, emit_json, moment, outside
from ratchet.flows.commands.which_project import called, which_project, which_version
from ratchet.flows.commands.wording import verdict_line
from ratchet.infra.registry.registry import version_history
from ratchet.infra.registry.version import Version

_UNITS: Final = {"seconds": "s", "usd": "$", "lm_calls": "LM calls", "input_tokens": "tokens"}
_SCALE: Final = 18


class Change(NamedTuple):
    """One thing that is not the same in two candidates."""

    what: str
    old: str
    new: str


def show(
    version: Annotated[str, typer.Argument(help="Number, candidate id, or the beginning of one.")],
    project: Folder = HERE,
    name: Name = None,
    as_json: AsJson = False,
) -> None:
    """One version: what it changes, its evidence, who moved it."""
    chosen = which_project(project, name)
    versions = version_history(chosen)
    found = which_version(versions, version)
    beside = _beside(found, versions)
    if as_json:
        rows = changes(beside.candidate, found.candidate) if beside else []
        differs = {"beside": beside and beside.candidate_id, "changes": [row._asdict() for row in rows]}
        emit_json({"project": chosen, **told(found), **differs})
    else:
        console.print(facts(found, versions))
        if beside is not None:
            console.print(difference(found, beside))


def changes(old: Candidate, new: Candidate) -> list[Change]:
    """Prompt, demos, tools, weights, memory and topology, one row each; the same is left out."""
    before, after = _rows(old), _rows(new)
    names = dict.fromkeys([*before, *after])
    pairs = [Change(what, before.get(what, "none"), after.get(what, "none")) for what in names]
    return [pair for pair in pairs if pair.old != pair.new]


def facts(version: Version, versions: Sequence[Version]) -> Group:
    """Everything that was recorded about it, but for what it changes."""
    names = {one.candidate_id: one for one in versions}
    candidate = version.candidate
    table = Table.grid(padding=(0, 2))
    title = Text.assemble((called(version), "bold"), "  ", aliases(version))
    table.add_row(
        "made", f"{moment(version.created_at)} by {candidate.origin.proposer}, {_line(version, names)}"
    )
    if candidate.origin.note:
        table.add_row("", outside(candidate.origin.note, 1000))
    table.add_row(
        "learned from", f"data {candidate.origin.data_digest or 'none'}, {version.n_seen_cases} cases"
    )
    table.add_row("cost", _cost(version) or "not known")
    table.add_row("LM", f"{candidate.base_model}, adapter {candidate.adapter or 'none'}")
    table.add_row("memory", candidate.memory or "none")
    table.add_row("accuracy", _accuracy(version))
    if version.verdict is None:
        table.add_row("verdict", outside(version.notes or "none: it was not tested"))
    else:
        other = names.get(version.compared_with or "")
        table.add_row("tested against", called(other) if other else version.compared_with or "–")
        _add_evidence(table, version.verdict)
        if version.notes:
            table.add_row("", outside(version.notes))
    for event in version.events:
        instead = f", {called(names[event.other])}" if event.other in names else ""
        table.add_row(event.action, outside(f"{moment(event.at)} by {event.by}{instead}: {event.reason}"))
    return Group(title, table)


def difference(version: Version, beside: Version) -> Table:
    """What changes from `beside` to it."""
    table = Table(show_lines=True)
    for title, ratio in (("what changes", 2), (called(beside), 3), (called(version), 3)):
        table.add_column(title, ratio=ratio, overflow="fold")
    for row in changes(beside.candidate, version.candidate):
        table.add_row(outside(row.what), outside(row.old), outside(row.new))
    return table


def _beside(version: Version, versions: Sequence[Version]) -> Version | None:
    """The one that it was tested against, or else made from."""
    by_id = {one.candidate_id: one for one in versions}
    return by_id.get(version.compared_with or "") or by_id.get(version.candidate.parent or "")


def _line(version: Version, names: dict[str, Version]) -> str:
    """Its parent, the parent's, and so on to the first."""
    line: list[str] = []
    while (parent := names.get(version.candidate.parent or "")) is not None and called(parent) not in line:
        line.append(called(parent))
        version = parent
    return f"from {' ← '.join(line)}" if line else "the first"


def _add_evidence(table: Table, verdict: Verdict) -> None:
    table.add_row("verdict", verdict_line(verdict))
    table.add_row("evidence", f"e = {verdict.e_value:,.4g}; needs {verdict.threshold:,.4g}")
    table.add_row("cases", f"{verdict.n_labelled:,} labelled, {verdict.n_judged:,} judged")
    for name, unit in (("cost", ""), ("latency", " s")):
        sides = getattr(verdict, name)
        if sides is not None:
            table.add_row(name, f"{sides.champion:.4g}{unit} before, {sides.challenger:.4g}{unit} with it")
    for blocked in verdict.blocked_by:
        table.add_row("[red]blocked by[/]", outside(blocked))


def _accuracy(version: Version) -> Text:
    """Every score with its 95 % interval, drawn on a scale from 0 to 1, too."""
    lines, several = [], len(version.scores) > 1
    for name, score in version.scores.items():
        mean, interval = (f"{score.mean:.3f}", "bold"), f" {score.low:.2f}–{score.high:.2f} "
        lines.append(Text.assemble(mean, interval, _picture(score), f" {name.replace('_', ' ')}" * several))
    return Text("\n").join(lines) if lines else Text("not evaluated", style="dim")


def _picture(score: Interval) -> Text:
    """The interval on a scale from 0 to 1: `···├──●──┤····`."""
    low, mean, high = (round(value * (_SCALE - 1)) for value in (score.low, score.mean, score.high))
    marks = ["·" if not low <= place <= high else "─" for place in range(_SCALE)]
    marks[low], marks[high] = "├", "┤"
    marks[mean] = "●"
    return Text("".join(marks), style="dim")


def _cost(version: Version) -> str:
    """What it took to make: `61.2 s, 1,203 LM calls`."""
    return ", ".join(
        f"{value:{',.3g' if value < 1000 else ',.0f'}} {_UNITS.get(name, name)}"
        for name, value in version.cost.items()
    )


def _rows(candidate: Candidate) -> dict[str, str]:
    rows = {
        "LM": candidate.base_model,
        "LM's address": candidate.api_base or "none",
        "adapter": candidate.adapter or "none",
        "memory": candidate.memory or "none",
    }
    for name, predictor in candidate.predictors.items():
        rows[f"{name}: instructions"] = predictor.instructions
        for demo in predictor.demos:
            rows[f"{name}: demo {demo.inputs[:60]!r}"] = demo.output
    topology = candidate.topology.model_dump(mode="json", exclude={"roles"})
    rows |= {f"topology: {name}": json.dumps(value) for name, value in topology.items()}
    rows |= {f"role {role.name}": role.to_json() for role in candidate.topology.roles}
    rows |= {
        f"tool {name}": tool if isinstance(tool, str) else tool.model_dump_json(exclude_none=True)
        for name, tool in candidate.tools.items()
    }
    rows |= {f"extra option {option.name}": option.description for option in candidate.extra_options}
    return rows
