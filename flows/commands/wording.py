"""How a verdict is worded for a terminal; the same in every command."""

import re
from collections.abc import Iterable, Mapping
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


def spent(cost: Mapping[str, float], *, apart: str = " · ") -> str:
    """What something took: `212 calls · 31k tokens · $0.31 · 95 s`; empty where nothing is known."""
    told = [
        f"{amount(cost.get('calls', 0.0))} calls" if cost.get("calls") else "",
        f"{amount(cost['tokens'])} tokens" if cost.get("tokens") else "",
        money(cost["usd"]) if cost.get("usd") else "",
        f"{amount(cost['seconds'])} s" if cost.get("seconds") else "",
    ]
    return apart.join(part for part in told if part)


def amount(value: float) -> str:
    """Three digits: `0.31`, `212`, `31.2k`, `1.2M`."""
    for least, one, unit in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if value >= least:
            return f"{value / one:.3g}{unit}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def money(usd: float) -> str:
    """`$0.31`, `$12.40`, `$0.0042`."""
    return f"${usd:,.2f}" if usd >= 0.1 else f"${usd:.2g}"


def summed(costs: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """All together, by unit."""
    total: dict[str, float] = {}
    for cost in costs:
        total = {unit: total.get(unit, 0.0) + cost.get(unit, 0.0) for unit in (*total, *cost)}
    return total
