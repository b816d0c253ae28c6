"""`ratchet judge`: how far the judge agrees with people, whether it may grade training data, and what moves it."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ratchet.agent.errors import BadInput
from ratchet.evaluation.judge.agreement import Agreement
from ratchet.evaluation.judge.licence import LicenceEvent
from ratchet.evaluation.judge.report import JudgeReport
from ratchet.flows.commands.options import CURRENT_FOLDER, AsJson, Folder, Name
from ratchet.flows.commands.terminal import NO, console, emit_json, moment, outside
from ratchet.flows.commands.which_project import which_project
from ratchet.flows.project_settings import ImproveSettings, read_settings
from ratchet.infra.judge.material import judge_report


def judge(
    swaps: Annotated[
        int, typer.Option(min=0, max=200, help="Pairs to ask an LM judge about in both orders.")
    ] = 0,
    project: Folder = CURRENT_FOLDER,
    name: Name = None,
    as_json: AsJson = False,
) -> None:
    """How far the judge agrees with people, and its licence.

    Exit 3 while it has no licence.
    """
    chosen = which_project(project, name)
    rules = ImproveSettings() if name else read_settings(Path(project), ImproveSettings)
    found = judge_report(chosen, rules.judge, rules.selection.gate_share, seed=rules.seed, swaps=swaps)
    if found is None:
        raise BadInput(
            f"{chosen} has no judge: `ratchet improve` makes one from {rules.judge.min_labels} labels "
            "(judge.min_labels)"
        )
    if as_json:
        emit_json({"project": chosen, "licensed": found.licence.holds, **found.model_dump(mode="json")})
    else:
        _show(chosen, found)
    if not found.licence.holds:
        raise typer.Exit(NO)


def _show(project: str, found: JudgeReport) -> None:
    facts = Table.grid(padding=(0, 2))
    facts.add_row("judge", f"{found.judge_id[:8]}, {found.kind}, made from {found.n_labels} labels")
    facts.add_row("rubric", outside(f"version {found.rubric_version}: {found.rubric}"))
    facts.add_row("licence", _licence(found))
    console.print(outside(project), style="bold")
    console.print(facts)
    console.print(_agreements(found))
    _show_biases(found)
    _show_rates(found)
    console.print(_history(found.licence.history))


def _licence(found: JudgeReport) -> str:
    if found.licence.holds:
        return f"[green]granted[/]: its labels weigh {found.licence.weight:.2f} beside a person's"
    last = found.licence.history[-1]
    why = [last.reason] if last.kind == "lost" and not found.missing else list(found.missing)
    return f"[yellow]none[/]: {'; '.join(why) or 'the next `ratchet improve` looks at its audits'}"


def _agreements(found: JudgeReport) -> Table:
    table = Table(
        title="agreement with people on random picks, and its lower bound",
        title_justify="left", box=None, pad_edge=False,
    )  # fmt: skip
    for title in ("slice", "audits", "right", "TPR", "TNR", "κ"):
        table.add_column(title, header_style="dim", justify="left" if title == "slice" else "right")
    for part in found.slices:
        rubric = "" if part.rubric_version == "1" else f", rubric {part.rubric_version}"
        table.add_row(outside((part.slice or "–") + rubric, 24), *_cells(part.agreement))
    table.add_row("all, one look", *_cells(found.whole))
    table.add_row("licence, every look", *_cells(found.standing))
    return table


def _cells(one: Agreement) -> list[str]:
    return [str(one.n), str(one.n_right), str(one.tpr), str(one.tnr), str(one.kappa)]


def _show_biases(found: JudgeReport) -> None:
    length = found.verbosity
    if length.judge is None or length.people is None:
        console.print("length   no audit shows what it makes of long answers yet")
    else:
        console.print(
            f"length   correlation with its grade {length.judge:+.2f}, with people's {length.people:+.2f} "
            f"({length.n} audits)"
        )
    if found.position is not None:
        flips = found.position.share
        console.print(
            f"position {found.position.flips} of {found.position.pairs} preferences flip when the answers change "
            f"places{'' if flips is None else f' ({flips:.0%})'}, standing first is worth {found.position.first:+.2f}"
        )
    elif found.kind == "rubric":
        console.print("position not asked: `ratchet judge --swaps 20` asks 40 times")
    else:
        console.print("position none: it grades each answer alone")


def _show_rates(found: JudgeReport) -> None:
    n = found.judged.approved + found.judged.refused
    console.print(
        "right    "
        + (
            "it has graded nothing yet"
            if found.naive is None
            else f"{found.naive:.3f} of {n:,} answers, as it says"
        )
    )
    for name, rate in (("Rogan–Gladen", found.rogan_gladen), ("PPI++", found.ppi)):
        if rate is not None:
            console.print(f"         {rate} corrected by {name}", markup=False)
    if found.why_not:
        console.print("         not corrected:", outside(found.why_not))


def _history(events: tuple[LicenceEvent, ...]) -> Table:
    table = Table(title="history", title_justify="left", box=None, pad_edge=False)
    for title in ("when", "judge", "what", "why"):
        table.add_column(title, header_style="dim", no_wrap=title != "why")
    for event in events:
        why = outside(event.reason)
        if event.n_audits:
            why.append(
                f" ({event.n_audits} audits: TPR ≥ {event.tpr:.2f}, TNR ≥ {event.tnr:.2f}, κ ≥ {event.kappa:.2f})"
            )
        table.add_row(moment(event.at), event.judge_id[:8], event.kind, why)
    return table
