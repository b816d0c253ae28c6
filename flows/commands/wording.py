"""How a verdict is worded for a terminal; the same in every command."""

import re
from typing import Final

from rich.text import Text

from ratchet.evaluation.gate.verdict import SAID, Verdict
from ratchet.flows.commands.terminal import outside

_COLOUR: Final = {"promote": "green", "reject": "red", "continue": "yellow"}


def verdict_word(decision: str) -> Text:
    """The word for a decision, in its colour."""
    return Text(SAID[decision], style=f"bold {_COLOUR[decision]}")


def sentence(verdict: Verdict) -> Text:
    """What it rests on, without the word that stands beside it on a screen."""
    words = "|".join(map(re.escape, (verdict.decision, SAID[verdict.decision])))
    return outside(re.sub(rf": ({words})(?=$| \(blocked)", "", verdict.reason), 1000)


def verdict_line(verdict: Verdict) -> Text:
    """The word and what it rests on."""
    return Text.assemble(verdict_word(verdict.decision), "  ", sentence(verdict))


def gain(verdict: Verdict | None) -> str:
    """The gain with its interval: `+0.56 +0.18…+0.83`."""
    if verdict is None or verdict.gain is None:
        return "–"
    return f"{verdict.gain:+.2f} {verdict.ci[0]:+.2f}…{verdict.ci[1]:+.2f}"
