"""What an agent that learns from itself comes to over rounds: error, and how varied its answers stay."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from ratchet.agent.errors import BadInput
from ratchet.infra.pictures.figure import INK, MUTED, new_figure, save_figure
from ratchet.infra.pictures.gate import COLOURS

_PALETTE: Final = (COLOURS[2], "#d08a1d", *COLOURS[:2])
_MARKS: Final = 6
"""Simulated points of a line, so that the line beneath them is seen."""


class Curve(NamedTuple):
    """One way to learn: what was simulated and what theory says, a value a round."""

    simulated: Sequence[float]
    theory: Sequence[float]


def draw_reinforcement(
    error: Mapping[str, Curve], variety: Mapping[str, Curve], bound: float, out: Path
) -> Path:
    """Write a picture of both: dots are simulated, lines are theory, dashed is the bound; returns `out`.

    Args:
        error: test error beside that of people's data alone, by way of learning.
        variety: share of the first round's variety of answers that is left, by way of learning.
        bound: on the error, however many rounds there are.
        out: the picture's file.

    Raises:
        BadInput: nothing to draw.
    """
    if not error or not variety:
        raise BadInput("no way of learning was measured, so there is nothing to draw")
    figure = new_figure(10, 4.2)
    left, right = figure.subplots(1, 2)
    names = dict.fromkeys([*error, *variety])
    colours = dict(zip(names, itertools.cycle(_PALETTE), strict=False))
    for axes, curves in ((left, error), (right, variety)):
        for name, curve in curves.items():
            colour = colours[name]
            rounds = range(1, len(curve.simulated) + 1)
            axes.plot(rounds, curve.theory, color=colour, lw=1.5, label=name)
            step = max(len(rounds) // _MARKS, 1)
            axes.plot(rounds[::step], curve.simulated[::step], "o", color=colour, ms=4)
        axes.set_xlabel("rounds of learning from itself")
    left.axhline(bound, color=MUTED, ls="--", lw=1)
    longest = max(len(curve.simulated) for curve in error.values())
    told: dict[str, Any] = {
        "xytext": (0, 4),
        "textcoords": "offset points",
        "ha": "right",
        "color": MUTED,
        "fontsize": 9,
    }
    left.annotate(f"bound π²/6 = {bound:.3f}, all data kept", (longest, bound), **told)
    left.set_yscale("log")
    left.set_yticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
    left.set_yticks([], minor=True)
    left.set_ylabel("error, people's data alone = 1 (log)")
    left.legend(loc="center right", bbox_to_anchor=(1.0, 0.45), frameon=False, fontsize=8, labelcolor=INK)
    right.set_ylim(0, 1.05)
    right.set_ylabel("variety of answers that is left")
    right.legend(loc="lower left", frameon=False, fontsize=8, labelcolor=INK)
    return save_figure(figure, out)
