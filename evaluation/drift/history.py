"""The last few thousand messages, kept to say afterwards what changed and since when."""

from collections import deque
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ratchet.evaluation.data.arrays import Floats, Ints, pack, unpack
from ratchet.evaluation.drift.scores import Ranked, WindowView

_LIMIT: Final = 3_000
_CLIP: Final = 300


@dataclass
class Window:
    """What is remembered of one window."""

    numbers: Ints
    """Number of each message since the start of the monitor."""
    texts: list[str | None]
    slices: list[str | None]
    at: str | None
    """Time of its first message, ISO 8601."""
    weights: Floats
    vectors: NDArray[np.float16]
    """(n, dimensions); rows without text are NaN."""
    surface: Floats
    ranks: dict[str, tuple[Ints, Floats]]
    """For each stream: rows that were ranked, and their p-values."""


class History:
    """Windows in order; the oldest leave beyond 3,000 messages, the newest always stays."""

    def __init__(self) -> None:
        self.windows: deque[Window] = deque()

    def remember(self, numbers: Ints, view: WindowView, weights: Floats, ranked: dict[str, Ranked]) -> None:
        """Keep a window with the ranks that were bet on, and what each message weighs beside its session."""
        texts = [None if row.text is None else row.text[:_CLIP] for row in view.rows]
        at = view.rows[0].at
        self.windows.append(
            Window(
                numbers=numbers,
                texts=texts,
                slices=[row.slice for row in view.rows],
                at=None if at is None else at.isoformat(),
                weights=weights,
                vectors=view.vectors.astype(np.float16),
                surface=view.surface,
                ranks={stream: (found.rows, found.p) for stream, found in ranked.items()},
            )
        )
        while len(self.windows) > 1 and sum(len(window.texts) for window in self.windows) > _LIMIT:
            self.windows.popleft()

    def to_state(self) -> list[dict[str, Any]]:
        """JSON array that `from_state` restores bit for bit."""
        return [
            {
                **asdict(window),
                "numbers": pack(window.numbers),
                "weights": pack(window.weights),
                "vectors": pack(window.vectors),
                "surface": pack(window.surface),
                "ranks": {stream: [pack(rows), pack(p)] for stream, (rows, p) in window.ranks.items()},
            }
            for window in self.windows
        ]

    @classmethod
    def from_state(cls, state: list[dict[str, Any]]) -> "History":
        """The history that `to_state` stored."""
        history = cls()
        for stored in state:
            arrays = {key: unpack(stored[key]) for key in ("numbers", "weights", "vectors", "surface")}
            ranks = {stream: (unpack(rows), unpack(p)) for stream, (rows, p) in stored["ranks"].items()}
            history.windows.append(Window(**{**stored, **arrays, "ranks": ranks}))
        return history
