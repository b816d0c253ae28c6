"""The gate's path over time, thinned: what the picture shows."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from ratchet.evaluation.gate.gate import Gate
from ratchet.evaluation.gate.pairs import Pair
from ratchet.evaluation.gate.verdict import WealthPoint

GROWTH: Final = 1.03
"""Ratio of pairs between two points: every pair at first, some 500 points on a million pairs."""


def wealth_path(gate: Gate, pairs: Iterable[Pair]) -> Iterator[WealthPoint]:
    """Feed the pairs to the gate and yield a point after each growing block; the last cluster is closed."""
    source = iter(pairs)
    due = 1.0
    while block := list(islice(source, int(due))):
        gate.extend(block)
        point = gate.snapshot()
        if point is not None:
            due = max(due, point.n_bets * (GROWTH - 1))
            yield point
    gate.finish()
    last = gate.snapshot()
    if last is not None:
        yield last
