"""The gate's path as a picture: wealth against its threshold, and the interval closing on the gain."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ratchet.agent.errors import BadInput
from ratchet.evaluation.gate.characteristics.operating import OperatingCharacteristics
from ratchet.evaluation.gate.verdict import SAID, Verdict, WealthPoint
from ratchet.infra.pictures.figure import MUTED, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PROMOTE = "#1b7f5c"
HARM = "#b3352b"
GAIN = "#23527c"
COLOURS = (GAIN, PROMOTE, HARM)


def draw_gate(path: Sequence[WealthPoint], verdict: Verdict, out: Path) -> None:
    """Write a PNG (or SVG, PDF by suffix) of the path; BadInput when there was no bet to draw."""
    if not path:
        raise BadInput(f"no bet was made, so there is nothing to draw into {out}: {verdict.reason}")
    figure = new_figure(8, 6)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    _draw_wealth(above, path, verdict)
    _draw_interval(below, path, verdict)
    figure.suptitle(f"{SAID[verdict.decision]}: {verdict.gain:+.3f} on {verdict.n_labelled:,} labelled cases")
    save_figure(figure, out)


def draw_characteristics(measured: OperatingCharacteristics, out: Path) -> None:
    """Write a picture of how often each rule errs over a lifetime, and what the gate costs in labels."""
    figure = new_figure(10, 4)
    errors, labels = figure.subplots(1, 2)
    _draw_errors(errors, measured)
    _draw_labels(labels, measured)
    save_figure(figure, out)


def _draw_wealth(axes: "Axes", path: Sequence[WealthPoint], verdict: Verdict) -> None:
    bets = [point.n_bets for point in path]
    axes.plot(bets, [point.e_value for point in path], color=PROMOTE, label="evidence for the challenger")
    axes.plot(bets, [point.harm_e_value for point in path], color=HARM, lw=1, label="evidence of harm")
    axes.axhline(verdict.threshold, color=PROMOTE, ls="--", lw=1)
    axes.annotate(
        f"proven at e ≥ {verdict.threshold:,.3g}",
        (bets[0], verdict.threshold),
        xytext=(0, 3),
        textcoords="offset points",
        color=PROMOTE,
        fontsize=9,
    )
    if verdict.decided_at is not None:
        axes.axvline(
            verdict.decided_at, color=MUTED, lw=1, ls=":", label=f"decided at {verdict.decided_at:,}"
        )
    axes.set_yscale("log")
    axes.minorticks_off()  # eight a decade: a third of the time that the picture takes
    largest = max(max(point.e_value, point.harm_e_value) for point in path)
    axes.set_ylim(1e-3, max(min(largest, verdict.threshold * 1e4), verdict.threshold) * 5)
    axes.set_ylabel("e-value (log scale)")
    axes.legend(loc="best", framealpha=0.9, edgecolor="none", fontsize=9)


def _draw_interval(axes: "Axes", path: Sequence[WealthPoint], verdict: Verdict) -> None:
    bets = [point.n_bets for point in path]
    low, high = [point.low for point in path], [point.high for point in path]
    axes.fill_between(
        bets, low, high, color=GAIN, alpha=0.15, lw=0, label=f"{verdict.confidence:.0%} interval"
    )
    axes.plot(bets, [point.gain for point in path], color=GAIN, label="estimated gain")
    axes.axhline(verdict.min_gain, color=MUTED, ls="--", lw=1)
    axes.set_ylim(max(-1.0, 1.3 * verdict.ci[0] - 0.3), min(1.0, 1.3 * verdict.ci[1] + 0.3))
    if bets[-1] > 50 * max(bets[0], 1):
        axes.set_xscale("log")
    axes.set_xlabel("bets (labelled cases, or clusters of them)")
    axes.set_ylabel("gain")
    axes.legend(loc="upper right", frameon=False, fontsize=9)


def _draw_errors(axes: "Axes", measured: OperatingCharacteristics) -> None:
    rows = sorted(measured.rules, key=lambda row: -row.false_lifetime)
    colours = [PROMOTE if row.rule.startswith("gate with ledger") else MUTED for row in rows]
    bars = axes.barh([row.rule for row in rows], [100 * row.false_lifetime for row in rows], color=colours)
    labels = axes.bar_label(bars, fmt="%.0f %%", padding=3, fontsize=8)
    for label in labels:
        label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1})
    axes.axvline(5, color=HARM, lw=1, ls="--")
    axes.set_xlim(0, 115)
    axes.set_xlabel("% of lifetimes with a false promotion\n(50 candidates, none better; dashed: promised)")


def _draw_labels(axes: "Axes", measured: OperatingCharacteristics) -> None:
    for name, colour in zip(
        dict.fromkeys(row.population for row in measured.labels_needed), COLOURS, strict=False
    ):
        rows = [row for row in measured.labels_needed if row.population == name]
        gains = [row.gain for row in rows]
        axes.plot(gains, [row.median for row in rows], "o-", color=colour, label=f"gate, {name}")
        axes.plot(gains, [row.fixed_n for row in rows], "x--", color=colour, lw=1)
    axes.set_xscale("log")
    axes.set_yscale("log")
    ticks = sorted({row.gain for row in measured.labels_needed})
    axes.set_xticks(ticks, [f"{gain:g}" for gain in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("true gain")
    axes.set_ylabel("labels to a promotion (median)")
    axes.plot([], [], "x--", color=MUTED, lw=1, label="fixed-n test, one look")
    axes.legend(frameon=False, fontsize=8)
