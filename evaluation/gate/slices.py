"""Harm to a part of the traffic: a slice that is shown to be worse blocks, however good the average.

Budget. The s-th slice to appear may block falsely with probability slice_alpha · 6/(π²s²), so that all slices
together stay below slice_alpha; large slices appear first and get most. Bets are judge-free: the judge's
mean over all traffic is no control for one slice.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from ratchet.evaluation.gate.betting import Bounds, Wealth, bet, log_e_below


class SliceEvidence(BaseModel):
    """One slice: its mean gain and the evidence that it is worse."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    n_bets: int
    gain: float
    e_value: float
    """Evidence of harm now; it blocks at `threshold`."""
    threshold: float

    @property
    def harmed(self) -> bool:
        """Shown to be worse than the floor."""
        return self.e_value >= self.threshold


@dataclass
class Slices:
    """Wealth of each slice, in order of first appearance."""

    wealth: dict[str, Wealth] = field(default_factory=dict)

    def bet(self, parts: Iterable[tuple[str, float]], bounds: Bounds) -> None:
        """Bet each observation of the gain, in order, in the slice that it is named with."""
        by_slice: dict[str, list[float]] = {}
        for name, a in parts:
            by_slice.setdefault(name, []).append(a)
        for name, gains in by_slice.items():
            before = self.wealth.get(name) or Wealth.start()
            self.wealth[name] = bet(before, np.array(gains), np.zeros(len(gains)), bounds=bounds).wealth

    def evidence(self, alpha: float, floor: float, bounds: Bounds) -> tuple[SliceEvidence, ...]:
        """Each slice against "mean gain ≥ floor", the total probability of a false block being alpha."""
        return tuple(
            SliceEvidence(
                name=name,
                n_bets=int(wealth.bets),
                gain=float(wealth.mean),
                e_value=math.exp(min(float(log_e_below(wealth, floor, bounds)), 690.0)),
                threshold=(math.pi * place) ** 2 / 6 / alpha,
            )
            for place, (name, wealth) in enumerate(self.wealth.items(), start=1)
        )

    def state(self) -> dict[str, Any]:
        """Everything as plain JSON."""
        return {
            name: {part: value.tolist() for part, value in vars(wealth).items()}
            for name, wealth in self.wealth.items()
        }

    @staticmethod
    def restore(state: dict[str, Any]) -> "Slices":
        """The inverse of `state`."""
        return Slices({name: Wealth(**{k: np.array(v) for k, v in w.items()}) for name, w in state.items()})
