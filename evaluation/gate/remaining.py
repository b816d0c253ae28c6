"""About how many labels a verdict is away: for the line of progress that a person reads, and never for a decision."""

import math
from typing import Final

import numpy as np

from ratchet.evaluation.gate.gate import Gate
from ratchet.evaluation.gate.horizon import win_rate

_MOST: Final = 3000


def remaining_labels(gate: Gate, gain: float) -> int | None:
    """How many more decisive labels (the versions differ, one is right) until it is proven, if `gain` is true.

    Along the mean path, which is about the median; 0 where the verdict is there, None where it is out of reach.
    """
    if gate.verdict().decision != "continue":
        return 0
    if gain <= 0:
        return None
    labels = np.arange(1, _MOST + 1)
    wins = np.rint(labels * win_rate(gain)).astype(np.int64)
    reached = np.flatnonzero(gate.log_e_after(wins, labels - wins) >= -math.log(gate.policy.alpha))
    return int(labels[reached[0]]) if reached.size else None
