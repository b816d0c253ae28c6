"""Did a proposer see this case? By content hash, and by text that is nearly the same.

Near-duplicates by MinHash with banding (Broder 1997; Leskovec et al., "Mining of Massive Datasets", ch. 3):
shingles of five characters, 128 hashes, 32 bands of 4. Candidates are checked with the exact Jaccard
similarity, so nothing below the threshold is reported; a pair at 0.8 escapes the bands with probability
(1 − 0.8⁴)³² ≈ 5e-8, at 0.6 with 1 %. Thousands against thousands take seconds.

Texts from one template share most bands, so a band takes in 64 texts and no more, and of those that share a place
only the 64 that share most are compared. Their rarest shingles tell them apart: each text is also found by these.
The same text is always found, by itself. Missed is a pair whose bands are all a template's and whose rare shingles
all differ, unless 64 others are as near; where several texts are near, it may not be the nearest that is named.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from agent.errors import BadInput
from evaluation.pairs import Pair

SHINGLE: Final = 5
BANDS: Final = 32
ROWS: Final = 4
NEAR: Final = 0.8
"""Jaccard similarity of shingles from which two texts are the same case."""
CROWD: Final = 64
"""Texts in one band, and texts compared exactly with one."""
RAREST: Final = 16
"""Shingles by which a text is found besides."""


class Overlap(BaseModel):
    """A gate case that a proposer saw."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    case_id: str
    seen_id: str
    kind: Literal["same id", "same text", "near text"]
    similarity: float
    """Jaccard similarity of the texts' shingles, 1 for the same."""


def find_overlap(
    cases: Mapping[str, str | None], seen: Mapping[str, str | None], *, near: float = NEAR
) -> list[Overlap]:
    """Cases, id → text, that are in `seen`, id → text, in the order of `cases`; None = text not known.

    One overlap a case: the same id first, then the same text (case and spacing aside), then the nearest text.
    """
    by_text = {_normal(text): name for name, text in seen.items() if text and _normal(text)}
    index = _Index({name: text for text, name in by_text.items()})
    found = (_overlap(case, text, seen, by_text, index, near) for case, text in cases.items())
    return [overlap for overlap in found if overlap is not None]


def refuse_overlap(cases: Mapping[str, str | None], seen: Mapping[str, str | None]) -> None:
    """Raise BadInput when any gate case was seen by a proposer."""
    found = find_overlap(cases, seen)
    if found:
        first = found[0]
        raise BadInput(
            f"{len(found)} of {len(cases)} gate cases were seen by the proposer (first: {first.case_id!r}, "
            f"{first.kind} as {first.seen_id!r}); draw fresh cases or drop these"
        )


def refuse_contaminated(pairs: Iterable[Pair], seen: Iterable[str]) -> Iterator[Pair]:
    """Pass the pairs through; BadInput at the first whose case id a proposer saw."""
    known = frozenset(seen)
    for pair in pairs:
        if pair.case_id in known:
            raise BadInput(
                f"case {pair.case_id!r} was seen by the proposer; draw fresh cases or drop this one"
            )
        yield pair


def _overlap(
    case: str,
    text: str | None,
    seen: Mapping[str, str | None],
    by_text: Mapping[str, str],
    index: "_Index",
    near: float,
) -> Overlap | None:
    if case in seen:
        return Overlap(case_id=case, seen_id=case, kind="same id", similarity=1.0)
    normal = _normal(text or "")
    if not normal:
        return None
    if normal in by_text:
        return Overlap(case_id=case, seen_id=by_text[normal], kind="same text", similarity=1.0)
    name, similarity = index.nearest(normal)
    if name is None or similarity < near:
        return None
    return Overlap(case_id=case, seen_id=name, kind="near text", similarity=similarity)


class _Index:
    """Texts by the bands of their MinHash signatures and by their rarest shingles."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        rng = np.random.default_rng(20260101)
        self._a = rng.integers(0, 1 << 63, size=(BANDS * ROWS, 1), dtype=np.uint64) * np.uint64(
            2
        ) + np.uint64(1)
        self._b = rng.integers(0, 1 << 63, size=(BANDS * ROWS, 1), dtype=np.uint64)
        self._names = list(texts)
        self._shingles = [_shingles(text) for text in texts.values()]
        everything = np.concatenate(self._shingles) if texts else np.zeros(0, np.uint64)
        self._known, self._counts = np.unique(everything, return_counts=True)
        self._places: dict[bytes | int, list[int]] = defaultdict(list)
        self._crowds: Counter[bytes | int] = Counter()
        for number, shingles in enumerate(self._shingles):
            for place in self._places_of(shingles):
                self._crowds[place] += 1
                if self._crowds[place] <= CROWD:
                    self._places[place].append(number)

    def nearest(self, text: str) -> tuple[str | None, float]:
        """The most similar indexed text, exactly, of the `CROWD` that share most; what few share counts more."""
        if not self._names:
            return None, 0.0
        shingles = _shingles(text)
        shared: dict[int, float] = defaultdict(float)
        for place in self._places_of(shingles):
            for one in self._places.get(place, ()):
                shared[one] += 1 / self._crowds[place]
        likely = sorted(shared, key=lambda one: (-shared[one], self._names[one]))[:CROWD]
        best: tuple[str | None, float] = (None, 0.0)
        for one, similarity in zip(likely, self._similarities(shingles, likely), strict=True):
            if similarity > best[1] or (similarity == best[1] and self._names[one] < str(best[0])):
                best = (self._names[one], similarity)
        return best

    def _places_of(self, shingles: NDArray[np.uint64]) -> list[bytes | int]:
        return [*self._signature(shingles), *self._rarest(shingles)]

    def _rarest(self, shingles: NDArray[np.uint64]) -> list[int]:
        """Of the shingles that are indexed those which the fewest texts have."""
        at = np.minimum(np.searchsorted(self._known, shingles), len(self._known) - 1)
        there = self._known[at] == shingles
        order = np.argsort(self._counts[at[there]], kind="stable")[:RAREST]
        rarest: list[int] = shingles[there][order].tolist()
        return rarest

    def _similarities(self, shingles: NDArray[np.uint64], others: Sequence[int]) -> list[float]:
        """Exact Jaccard similarities, all at once."""
        if not others:
            return []
        theirs = [self._shingles[one] for one in others]
        sizes = np.array([len(one) for one in theirs])
        together = np.concatenate(theirs)
        there = shingles[np.minimum(np.searchsorted(shingles, together), len(shingles) - 1)] == together
        common = np.add.reduceat(there.astype(np.int64), np.concatenate([[0], np.cumsum(sizes)[:-1]]))
        similarities: list[float] = (common / (sizes + len(shingles) - common)).tolist()
        return similarities

    def _signature(self, shingles: NDArray[np.uint64]) -> list[bytes]:
        # Multiply-add-shift (Dietzfelbinger 1996): wraps at 2^64 and needs no division.
        hashes = (self._a * shingles + self._b) >> np.uint64(32)
        least = hashes.min(axis=1).reshape(BANDS, ROWS)
        return [bytes([band]) + row.tobytes() for band, row in enumerate(least)]


def _shingles(text: str) -> NDArray[np.uint64]:
    """Distinct 32-bit hashes of all substrings of five characters (of the text itself if shorter)."""
    starts = range(max(len(text) - SHINGLE + 1, 1))
    return np.unique(np.array([crc32(text[i : i + SHINGLE].encode()) for i in starts], dtype=np.uint64))


def _normal(text: str) -> str:
    """Lower case, words and digits only, single spaces."""
    return re.sub(r"\W+", " ", text.casefold()).strip()
