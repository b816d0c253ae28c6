"""The picture that goes with a version: which tool is taken for which."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from ratchet.agent.errors import BadInput
from ratchet.infra.pictures.figure import INK, new_figure, save_figure

_OTHER_TOOLS: Final = "(others)"


def draw_confusion(
    expected: Sequence[str], chosen: Sequence[str | None], out: Path, *, most: int = 12
) -> Path:
    """Write a PNG of which tool was chosen where which was right; returns `out`.

    Args:
        expected: The right tool of each case.
        chosen: The agent's tool; None = it gave no usable answer.
        out: The picture's file; its folder is made.
        most: Tools shown, those that are confused most often; the rest is summed up.

    Raises:
        BadInput: no case, or lists of unequal length.
    """
    if not expected or len(expected) != len(chosen):
        raise BadInput(
            f"{len(expected)} right tools and {len(chosen)} choices: need as many, and at least one"
        )
    answers = [name or "(no answer)" for name in chosen]
    shown = _most_confused(expected, answers, most)
    counts = _count(expected, answers, shown)
    side = 2.4 + 0.42 * len(shown)
    figure = new_figure(side + 1.2, side)
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="equal")
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if shares[row, column] > 0.55 else INK
            axes.text(column, row, str(int(count)), ha="center", va="center", fontsize=8, color=colour)
    names = [_clipped(name) for name in shown]
    axes.set_xticks(range(len(shown)), names, rotation=55, ha="right", fontsize=8)
    axes.set_yticks(range(len(shown)), names, fontsize=8)
    axes.set_xlabel("chosen")
    axes.set_ylabel("right")
    right = sum(a == b for a, b in zip(expected, answers, strict=True))
    axes.set_title(f"Tool chosen where which was right: {right} of {len(expected)}", loc="left", fontsize=11)
    return save_figure(figure, out)


def _most_confused(expected: Sequence[str], chosen: Sequence[str], most: int) -> list[str]:
    """Names by how often they take part in a mistake, then by how often they occur."""
    pairs = list(zip(expected, chosen, strict=True))
    wrong = Counter(name for right, said in pairs if right != said for name in (right, said))
    seen = Counter([*expected, *chosen])
    ranked = sorted(seen, key=lambda name: (-wrong[name], -seen[name], name))
    return ranked if len(ranked) <= most else [*ranked[: most - 1], _OTHER_TOOLS]


def _count(
    expected: Sequence[str], chosen: Sequence[str], shown: Sequence[str]
) -> "np.ndarray[tuple[int, int], np.dtype[np.int64]]":
    place = {name: index for index, name in enumerate(shown)}
    rest = len(shown) - 1
    counts = np.zeros((len(shown), len(shown)), dtype=np.int64)
    for right, said in zip(expected, chosen, strict=True):
        counts[place.get(right, rest), place.get(said, rest)] += 1
    return counts


def _clipped(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:12]}…{name[-11:]}"
