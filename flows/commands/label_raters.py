"""`ratchet label raters`: who answers, what their word weighs, what is held back, and how far they agree."""

from pathlib import Path

from rich.table import Table

from ratchet.evaluation.data.labels import ANONYMOUS, Label
from ratchet.evaluation.data.raters import RaterSettings
from ratchet.evaluation.gate.rater_report import RaterReport, rater_report
from ratchet.flows.commands.options import CURRENT_FOLDER, AsJson, Folder, Name
from ratchet.flows.commands.terminal import console, emit_json, outside
from ratchet.flows.commands.which_project import which_project
from ratchet.flows.project_settings import ProjectSettings, read_settings
from ratchet.infra.review.answers import effective_labels
from ratchet.infra.review.back_end import back_end
from ratchet.infra.store.collected import newest_labels
from ratchet.infra.store.dataset_store import read_dataset

_MOST_PAIRS = 20


def rules_of(folder: Path | None) -> RaterSettings:
    """The project's rules for its raters; the usual ones, where its folder is not known."""
    return (read_settings(folder, ProjectSettings) if folder else ProjectSettings()).raters


def raters(project: Folder = CURRENT_FOLDER, name: Name = None, as_json: AsJson = False) -> None:
    """Who answers: how much, with what weight, what is held back, and how far they agree beyond chance."""
    chosen = which_project(project, name)
    rules = rules_of(None if name else project)
    labels = effective_labels(chosen, read_dataset(newest_labels(chosen), Label))
    report = rater_report(back_end(rules).read_replies(chosen), labels, rules)
    if as_json:
        emit_json({"project": chosen, **report.model_dump(mode="json")})
    elif not report.raters:
        console.print("nobody answered yet")
    else:
        _show(report, rules)


def _show(report: RaterReport, rules: RaterSettings) -> None:
    table = _columns("rater", "weight", "replies", "labels", "passed on", "held back")
    for one in report.raters:
        counts = (one.replies, one.labels, one.passed, one.held_back)
        table.add_row(outside(one.rater, 24), f"{one.weight:g}", *(f"{count:,}" for count in counts))
    console.print(table)
    if report.pairs:
        console.print()
        table = _columns("agree beyond chance on", "who", "κ, α [95 %]", "items")
        table.columns[1].justify = "left"
        for what, alpha in report.alpha.items():
            pairs = [one for one in report.pairs if one.rubric == what][:_MOST_PAIRS]
            rows = [(f"{one.one}, {one.other}", one.kappa) for one in pairs]
            for who, found in [*rows, ("all (α)", alpha)] if len(rows) > 1 else rows:
                value = "–" if found.value is None else str(found).partition(" (")[0]
                table.add_row(outside(what, 28), outside(who, 24), value, f"{found.n:,}")
        console.print(table)
    if any(one.rater == ANONYMOUS for one in report.raters):
        console.print(
            f"[dim]{ANONYMOUS}: all who gave no name. MLflow without login names nobody, and a name that "
            "`ratchet label` is given is a claim[/]"
        )
    if rules.per_item > 1 and len(report.raters) < rules.per_item:
        console.print(f"[yellow]{rules.per_item} people are wanted for each question, and fewer answered[/]")


def _columns(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for place, title in enumerate(titles):
        table.add_column(title, header_style="dim", justify="right" if place else "left", overflow="fold")
    return table
