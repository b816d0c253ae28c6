"""How new a request is: what the nearest known request leaves unexplained.

Why a bounded sample of what is known: each text is compared with all of it, and a thousand random ones tell what is
usual; what is rare among the known may count as new once more.
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ratchet.agent.memory.similarity import CharacterIndex

KNOWN: Final = 1000
"""Known texts that are compared with, drawn at random where there are more."""
MAX_TEXT_CHARS: Final = 1000
"""Characters of a text that are looked at; of a longer one half from each end."""
_BLOCK: Final = 500

Newness = Callable[[Sequence[str]], NDArray[np.float64]]


def some(places: NDArray[np.int64], *, seed: int = 0) -> NDArray[np.int64]:
    """All of them, or `KNOWN` at random, in order."""
    return (
        places
        if len(places) <= KNOWN
        else np.sort(np.random.default_rng(seed).choice(places, KNOWN, replace=False))
    )


def novelty(known: Sequence[str]) -> Newness:
    """From texts to 1 − their largest character n-gram cosine to `known`, in [0, 1]; 0 if none are known."""
    if not known:
        return lambda texts: np.zeros(len(texts))
    index = CharacterIndex([_shortened(text) for text in known])

    def newness(texts: Sequence[str]) -> NDArray[np.float64]:
        found = np.zeros(len(texts))
        for start in range(0, len(texts), _BLOCK):
            block = [_shortened(text) for text in texts[start : start + _BLOCK]]
            nearest = index.similarity(block).max(axis=0)
            found[start : start + len(nearest)] = np.clip(1 - nearest, 0, 1)
        return found

    return newness


def _shortened(text: str) -> str:
    return (
        text
        if len(text) <= MAX_TEXT_CHARS
        else f"{text[: MAX_TEXT_CHARS // 2]} {text[-MAX_TEXT_CHARS // 2 :]}"
    )
