"""The gate's operating characteristics as tables for a terminal."""

from collections.abc import Iterable

from rich.table import Table

from ratchet.evaluation.gate.characteristics.operating import OperatingCharacteristics
from ratchet.flows.commands.terminal import console


def show_characteristics(measured: OperatingCharacteristics) -> None:
    """Print every table."""
    first = measured.false_promotions[0]
    _print(
        f"≥ 1 false promotion among {first.candidates} equal candidates, {first.lifetimes:,} lifetimes, "
        f"a look after each of {first.bets} bets (promised: ≤ 5 %)",
        ("population", "rate", "± standard error"),
        (
            (row.population, f"{row.rate:.2%}", f"{row.standard_error:.2%}")
            for row in measured.false_promotions
        ),
    )
    _print(
        "labels to a promotion at alpha 0.05, beside a fixed-n test with 80 % power",
        ("population", "gain", "fixed n", "median", "ratio", "p90"),
        (
            (row.population, f"{row.gain:g}", f"{row.fixed_n:,}", f"{row.median:,.0f}", f"{row.ratio:.2f}",
             f"{row.ninetieth:,.0f}")
            for row in measured.labels_needed
        ),
    )  # fmt: skip
    _print(
        "ten judged per label",
        ("judge ρ", "labels relative to no judge"),
        ((f"{row.correlation:g}", f"{row.geometric_mean:.2f}") for row in measured.judges),
    )
    _print(
        "median labels by bets",
        ("population", "gain", "mixture", "aGRAPA", "ONS"),
        (
            (row.population, f"{row.gain:g}", f"{row.mixture:,.0f}", f"{row.agrapa:,.0f}",
             f"{row.online_newton:,.0f}")
            for row in measured.bets
        ),
    )  # fmt: skip
    _print(
        "coverage of 95 % intervals",
        ("target", "n", "gate", "normal PPI++", "width", "width"),
        (
            (row.target, str(row.n), f"{row.gate:.3f}", f"{row.normal:.3f}", f"{row.gate_width:.3f}",
             f"{row.normal_width:.3f}")
            for row in measured.coverage
        ),
    )  # fmt: skip
    _print(
        "binary outcomes, champion right in 70 %",
        ("rule", "false, one candidate", "false, lifetime of 50", "power at +0.1", "median labels"),
        (
            (row.rule, f"{row.false_one:.1%}", f"{row.false_lifetime:.1%}", f"{row.power:.0%}",
             "–" if row.labels is None else f"{row.labels:,.0f}")
            for row in measured.rules
        ),
    )  # fmt: skip


def _print(title: str, columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    console.print(table)
