"""How versions are worded for a terminal; the same in every command."""

from typing import Final

from rich.text import Text

from ratchet.evaluation.data.intervals import Interval
from ratchet.infra.registry.version import Version

DECISION: Final = {"promote": "green", "reject": "red", "continue": "yellow"}
"""Colour of a verdict."""
ALIAS: Final = {"champion": "bold green", "challenger": "yellow", "canary": "cyan", "previous": "dim"}
_SCALE: Final = 18


def called(version: Version) -> str:
    """A version's short name: `v3 1a2b3c4d`."""
    return f"v{version.number} {version.candidate_id[:8]}"


def aliases(version: Version) -> Text:
    """Its aliases, each in its colour."""
    return Text("\n").join(Text(name, style=ALIAS.get(name, "")) for name in version.aliases)


def accuracy_text(version: Version) -> Text:
    """Every score with its 95 % interval; the first is drawn on a scale from 0 to 1, too."""
    lines = []
    for name, score in version.scores.items():
        title = [Text(name.replace("_", " "), style="dim")] if len(version.scores) > 1 else []
        lines += [*title, Text.assemble((f"{score.mean:.3f}", "bold"), f" {score.low:.2f}–{score.high:.2f}")]
        if len(lines) <= 2:
            lines.append(picture(score))
    return Text("\n").join(lines) if lines else Text("not evaluated", style="dim")


def picture(score: Interval) -> Text:
    """The interval on a scale from 0 to 1: `···├──●──┤····`."""
    low, mean, high = (round(value * (_SCALE - 1)) for value in (score.low, score.mean, score.high))
    marks = ["·" if not low <= place <= high else "─" for place in range(_SCALE)]
    marks[low], marks[high] = "├", "┤"
    marks[mean] = "●"
    return Text("".join(marks), style="dim")


def cost(version: Version) -> str:
    """What it took to make, a line for each unit."""
    units = {"seconds": "s", "usd": "$", "lm_calls": "LM calls", "input_tokens": "tokens"}
    return "\n".join(
        f"{value:,.3g} {units.get(name, name)}" if value < 1000 else f"{value:,.0f} {units.get(name, name)}"
        for name, value in version.cost.items()
    )
