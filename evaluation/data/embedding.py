"""Where a message lies: a vector for each text. The default needs no model, no hub and no download.

Character n-grams and words are hashed, weighted by their rarity in the reference, and folded into a few
hundred dimensions by a fixed random sign (Weinberger et al., *Feature Hashing*, 2009). It sees wording, not
meaning; any callable from texts to vectors takes its place.
"""

import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ratchet.agent.memory.similarity import GRAMS
from ratchet.evaluation.data.arrays import pack, unpack

HASHING: Final = "hashing"
"""Name of the default."""
_BUCKETS: Final = 2**18
_MAX_CHARACTERS: Final = 2_000


_HEXADECIMAL: Final = re.compile(r"\b(?=[a-f]*\d)[0-9a-f]{4,}\b", re.IGNORECASE)
_DIGITS: Final = re.compile(r"\d+")


def without_numbers(text: str) -> str:
    """The text with every number and hexadecimal id as one digit: which order it is does not tell what is asked.

    Running numbers are new in every message; counted as content, a file would be drift against itself.
    """
    return _DIGITS.sub("0", _HEXADECIMAL.sub("0", text))


class HashingEmbedding:
    """Rarity-weighted character and word n-grams, folded to `dimensions` and scaled to length one."""

    def __init__(self, rarity: NDArray[np.float32], *, dimensions: int = 512) -> None:
        from sklearn.feature_extraction.text import HashingVectorizer

        self.rarity = rarity
        self.dimensions = dimensions
        shape: dict[str, Any] = {"n_features": _BUCKETS, "alternate_sign": False, "norm": None}
        self._letters = HashingVectorizer(**GRAMS, binary=True, **shape)
        self._words = HashingVectorizer(analyzer="word", ngram_range=(1, 2), binary=True, **shape)
        folding = np.random.default_rng(20_091)
        self._fold = folding.integers(0, dimensions, _BUCKETS)
        self._sign = folding.choice(np.array([-1.0, 1.0], dtype=np.float32), _BUCKETS)

    @classmethod
    def fit(cls, texts: Sequence[str], *, dimensions: int = 512) -> "HashingEmbedding":
        """Learn from `texts` how rare each n-gram is; an n-gram never seen weighs most."""
        blank = cls(np.ones(_BUCKETS, dtype=np.float32), dimensions=dimensions)
        seen = np.asarray((blank._grams(texts) > 0).sum(axis=0)).ravel()
        return cls(np.log((1.0 + len(texts)) / (1.0 + seen)).astype(np.float32) + 1.0, dimensions=dimensions)

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors (n, dimensions) of length one; zero for an empty text."""
        grams = self._grams(texts)
        values = (grams.data * self.rarity[grams.indices] * self._sign[grams.indices]).astype(np.float32)
        folded = csr_matrix(
            (values, self._fold[grams.indices], grams.indptr), shape=(len(texts), self.dimensions)
        )
        dense = np.asarray(folded.toarray(), dtype=np.float32)
        return unit_rows(dense)

    def _grams(self, texts: Sequence[str]) -> Any:
        clipped = [text[:_MAX_CHARACTERS] for text in texts]
        return (self._letters.transform(clipped) + self._words.transform(clipped)).tocsr()

    def to_state(self) -> dict[str, Any]:
        """JSON object from which `from_state` builds the same embedding."""
        return {"dimensions": self.dimensions, "rarity": pack(self.rarity)}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "HashingEmbedding":
        """The embedding that `to_state` stored."""
        return cls(unpack(state["rarity"]), dimensions=state["dimensions"])


def unit_rows(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Rows scaled to length one; a zero row stays zero."""
    dense = np.asarray(vectors, dtype=np.float32)
    lengths = np.linalg.norm(dense, axis=1, keepdims=True)
    return np.asarray(dense / np.where(lengths > 0, lengths, 1.0), dtype=np.float32)


_SURFACE: Final = 6


def surface_features(texts: Sequence[str]) -> NDArray[np.float64]:
    """How the texts look, (n, 6).

    Log length, words per character, and shares of non-letters, capitals, punctuation and non-ASCII.
    """
    rows = np.zeros((len(texts), _SURFACE))
    for row, text in zip(rows, texts, strict=True):
        n = max(len(text), 1)
        letters = sum(map(str.isalpha, text))
        spaces = sum(map(str.isspace, text))
        digits = sum(map(str.isdigit, text))
        row[0] = np.log1p(len(text))
        row[1] = len(text.split()) / n
        row[2] = (n - letters - spaces) / n
        row[3] = sum(map(str.isupper, text)) / max(letters, 1)
        row[4] = (n - letters - spaces - digits) / n
        row[5] = 0.0 if text.isascii() else sum(character > "\x7f" for character in text) / n
    return rows
