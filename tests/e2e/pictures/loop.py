"""The loop as a ratchet wheel: eight stages around, and a pawl that lets it turn one way only."""

import math
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle

STAGES: Final = (
    ("serve", "the champion answers;\nevery run is a trace"),
    ("collect", "traces and feedback into\nversioned datasets"),
    ("monitor", "has the traffic changed?\nan alarm says to what"),
    ("people", "asked where it is worth it,\nwith known probability"),
    ("curate", "all human labels kept,\nthe gate's cases held back"),
    ("propose", "memory, LoRA, DSPy:\nchallengers"),
    ("gate", "fresh cases, evidence\nuntil the verdict"),
    ("promote", "one move of an alias,\nundone by one command"),
)
"""Name and what happens there, clockwise from the top."""

_INK: Final = "#222222"
_MUTED: Final = "#777777"
_SERVES: Final = "#1b7f5c"
_WHEEL: Final = "#23527c"
_TEETH: Final = 24
_ROOT: Final = 1.0
_TIP: Final = 1.11
_NOTES: Final = 1.3
_FACE: Final = 20
"""The tooth whose steep side the pawl holds."""


def draw_loop(out: Path) -> Path:
    """Write a PNG of the loop; returns `out`."""
    figure = Figure(figsize=(9, 6), dpi=130)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(-2.4, 2.4)
    axes.set_ylim(-1.6, 1.6)
    axes.set_aspect("equal")
    axes.axis("off")
    _draw_wheel(axes)
    for place, (name, note) in enumerate(STAGES):
        _draw_stage(axes, place, name, note)
    _draw_pawl(axes)
    _draw_hub(axes)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)
    return out


def _point(turn: float, radius: float) -> tuple[float, float]:
    """`turn` in [0, 1) clockwise from the top."""
    angle = math.pi / 2 - 2 * math.pi * turn
    return radius * math.cos(angle), radius * math.sin(angle)


def _draw_wheel(axes: Axes) -> None:
    """Teeth with one steep side: under the pawl the wheel turns clockwise and not back."""
    outline = []
    for tooth in range(_TEETH):
        outline.append(_point(tooth / _TEETH, _ROOT))
        outline += [_point((tooth + s) / _TEETH, _TIP - s * (_TIP - _ROOT)) for s in np.linspace(0, 1, 5)]
    x, y = np.array(outline).T
    axes.fill(x, y, facecolor="#eaf0f5", edgecolor=_WHEEL, lw=1.2)
    axes.add_patch(_circle(0.52, "white", _WHEEL))


def _circle(radius: float, fill: str, edge: str, at: tuple[float, float] = (0, 0)) -> Circle:
    return Circle(at, radius, facecolor=fill, edgecolor=edge, lw=1.2, zorder=3)


def _draw_stage(axes: Axes, place: int, name: str, note: str) -> None:
    turn = place / len(STAGES)
    x, y = _point(turn, 0.77)
    colour = _SERVES if name in ("serve", "promote") else _WHEEL
    axes.add_patch(_circle(0.205, colour, "white", (x, y)))
    axes.text(x, y, name, color="white", fontsize=9.5, weight="bold", ha="center", va="center", zorder=4)
    x, y = _point(turn, _NOTES)
    side = "center" if abs(x) < 0.1 else ("left" if x > 0 else "right")
    axes.text(x, y, note, color=_INK, fontsize=10, ha=side, va="center", linespacing=1.25)


def _draw_pawl(axes: Axes) -> None:
    """Between gate and promote: what keeps the wheel from turning back."""
    tip, pivot = _point((_FACE - 0.12) / _TEETH, _ROOT + 0.03), _point((_FACE - 1.3) / _TEETH, 1.42)
    axes.plot([pivot[0], tip[0]], [pivot[1], tip[1]], color=_SERVES, lw=6, solid_capstyle="round", zorder=2)
    axes.add_patch(_circle(0.05, _SERVES, "white", pivot))
    axes.text(pivot[0] - 0.1, pivot[1] + 0.06, "evidence,\nor the champion stays", color=_SERVES, fontsize=10,
              ha="right", va="center", linespacing=1.25)  # fmt: skip


def _draw_hub(axes: Axes) -> None:
    axes.text(
        0, 0.1, "champion", color=_SERVES, fontsize=15, weight="bold", ha="center", va="center", zorder=4
    )
    axes.text(0, -0.12, "one error budget\nfor all tries", color=_MUTED, fontsize=9.5, ha="center", va="center",
              zorder=4, linespacing=1.25)  # fmt: skip
