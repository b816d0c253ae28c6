"""Which ids have been seen, in eight bytes each, so that a million pairs cost eight megabytes.

Ids are kept as 64-bit BLAKE2b digests: two different ids of a million collide with probability 3e-8, and the
digest, unlike Python's `hash`, is the same in the process that restores the state.
"""

import base64
from hashlib import blake2b
from typing import Final

import numpy as np
from numpy.typing import NDArray

_FIRST_MERGE: Final = 4096


class SeenKeys:
    """A growing set of strings: `add`, `in`, and a JSON state."""

    def __init__(self, settled: NDArray[np.uint64] | None = None) -> None:
        self._settled = np.zeros(0, dtype=np.uint64) if settled is None else settled
        self._recent: set[int] = set()

    def __contains__(self, key: str) -> bool:
        digest = _digest(key)
        if digest in self._recent:
            return True
        at = int(self._settled.searchsorted(np.uint64(digest)))
        return at < self._settled.size and int(self._settled[at]) == digest

    def __len__(self) -> int:
        return self._settled.size + len(self._recent)

    def add(self, key: str) -> None:
        """Remember the key."""
        self._recent.add(_digest(key))
        if len(self._recent) >= max(_FIRST_MERGE, self._settled.size // 4):
            self._settle()

    def state(self) -> str:
        """Base64 of the sorted little-endian digests."""
        self._settle()
        return base64.b64encode(self._settled.astype("<u8").tobytes()).decode()

    @staticmethod
    def restore(state: str) -> "SeenKeys":
        """The inverse of `state`."""
        return SeenKeys(np.frombuffer(base64.b64decode(state), dtype="<u8").astype(np.uint64))

    def _settle(self) -> None:
        if self._recent:
            recent = np.fromiter(self._recent, dtype=np.uint64, count=len(self._recent))
            self._settled = np.sort(np.concatenate([self._settled, recent]), kind="stable")
            self._recent = set()


def _digest(key: str) -> int:
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "little")
