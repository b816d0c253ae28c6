"""What the demo says, and how it looks: headlines with times, one line per fact, tables for verdicts."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.panel import Panel
from rich.table import Table

from ratchet.evaluation.gate.ledger import Ledger
from ratchet.flows.commands.history import lines
from ratchet.flows.commands.report import say, show_verdicts
from ratchet.flows.commands.terminal import console
from ratchet.flows.demo.final_test import FinalTest
from ratchet.flows.demo.negative_control import NegativeControl
from ratchet.infra.registry.version import Version
from ratchet.tasks.gate import GateResult


class Stages:
    """Headlines with the time that each stage took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, title: str) -> Iterator[None]:
        """Say what begins; note what it took, also when it fails."""
        console.print()
        console.rule(f"[bold]{title}", align="left", style="dim")
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[title] = round(time.perf_counter() - began, 1)
            console.print(f"[dim]{self.seconds[title]:.0f} s[/]", justify="right")


def show_negative_control(
    control: NegativeControl, taught: str | None, judged: Sequence[GateResult], versions: Sequence[Version]
) -> None:
    """What each has to show for itself, and its verdict on what it does not know."""
    say(
        f"by heart: on its own {control.own_cases.n} training cases it is right in {control.own_cases.mean:.0%}, "
        f"the champion in {control.champion_on_them.mean:.0%}"
    )
    notes = [version.candidate.origin.note for version in versions if version.candidate_id == taught]
    say(f"reflection: {notes[0] if notes else 'no retry after one won, so there is nothing to keep'}")
    show_verdicts(judged, versions)


def show_final(tests: Mapping[str, FinalTest]) -> None:
    """Day one against the champion, with what simpler means get."""
    table = Table(box=None, padding=(0, 2, 0, 2), show_edge=False)
    for column in ("requests", "day 1", "champion", "gain, 95 % interval", "similarity alone", "chance"):
        table.add_column(column, header_style="dim")
    for name, test in tests.items():
        table.add_row(
            f"{name} ({test.first.n})",
            f"{test.first.mean:.2f}",
            f"[bold]{test.champion.mean:.2f}",
            f"{test.gain:+.2f} [{test.ci[0]:+.2f}, {test.ci[1]:+.2f}]",
            f"{test.retrieval.mean:.2f}",
            f"{test.chance:.2f}",
        )
    console.print(table)


def show_history(versions: Sequence[Version], ledger: Ledger, seconds: Mapping[str, float]) -> None:
    """All versions with their evidence, the budget, the time, and where to look next."""
    console.print()
    console.print(lines(list(versions), title="What `ratchet history` keeps"))
    say(ledger.summary)
    total = sum(seconds.values())
    say(
        f"{total / 60:.1f} minutes in all: " + ", ".join(f"{value:.0f} s" for value in seconds.values()),
        "dim",
    )
    console.print(
        Panel(
            "[bold]ratchet up[/]                   MLflow and Prefect in the browser\n"
            "[bold]ratchet history --name demo[/]  every version, a line each\n"
            "[bold]ratchet show v3 --name demo[/]  what one version changes, and its evidence\n"
            "[bold]ratchet explain[/] TRACE_ID     from an answer to the data behind it\n"
            "[bold]ratchet init[/] my_agent        your own agent",
            title="look further",
            title_align="left",
            border_style="dim",
            expand=False,
        )
    )
