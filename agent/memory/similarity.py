"""Lexical similarity of short texts, by their words and by character n-grams, which survive typos and snake_case.

Why no fitted vocabulary for option matching: the weight of an n-gram comes from the options at hand alone, so
the score of a request depends on nothing but the request, and needs no state that could go stale.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

GRAMS: dict[str, Any] = {"analyzer": "char_wb", "ngram_range": (3, 5)}
"""The n-grams by which texts are alike, for scikit-learn's vectorizers: of three to five letters, within words."""


class CharacterIndex:
    """Texts by their n-grams, the rarer the heavier (tf-idf): how alike other texts are."""

    def __init__(self, texts: Sequence[str]) -> None:
        """Learn from the texts what is rare."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._n = len(texts)
        self._vectorizer = TfidfVectorizer(**GRAMS, sublinear_tf=True)
        # scikit-learn refuses a vocabulary of nothing
        self._vectors = self._vectorizer.fit_transform(texts) if any(map(str.strip, texts)) else None

    def similarity(self, texts: Sequence[str]) -> np.ndarray:
        """Cosine of each indexed text to each of `texts`: float64 [n_indexed, n_texts] in [0, 1]."""
        if self._vectors is None:
            return np.zeros((self._n, len(texts)))
        found: np.ndarray = (self._vectors @ self._vectorizer.transform(texts).T).toarray()
        return found


def leaning(count: float, others: float, count_there: float, others_there: float) -> float:
    """Standard deviations by which a word leans to here rather than there, by its log-odds.

    Monroe, Colaresi & Quinn, Fightin' Words (2008), eq. 16 and 22: a word that both share counts for nothing, a rare
    one for little.

    Args:
        count: how often the word stands here, its informative Dirichlet prior added.
        others: how often the other words do, with theirs.
        count_there: the same there.
        others_there: the same there.
    """
    odds = np.log(count / others) - np.log(count_there / others_there)
    return float(odds / np.sqrt(1 / count + 1 / count_there))


def words_of(name: str) -> str:
    """`getUser_profile.v2` as words: `get User profile v`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", re.sub(r"[\W_\d]+", " ", name)).strip()


def option_similarity(request: str, options: Sequence[str]) -> np.ndarray:
    """Cosine of the request and each option's text in [0, 1]: float64 [n_options].

    N-grams that all options share weigh less (inverse document frequency over the options).
    """
    if not options:
        return np.zeros(0)
    counts = _hasher().transform([request, *options])
    present = np.asarray((counts[1:] > 0).sum(axis=0)).ravel()
    idf = np.log((1 + len(options)) / (1 + present)) + 1
    weighted = counts.multiply(idf).tocsr()
    norms = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
    dots = (weighted[1:] @ weighted[0].T).toarray().ravel()
    scale = norms[0] * norms[1:]
    result: np.ndarray = np.divide(dots, scale, out=np.zeros_like(dots), where=scale > 0)
    return result


def _hasher() -> Any:
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(**GRAMS, n_features=2**18, alternate_sign=False, norm=None)
