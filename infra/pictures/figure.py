"""A figure of its own, without pyplot's global state: tasks draw in threads, and no window system is asked.

Matplotlib is loaded by whoever draws first: most commands draw nothing.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK: Final = "#222222"
MUTED: Final = "#777777"


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of so many inches, freed with its last reference."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: "Figure", out: Path) -> Path:
    """Write it as PNG (or SVG, PDF by suffix), without the frame's upper and right line; returns `out`."""
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=144)
    return out
