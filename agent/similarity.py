"""Lexical similarity of short texts: character n-grams, which survive typos, plurals and snake_case.

Why no fitted vocabulary for option matching: the weight of an n-gram comes from the options at hand alone, so
the score of a request depends on nothing but the request, and needs no state that could go stale.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np


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

    return HashingVectorizer(
        analyzer="char_wb", ngram_range=(3, 5), n_features=2**18, alternate_sign=False, norm=None
    )
