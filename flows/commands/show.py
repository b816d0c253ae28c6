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
from ratchet.flows.commands.history import aliases, version_json
from ratchet.flows.commands.options import CURRENT_FOLDER, AsJson, Folder, Name
from ratchet.flows.commands.terminal import console, emit_json, moment, outside
from ratchet.flows.commands.which_project import called, which_project, which_version
from ratchet.flows.commands.wording import amount, spent, verdict_line
from ratchet.infra.registry.registry import version_history
from ratchet.infra.registry.version import Version

_UNITS: Final = {"lm_calls": "LM calls"}
_SCALE: Final = 18


class Change(NamedTuple):
    """One thing that is not the same in two candidates."""

    what: str
    old: str
    new: str


def show(
    version: Annotated[str, typer.Argument(help="Number, candidate id, or the beginning of one.")],
    project: Folder = CURRENT_FOLDER,
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
        emit_json({"project": chosen, **version_json(found), **differs})
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
    candidate, origin = version.candidate, version.candidate.origin
    parents = " ← ".join(called(parent) for parent in ancestors(version, versions))
    came = f"from {parents}" if parents else "the first"
    rows: list[tuple[str, str | Text]] = [
        (
            "made",
            f"{moment(version.created_at)} by {origin.proposer}, {came}",
        ),
        ("", origin.note),
        ("learned from", f"data {origin.data_digest or 'none'}, {version.n_seen_cases} cases"),
        ("cost to make", _cost(version) or "not known"),
        ("for each point", spent(version.cost_per_point, apart=", ")),
        ("LM", f"{candidate.base_model}, adapter {candidate.adapter or 'none'}"),
        ("memory", candidate.memory or "none"),
        ("accuracy", _accuracy(version)),
    ]
    names = {one.candidate_id: called(one) for one in versions}
    if version.verdict is None:
        rows.append(("verdict", version.notes or "none: it was not tested"))
    else:
        against = version.compared_with or ""
        rows += [
            ("tested against", names.get(against, against)),
            *_evidence(version.verdict),
            ("", version.notes),
        ]
    if version.golden is not None:
        colour = "red" if version.golden.regressed else "green"
        lost = f": {', '.join(version.golden.lost)}" if version.golden.lost else ""
        rows.append(("golden set", Text(version.golden.words.removeprefix("golden set ") + lost, colour)))
    for event in version.events:
        instead = f", {names.get(event.other, event.other)}" if event.other else ""
        rows.append((event.action, f"{moment(event.at)} by {event.by}{instead}: {event.reason}"))
    table = Table.grid(padding=(0, 2))
    for name, text in rows:
        if text:
            table.add_row(name, outside(text, 1000) if isinstance(text, str) else text)
    return Group(Text.assemble((called(version), "bold"), "  ", aliases(version)), table)


def ancestors(version: Version, versions: Sequence[Version]) -> list[Version]:
    """Its parent, the parent's, and so on to the first."""
    by_id = {one.candidate_id: one for one in versions}
    line: list[Version] = []
    while (parent := by_id.get(version.candidate.parent or "")) is not None and parent not in line:
        line.append(parent)
        version = parent
    return line


def difference(version: Version, beside: Version, limit: int = 400) -> Table:
    """What changes from `beside` to it; a text longer than `limit` is cut."""
    table = Table(show_lines=True)
    for title, ratio in (("what changes", 2), (called(beside), 3), (called(version), 3)):
        table.add_column(title, ratio=ratio, overflow="fold")
    for row in changes(beside.candidate, version.candidate):
        table.add_row(outside(row.what), outside(row.old, limit), outside(row.new, limit))
    return table


def _beside(version: Version, versions: Sequence[Version]) -> Version | None:
    """The one that it was tested against, or else made from."""
    by_id = {one.candidate_id: one for one in versions}
    return by_id.get(version.compared_with or "") or by_id.get(version.candidate.parent or "")


def _evidence(verdict: Verdict) -> list[tuple[str, str | Text]]:
    sides = (("cost a case", verdict.cost, ""), ("latency", verdict.latency, " s"))
    return [
        ("verdict", verdict_line(verdict)),
        ("screening", Text(_only_screened(verdict), "yellow")),
        ("evidence", f"e = {verdict.e_value:,.4g}; needs {verdict.threshold:,.4g}"),
        ("cases", f"{verdict.n_labelled:,} labelled, {verdict.n_judged:,} judged"),
        *(
            (name, f"{s.champion:.3g}{unit} before, {s.challenger:.3g}{unit} with it")
            for name, s, unit in sides
            if s
        ),
        *(("blocked by", Text(outside(blocked).plain, "red")) for blocked in verdict.blocked_by),
    ]


def _only_screened(verdict: Verdict) -> str:
    """What a person who approves must know."""
    if not verdict.screening:
        return ""
    return (
        "the last model call was answered anew under recorded messages and no tool was called "
        f"({verdict.screening}): how whole conversations go under it is not known; no policy promotes it"
    )


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
    """What it took to make: `212 calls, $0.31, 61.2 s`, and what else its proposer counted."""
    others = [
        f"{amount(value)} {_UNITS.get(name, name)}"
        for name, value in version.cost.items()
        if name not in ("calls", "tokens", "usd", "seconds")
    ]
    return ", ".join(part for part in (spent(version.cost, apart=", "), *others) if part)


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
    rows |= {f"model {name}": model for name, model in candidate.models.items()}
    rows |= {f"memory of {name}": memory for name, memory in candidate.memories.items()}
    topology = candidate.topology.model_dump(mode="json", exclude={"roles"})
    rows |= {f"topology: {name}": json.dumps(value) for name, value in topology.items()}
    rows |= {f"role {role.name}": role.to_json() for role in candidate.topology.roles}
    rows |= {
        f"tool {name}": tool if isinstance(tool, str) else tool.model_dump_json(exclude_none=True)
        for name, tool in candidate.tools.items()
    }
    rows |= {f"extra option {option.name}": option.description for option in candidate.extra_options}
    return rows
