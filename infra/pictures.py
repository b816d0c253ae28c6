"""Pictures that go with a version: how accurate each is, and which tool is taken for which.

Why intervals on every bar: two versions whose intervals overlap are not yet told apart, and the picture
must not suggest otherwise.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from agent.errors import BadInput
from evaluation.scorers import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK: Final = "#222222"
_MUTED: Final = "#777777"
_SERVES: Final = "#1b7f5c"
_OTHERS: Final = "#23527c"
_OTHER_TOOLS: Final = "(others)"


def draw_accuracy(
    scores: Mapping[str, Interval],
    out: Path,
    *,
    champion: str | None = None,
    baseline: tuple[str, float] | None = None,
    title: str = "Accuracy by version, 95 % intervals",
) -> Path:
    """Write a PNG of each version's mean and interval, in the order given; returns `out`.

    Args:
        scores: Version name (as a person knows it) to its accuracy.
        out: The picture's file; its folder is made.
        champion: Name of the version that serves; drawn in the colour of promotion.
        baseline: Name and value of a line to compare with, such as chance.
        title: What is shown, on which cases.

    Raises:
        BadInput: there is no version to draw.
    """
    if not scores:
        raise BadInput(f"no version has scores, so there is nothing to draw into {out}")
    figure = _figure(7.5, 1.2 + 0.55 * len(scores))
    axes = figure.subplots()
    names = list(scores)
    for row, name in enumerate(names):
        _draw_interval(axes, row, scores[name], _SERVES if name == champion else _OTHERS)
    if baseline is not None:
        axes.axvline(baseline[1], color=_MUTED, ls="--", lw=1)
        axes.text(baseline[1], -0.85, f" {baseline[0]} {baseline[1]:.2f}", color=_MUTED, fontsize=9, va="top")
    labels = [f"{name} (serves)" if name == champion else name for name in names]
    axes.set_yticks(range(len(names)), labels, color=_INK)
    axes.set_ylim(len(names) - 0.4, -0.9)
    axes.set_xlim(0, 1.3)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.grid(axis="x", color="#e5e5e5", lw=0.8)
    axes.set_axisbelow(True)
    axes.set_title(title, loc="left", color=_INK, fontsize=11)
    return _save(figure, out)


def _draw_interval(axes: "Axes", row: int, score: Interval, colour: str) -> None:
    axes.plot([score.low, score.high], [row, row], color=colour, lw=5, alpha=0.3, solid_capstyle="round")
    axes.plot([score.mean], [row], "o", color=colour, ms=8)
    axes.text(1.29, row, f"{score.mean:.2f}  n = {score.n}", va="center", ha="right", fontsize=9, color=_INK)


def draw_confusion(
    expected: Sequence[str], chosen: Sequence[str | None], out: Path, *, most: int = 12, title: str = ""
) -> Path:
    """Write a PNG of which tool was chosen where which was right; returns `out`.

    Args:
        expected: The right tool of each case.
        chosen: The agent's tool; None = it gave no usable answer.
        out: The picture's file; its folder is made.
        most: Tools shown, those that are confused most often; the rest is summed up.
        title: What is shown.

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
    figure = _figure(side + 1.2, side)
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="equal")
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if shares[row, column] > 0.55 else _INK
            axes.text(column, row, str(int(count)), ha="center", va="center", fontsize=8, color=colour)
    names = [_clipped(name) for name in shown]
    axes.set_xticks(range(len(shown)), names, rotation=55, ha="right", fontsize=8)
    axes.set_yticks(range(len(shown)), names, fontsize=8)
    axes.set_xlabel("chosen")
    axes.set_ylabel("right")
    right = sum(a == b for a, b in zip(expected, answers, strict=True))
    axes.set_title(
        title or f"Tool chosen where which was right: {right} of {len(expected)}", loc="left", fontsize=11
    )
    return _save(figure, out)


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


def _figure(width: float, height: float) -> "Figure":
    """A figure of its own, without pyplot's global state: tasks draw in threads."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: "Figure", out: Path) -> Path:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)
    return out
