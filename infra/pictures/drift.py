"""The timeline of the evidence: one line per group, the threshold, and the change point with its interval."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ratchet.agent.errors import BadInput
from ratchet.evaluation.drift.attribution import Attribution
from ratchet.evaluation.drift.message import GROUPS, Group
from ratchet.evaluation.drift.state import DriftState
from ratchet.infra.pictures.figure import INK, MUTED, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS: Final[dict[Group, str]] = {"input": "#23527c", "behaviour": "#c08a1e", "outcome": "#b3352b"}
_SAYS: Final[dict[Group, str]] = {
    "input": "what people ask",
    "behaviour": "what the agent does",
    "outcome": "how well it goes",
}


def draw_drift(states: Sequence[DriftState], out: Path, *, attribution: Attribution | None = None) -> Path:
    """Write a PNG (or SVG, PDF by suffix) of R window by window; returns `out`.

    Raises:
        BadInput: there is no window to draw.
    """
    if not states:
        raise BadInput(f"no window was seen, so there is nothing to draw into {out}")
    figure = new_figure(9, 4)
    axes = figure.subplots()
    _draw_evidence(axes, states)
    if attribution is not None and states[-1].n_seen:
        _draw_change_point(axes, attribution)
    _label(axes, states)
    return save_figure(figure, out)


def _draw_evidence(axes: "Axes", states: Sequence[DriftState]) -> None:
    seen = [state.n_seen for state in states]
    threshold = states[-1].threshold
    axes.axhline(threshold, color=INK, ls="--", lw=1)
    axes.text(
        seen[-1], threshold / 1.3, f"alarm at {threshold:,.0f}", color=INK, fontsize=9, ha="right", va="top"
    )
    for group in GROUPS:
        values = [max(float(getattr(state, group)), 0.1) for state in states]
        if max(float(getattr(state, group)) for state in states) > 0:
            axes.plot(seen, values, color=_COLOURS[group], lw=1.2, alpha=0.8, label=_SAYS[group])
    axes.plot(seen, [max(state.e_value, 0.1) for state in states], color=INK, lw=2, label="all together")
    first = next((state for state in states if state.alarm), None)
    if first is not None:
        axes.plot([first.n_seen], [first.e_value], "o", color=_COLOURS["outcome"], ms=8, zorder=5)
        axes.annotate(
            "alarm",
            (first.n_seen, first.e_value),
            (-8, 6),
            textcoords="offset points",
            ha="right",
            fontsize=9,
        )


def _draw_change_point(axes: "Axes", attribution: Attribution) -> None:
    change = attribution.onset
    axes.axvspan(change.low, change.high, color=MUTED, alpha=0.18, lw=0, label="change point, 95 %")
    axes.axvline(change.message, color=MUTED, lw=1)


def _label(axes: "Axes", states: Sequence[DriftState]) -> None:
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.1)
    axes.set_xlabel("messages since the reference")
    axes.set_ylabel("evidence R")
    axes.set_title("Drift" if any(state.alarm for state in states) else "No drift", loc="left")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
