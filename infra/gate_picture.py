"""The gate's path as a picture: wealth against its threshold, and the interval closing on the gain."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import BadInput
from evaluation.verdict import Verdict, WealthPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PROMOTE = "#1b7f5c"
HARM = "#b3352b"
GAIN = "#23527c"
MUTED = "#777777"


def draw_gate(path: Sequence[WealthPoint], verdict: Verdict, out: Path) -> None:
    """Write a PNG (or SVG, PDF by suffix) of the path; BadInput when there was no bet to draw."""
    if not path:
        raise BadInput(f"no bet was made, so there is nothing to draw into {out}: {verdict.reason}")
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, (above, below) = plt.subplots(2, 1, figsize=(8, 6), sharex=True, height_ratios=(3, 2))
    try:
        _draw_wealth(above, path, verdict)
        _draw_interval(below, path, verdict)
        figure.suptitle(f"{verdict.decision}: {verdict.gain:+.3f} on {verdict.n_labelled:,} labelled cases")
        figure.tight_layout()
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, dpi=144)
    finally:
        plt.close(figure)


def _draw_wealth(axes: "Axes", path: Sequence[WealthPoint], verdict: Verdict) -> None:
    bets = [point.n_bets for point in path]
    axes.plot(bets, [point.e_value for point in path], color=PROMOTE, label="evidence for the challenger")
    axes.plot(bets, [point.harm_e_value for point in path], color=HARM, lw=1, label="evidence of harm")
    axes.axhline(verdict.threshold, color=PROMOTE, ls="--", lw=1)
    axes.annotate(
        f"promote at e ≥ {verdict.threshold:,.3g}",
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
    largest = max(max(point.e_value, point.harm_e_value) for point in path)
    axes.set_ylim(1e-3, max(min(largest, 1e30), verdict.threshold) * 5)
    axes.set_ylabel("e-value (log scale)")
    axes.legend(loc="lower right", frameon=False, fontsize=9)


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
