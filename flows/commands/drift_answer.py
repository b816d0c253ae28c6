"""What `ratchet drift` says: one JSON object, or sentences and a table; and how the files were read."""

from typing import Any

from rich.markup import escape
from rich.table import Table

from ratchet.evaluation.drift.attribution import Attribution
from ratchet.evaluation.drift.state import DriftState
from ratchet.flows.commands.terminal import console, outside
from ratchet.infra.files.csv_records import short
from ratchet.infra.files.messages import MessageFile, Uncompared, unused


def answer_of(
    states: list[DriftState],
    attribution: Attribution | None,
    one_sided: list[Uncompared],
    emptied: list[str],
) -> dict[str, Any]:
    """The object that `--json` prints."""
    first = next((state for state in states if state.alarm), None)
    return {
        "drift": first is not None or bool(emptied),
        "emptied": emptied,
        "not_compared": [column.name for column in one_sided],
        "e_value": max(state.e_value for state in states),
        "threshold": states[-1].threshold,
        "n_seen": states[-1].n_seen,
        "n_windows": states[-1].n_windows,
        "alarm_at_message": None if first is None else first.n_seen,
        "alarm_now": states[-1].alarm,
        "attribution": None if attribution is None else attribution.model_dump(mode="json"),
    }


def show_reading(files: tuple[MessageFile, MessageFile], one_sided: list[Uncompared]) -> None:
    """What was read otherwise than it stands in the files, or not at all."""
    told = []
    for how, path in dict.fromkeys((column.how, column.path) for column in one_sided):
        names = [column.name for column in one_sided if (column.how, column.path) == (how, path)]
        told.append(f"not compared: {', '.join(names)} {'is' if len(names) == 1 else 'are'} {how} in {path}")
    if left := unused(*files):
        told.append(f"not used: {short(left)}; --category or --number compares a column")
    for file in files:
        if file.container is not None:
            told.append(f"of the JSON object in {file.path} only the list {file.container!r} was read")
        without = file.rows_read - file.filled[file.columns.text]
        for n, what in (
            (without, "without text"),
            (file.mended, "with half a character, replaced by \ufffd"),
        ):
            if n:
                told.append(f"{n:,} of {file.rows_read:,} rows {what}: {file.path}")
    for line in told:
        console.print(outside(line, 500), soft_wrap=True)


def show_emptied(emptied: list[str], current: MessageFile) -> None:
    """Columns that were asked for and came empty."""
    if emptied:
        told = f"{' and '.join(emptied)} {'is' if len(emptied) == 1 else 'are'} empty in all"
        console.print(
            f"[bold red]drift[/]  {escape(told)} {current.rows_read:,} messages, and in the reference not",
            soft_wrap=True,
        )


def show_drift_answer(states: list[DriftState], attribution: Attribution | None, embedding: str) -> None:
    """The verdict, and what explains it."""
    last = states[-1]
    if attribution is None:
        peak = max(state.e_value for state in states)
        console.print(
            f"[bold green]no drift[/]  in {last.n_seen:,} messages the evidence reached {peak:,.0f}; "
            f"an alarm needs {last.threshold:,.0f}; read by {embedding}"
        )
        return
    console.print(
        f"[bold red]drift[/]  {escape(attribution.reason)} Read by {escape(embedding)}.", soft_wrap=True
    )
    if attribution.clusters:
        table = Table("since then", "kind", "share", "usual", "also", box=None, title_justify="left")
        for cluster in attribution.clusters:
            kind = "known" if cluster.known else "new"
            also = next((text for text in cluster.examples if text != cluster.name), "")
            table.add_row(
                escape(cluster.name), kind, f"{cluster.share:.0%}", f"{cluster.usual_share:.1%}",
                escape(also),
            )  # fmt: skip
        console.print(table)
    for part in attribution.slices:
        if part.low > 0.1:
            console.print(
                f"slice {escape(part.slice)}: {part.strange_share:.0%} of {part.n:,} messages are strange "
                f"({part.low:.0%} to {part.high:.0%}); 10 % is usual"
            )
