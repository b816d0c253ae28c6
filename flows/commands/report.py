"""What a run of `improve` or `monitor` came to, for a person: one line per fact, a table for verdicts."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from ratchet.flows.commands.terminal import console, outside
from ratchet.flows.commands.wording import sentence, spent, verdict_word
from ratchet.flows.improve import ImproveReport
from ratchet.infra.registry.version import Version
from ratchet.tasks.gate import GateResult
from ratchet.tasks.monitor import WatchReport


def say(text: str, style: str = "", head: str = "") -> None:
    """One fact, in a style; a head stands before it, bold. Nothing in it is read as markup."""
    told = Text("  ")
    if head:
        told.append(head, f"bold {style}").append(": ")
    console.print(told.append(outside(text, 2000).plain, "" if head else style))


def show_round(report: ImproveReport, versions: Sequence[Version]) -> None:
    """What was learned from, each challenger's verdict, and who serves now."""
    if report.data is not None:
        data = report.data
        left_out = ", ".join(f"{n} {why}" for why, n in data.left_out.items())
        share = "" if data.human_share is None else f", {data.human_share:.0%} by weight"
        say(f"learned from {data.training.n_rows} cases, {data.n_human} answered by people{share}")
        if left_out:
            say(f"left out: {left_out}", "dim")
    show_verdicts(report.judged, versions)
    for proposer, why in report.nothing_new.items():
        say(f"{proposer}: {why}; no test was spent on it")
    if told := [f"{name} {spent(cost)}" for name, cost in report.cost.items() if spent(cost)]:
        say(f"proposals took: {'; '.join(told)}", "dim")
    if any(one.stopped and one.verdict.n_waiting for one in report.judged):
        say("`ratchet label` shows what waits, side by side; the next run goes on with what people said")
    if report.decision.promoted:
        version = next(v for v in versions if v.candidate_id == report.decision.best)
        say(f"version {version.number}, made by {version.candidate.origin.proposer}", "green", "promoted")
    else:
        proven = {one.candidate_id: f"{one.verdict.reason}; " for one in report.judged}  # said in the table
        say(report.decision.reason.removeprefix(proven.get(report.decision.best or "", "")))


def show_verdicts(judged: Sequence[GateResult], versions: Sequence[Version]) -> None:
    """One row a challenger, each with its sentence."""
    table = Table(box=None, padding=(0, 2, 0, 2), show_edge=False)
    known = any(one.accuracy for one in judged)  # of cases that are answered alike nobody knows it
    for column in ("version", "how made", *(["accuracy"] if known else []), "verdict", "evidence"):
        table.add_column(column, header_style="dim")
    by_id = {version.candidate_id: version for version in versions}
    for one in judged:
        version = by_id[one.candidate_id]
        accuracy = f"{one.accuracy.mean:.2f} on {one.accuracy.n}" if one.accuracy else "–"
        table.add_row(
            str(version.number),
            outside(version.candidate.origin.proposer),
            *([accuracy] if known else []),
            verdict_word(one.verdict.decision),
            outside(
                f"{sentence(one.verdict)}; {one.stopped}" if one.stopped else sentence(one.verdict), 1000
            ),
        )
    console.print(table)


def show_drift(watched: WatchReport, unreadable: int = 0) -> None:
    """Whether an alarm stands, and what changed; `unreadable` traces were not looked at."""
    if watched.note:
        say(watched.note, "yellow")
    if unreadable:
        told = "trace was" if unreadable == 1 else "traces were"
        say(f"{unreadable:,} {told} not looked at: they cannot be read, as said below", "red", "blind")
    if not watched.alarm:
        seen = "no alarm in what can be read" if unreadable else "no alarm"
        say(f"drift monitor: {watched.n_windows} windows, {seen} (evidence {watched.e_value or 0:.3g})")
        return
    found = f"evidence {watched.e_value:.3g} after {watched.n_windows} more windows: {watched.reason}"
    say(found, "red", "drift")
    if watched.report:
        say(f"report: {watched.report}", "dim")
