"""Which ids have been seen, in eight bytes each, so that a million pairs cost eight megabytes.

Ids are kept as 64-bit BLAKE2b digests: two different ids of a million collide with probability 3e-8, and the
digest, unlike Python's `hash`, is the same in the process that restores the state.
"""

import base64
from hashlib import blake2b
from typing import Final

import numpy as np
from numpy.typing import NDArray

_RECENT: Final = 65_536
_BUCKETS: Final = 1 << 24


class SeenKeys:
    """A growing set of strings: `in`, `is_new`, and a JSON state."""

    def __init__(self, settled: NDArray[np.uint64] | None = None) -> None:
        self._settled = np.zeros(0, dtype=np.uint64)
        self._recent: set[int] = set()
        # One byte a bucket answers "never seen" without a search; made only once ids have settled.
        self._touched = bytearray()
        if settled is not None and settled.size:
            self._settle(settled)

    def __contains__(self, key: str) -> bool:
        return self._holds(_digest(key))

    def __len__(self) -> int:
        return self._settled.size + len(self._recent)

    def is_new(self, key: str) -> bool:
        """Remember the key; whether it was not there before."""
        digest = _digest(key)
        if self._holds(digest):
            return False
        self._recent.add(digest)
        if len(self._recent) >= max(_RECENT, self._settled.size // 4):
            self._settle(self._fresh())
        return True

    def copy(self) -> "SeenKeys":
        """Another set that grows from here."""
        twin = SeenKeys()
        twin._settled, twin._touched, twin._recent = self._settled, self._touched[:], set(self._recent)
        return twin

    def state(self) -> str:
        """Base64 of the sorted little-endian digests."""
        everything = np.sort(np.concatenate([self._settled, self._fresh()]))
        return base64.b64encode(everything.astype("<u8").tobytes()).decode()

    @staticmethod
    def restore(state: str) -> "SeenKeys":
        """The inverse of `state`."""
        return SeenKeys(np.frombuffer(base64.b64decode(state), dtype="<u8").astype(np.uint64))

    def _holds(self, digest: int) -> bool:
        if digest in self._recent:
            return True
        if not self._touched or not self._touched[digest >> 40]:
            return False
        at = int(self._settled.searchsorted(np.uint64(digest)))
        return at < self._settled.size and int(self._settled[at]) == digest

    def _fresh(self) -> NDArray[np.uint64]:
        return np.fromiter(self._recent, dtype=np.uint64, count=len(self._recent))

    def _settle(self, digests: NDArray[np.uint64]) -> None:
        if not self._touched:
            self._touched = bytearray(_BUCKETS)
        np.frombuffer(self._touched, dtype=np.uint8)[(digests >> np.uint64(40)).astype(np.int64)] = 1
        self._settled = np.sort(np.concatenate([self._settled, digests]))
        self._recent = set()


def _digest(key: str) -> int:
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "little")
