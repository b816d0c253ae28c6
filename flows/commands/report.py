"""What a run of `improve` or `monitor` came to, for a person: one line per fact, a table for verdicts."""

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from ratchet.flows.commands.terminal import console
from ratchet.flows.improve import ImproveReport
from ratchet.infra.registry.version import Version
from ratchet.tasks.gate import GateResult
from ratchet.tasks.monitor import WatchReport

COLOUR = {"promote": "green", "reject": "red", "continue": "yellow"}
SAYS = {"promote": "proven", "reject": "refused", "continue": "not yet"}


def say(text: str) -> None:
    """One fact."""
    console.print(f"  {text}", soft_wrap=False)


def show_round(report: ImproveReport, versions: Sequence[Version]) -> None:
    """What was learned from, each challenger's verdict, and who serves now."""
    if report.lessons is not None:
        lessons = report.lessons
        left_out = ", ".join(f"{n} {why}" for why, n in lessons.left_out.items())
        say(f"learned from {lessons.training.n_rows} cases, {lessons.n_human} answered by people")
        say(f"[dim]left out: {left_out}")
    show_verdicts(report.judged, versions)
    for proposer, why in report.nothing_new.items():
        say(f"{proposer}: {escape(why)}; no test was spent on it")
    if report.decision.promoted:
        version = next(v for v in versions if v.candidate_id == report.decision.best)
        say(f"[bold green]promoted[/]: version {version.number}, made by {version.candidate.origin.proposer}")
    else:
        say(report.decision.reason)


def show_verdicts(judged: Sequence[GateResult], versions: Sequence[Version]) -> None:
    """One row a challenger, each with its sentence."""
    table = Table(box=None, padding=(0, 2, 0, 2), show_edge=False)
    for column in ("version", "how made", "accuracy", "verdict", "evidence"):
        table.add_column(column, header_style="dim")
    by_id = {version.candidate_id: version for version in versions}
    for one in judged:
        version, decision = by_id[one.candidate_id], one.verdict.decision
        table.add_row(
            str(version.number),
            version.candidate.origin.proposer,
            f"{one.accuracy.mean:.2f} on {one.accuracy.n}" if one.accuracy else "–",
            f"[{COLOUR[decision]}]{SAYS[decision]}",
            f"{one.verdict.reason}; {one.stopped}" if one.stopped else one.verdict.reason,
        )
    console.print(table)


def show_drift(watched: WatchReport) -> None:
    """Whether an alarm stands, and what changed."""
    if watched.note:
        say(f"[yellow]{escape(watched.note)}")
    if not watched.alarm:
        say(f"drift monitor: {watched.n_windows} windows, no alarm (evidence {watched.e_value or 0:.3g})")
        return
    say(
        f"[bold red]drift[/]: evidence {watched.e_value:.3g} after {watched.n_windows} more windows: {watched.reason}"
    )
    if watched.report:
        say(f"[dim]report: {watched.report}")
