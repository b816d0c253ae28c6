"""The nearest of many texts, by the Jaccard similarity of their shingles: exactly, as long as that is affordable.

All similarities at once are one product of sparse matrices, texts by shingles. It costs a step for each shingle that
two texts share: a hundred thousand texts against a thousand take seconds, also where all come from one template.
Above `AFFORDABLE` steps MinHash with banding proposes (Broder 1997; Leskovec et al., "Mining of Massive Datasets",
ch. 3): 128 hashes, 32 bands of 4; a pair at 0.8 escapes the bands with probability (1 − 0.8⁴)³² ≈ 5e-8, at 0.6 with
1 %. Texts from one template share most bands, so a band takes in 64 texts and no more, each text is also found by its
rarest shingles, and only the 64 that share most, the rarer the more, are compared. Missed there is a pair whose bands
are all a template's and whose rare shingles all differ, unless 64 others are as near; where several are near, it may
not be the nearest that is named. What is returned is always the exact similarity.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

SHINGLE: Final = 5
BANDS: Final = 32
ROWS: Final = 4
MAX_COMPARED: Final = 64
"""Texts in one band, and texts compared exactly with one."""
RARE_SHINGLES: Final = 16
"""Shingles by which a text is found besides."""
AFFORDABLE: Final = 5_000_000_000
"""Pairs of equal shingles, about as many nanoseconds."""
_CELLS: Final = 4_000_000
"""Similarities that are held at once."""

Shingles = NDArray[np.uint64]
Nearest = tuple[int | None, float]
"""Place of the text, and its similarity; None where no shingle is shared."""


def nearest_texts(texts: Sequence[str], known: Sequence[str]) -> list[Nearest]:
    """For each of `texts` the most similar of `known`, the first of equals."""
    if not texts or not known:
        return [(None, 0.0)] * len(texts)
    theirs = [shingles_of(text) for text in known]
    everything, counts = np.unique(np.concatenate(theirs), return_counts=True)
    ours = [shingles_of(text) for text in texts]
    if _steps(ours, everything, counts) <= AFFORDABLE:
        return list(_exactly(ours, theirs, everything))
    index = _Index(theirs, everything, counts)
    return [index.nearest(one) for one in ours]


def shingles_of(text: str) -> Shingles:
    """Distinct 32-bit hashes of all substrings of five characters (of the text itself if shorter)."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    width = min(SHINGLE, max(len(codes), 1))
    mixed = np.zeros(max(len(codes) - width + 1, 1), np.uint64)
    for place in range(min(width, len(codes))):
        mixed = (mixed + codes[place : place + len(mixed)]) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return np.unique(mixed >> np.uint64(32))


def _steps(ours: Sequence[Shingles], everything: Shingles, counts: NDArray[np.int64]) -> int:
    return sum(int(counts[at].sum()) for at in (_places(one, everything) for one in ours))


def _places(shingles: Shingles, everything: Shingles) -> NDArray[np.int64]:
    """Where the shingles that are known stand."""
    at = np.minimum(np.searchsorted(everything, shingles), len(everything) - 1)
    found: NDArray[np.int64] = at[everything[at] == shingles]
    return found


def _exactly(ours: Sequence[Shingles], theirs: Sequence[Shingles], everything: Shingles) -> Iterator[Nearest]:
    sizes = np.array([len(one) for one in theirs])
    known = _matrix(theirs, everything).T.tocsr()
    block = max(_CELLS // len(theirs), 1)
    for start in range(0, len(ours), block):
        asked = ours[start : start + block]
        common = (_matrix(asked, everything) @ known).tocsr()
        common.sort_indices()
        for row, shingles in enumerate(asked):
            cells = slice(common.indptr[row], common.indptr[row + 1])
            columns, shared = common.indices[cells], common.data[cells]
            if not len(shared):
                yield None, 0.0
                continue
            similarities = shared / (sizes[columns] + len(shingles) - shared)
            best = int(similarities.argmax())
            yield int(columns[best]), float(similarities[best])


def _matrix(rows: Sequence[Shingles], everything: Shingles) -> Any:
    places = [_places(one, everything) for one in rows]
    ends = np.cumsum([0, *(len(one) for one in places)])
    ones = np.ones(ends[-1], np.int32)
    return csr_array((ones, np.concatenate(places), ends), shape=(len(rows), len(everything)))


class _Index:
    """Texts by the bands of their MinHash signatures and by their rarest shingles."""

    def __init__(self, theirs: Sequence[Shingles], everything: Shingles, counts: NDArray[np.int64]) -> None:
        rng = np.random.default_rng(20260101)
        self._a = rng.integers(0, 1 << 63, size=(BANDS * ROWS, 1), dtype=np.uint64) * np.uint64(
            2
        ) + np.uint64(1)
        self._b = rng.integers(0, 1 << 63, size=(BANDS * ROWS, 1), dtype=np.uint64)
        self._theirs, self._known, self._counts = theirs, everything, counts
        self._places: dict[bytes | int, list[int]] = defaultdict(list)
        self._crowds: Counter[bytes | int] = Counter()
        for number, shingles in enumerate(theirs):
            for place in self._places_of(shingles):
                self._crowds[place] += 1
                if self._crowds[place] <= MAX_COMPARED:
                    self._places[place].append(number)

    def nearest(self, shingles: Shingles) -> Nearest:
        """Of the `MAX_COMPARED` that share most."""
        shared: dict[int, float] = defaultdict(float)
        for place in self._places_of(shingles):
            for one in self._places.get(place, ()):
                shared[one] += 1 / self._crowds[place]
        likely = sorted(sorted(shared, key=lambda one: (-shared[one], one))[:MAX_COMPARED])
        if not likely:
            return None, 0.0
        similarities = self._similarities(shingles, likely)
        best = int(similarities.argmax())
        return likely[best], float(similarities[best])

    def _similarities(self, shingles: Shingles, others: Sequence[int]) -> NDArray[np.float64]:
        theirs = [self._theirs[one] for one in others]
        sizes = np.array([len(one) for one in theirs])
        together = np.concatenate(theirs)
        there = shingles[np.minimum(np.searchsorted(shingles, together), len(shingles) - 1)] == together
        common = np.add.reduceat(there.astype(np.int64), np.concatenate([[0], np.cumsum(sizes)[:-1]]))
        similarities: NDArray[np.float64] = common / (sizes + len(shingles) - common)
        return similarities

    def _places_of(self, shingles: Shingles) -> list[bytes | int]:
        return [*self._signature(shingles), *self._rarest(shingles)]

    def _rarest(self, shingles: Shingles) -> list[int]:
        """Of the shingles that are indexed those which the fewest texts have."""
        at = _places(shingles, self._known)
        rarest: list[int] = self._known[at][
            np.argsort(self._counts[at], kind="stable")[:RARE_SHINGLES]
        ].tolist()
        return rarest

    def _signature(self, shingles: Shingles) -> list[bytes]:
        # Multiply-add-shift (Dietzfelbinger 1996): wraps at 2^64 and needs no division.
        hashes = (self._a * shingles + self._b) >> np.uint64(32)
        least = hashes.min(axis=1).reshape(BANDS, ROWS)
        return [bytes([band]) + row.tobytes() for band, row in enumerate(least)]
