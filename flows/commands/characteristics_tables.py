"""The gate's operating characteristics as tables for a terminal."""

from rich.table import Table

from ratchet.evaluation.gate.characteristics.operating import OperatingCharacteristics
from ratchet.flows.commands.terminal import console


def show_characteristics(measured: OperatingCharacteristics) -> None:
    """Print every table."""
    _false_promotions(measured)
    _labels(measured)
    _coverage(measured)
    _rules(measured)


def _false_promotions(measured: OperatingCharacteristics) -> None:
    rows = measured.false_promotions
    first = rows[0]
    title = (
        f"≥ 1 false promotion among {first.candidates} equal candidates, {first.lifetimes:,} lifetimes, "
        f"a look after each of {first.bets} bets (promised: ≤ 5 %)"
    )
    table = Table("population", "rate", "± standard error", title=title, title_justify="left")
    for row in rows:
        table.add_row(row.population, f"{row.rate:.2%}", f"{row.standard_error:.2%}")
    console.print(table)


def _labels(measured: OperatingCharacteristics) -> None:
    title = "labels to a promotion at alpha 0.05, beside a fixed-n test with 80 % power"
    table = Table(
        "population", "gain", "fixed n", "median", "ratio", "p90", title=title, title_justify="left"
    )
    for row in measured.labels_needed:
        cells = (
            f"{row.gain:g}",
            f"{row.fixed_n:,}",
            f"{row.median:,.0f}",
            f"{row.ratio:.2f}",
            f"{row.ninetieth:,.0f}",
        )
        table.add_row(row.population, *cells)
    console.print(table)
    table = Table(
        "judge ρ", "labels relative to no judge", title="ten judged per label", title_justify="left"
    )
    for saving in measured.judges:
        table.add_row(f"{saving.correlation:g}", f"{saving.geometric_mean:.2f}")
    console.print(table)
    table = Table(
        "population", "gain", "mixture", "aGRAPA", "ONS", title="median labels by bets", title_justify="left"
    )
    for bets in measured.bets:
        medians = f"{bets.mixture:,.0f}", f"{bets.agrapa:,.0f}", f"{bets.online_newton:,.0f}"
        table.add_row(bets.population, f"{bets.gain:g}", *medians)
    console.print(table)


def _coverage(measured: OperatingCharacteristics) -> None:
    table = Table("target", "n", "gate", "normal PPI++", "width", "width", title="coverage of 95 % intervals")
    for row in measured.coverage:
        cells = f"{row.gate:.3f}", f"{row.normal:.3f}", f"{row.gate_width:.3f}", f"{row.normal_width:.3f}"
        table.add_row(row.target, str(row.n), *cells)
    console.print(table)


def _rules(measured: OperatingCharacteristics) -> None:
    columns = ("rule", "false, one candidate", "false, lifetime of 50", "power at +0.1", "median labels")
    table = Table(*columns, title="binary outcomes, champion right in 70 %", title_justify="left")
    for row in measured.rules:
        labels = "–" if row.labels is None else f"{row.labels:,.0f}"
        table.add_row(
            row.rule, f"{row.false_one:.1%}", f"{row.false_lifetime:.1%}", f"{row.power:.0%}", labels
        )
    console.print(table)
