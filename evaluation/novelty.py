"""How new a request is: what the nearest known request leaves unexplained."""

from collections.abc import Callable, Sequence

import numpy as np

from agent.trace import Trace
from evaluation.cases import case_text


def novelty(known: Sequence[str]) -> Callable[[Trace], float]:
    """From a trace to 1 − its largest character n-gram cosine to `known`, in [0, 1]; 0 if none are known."""
    if not known:
        return lambda _: 0.0
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True)
    vectors = vectorizer.fit_transform(known)

    def newness(trace: Trace) -> float:
        nearest = np.asarray(
            (vectors @ vectorizer.transform([case_text(trace.case)]).T).max(axis=0).todense()
        )
        return float(np.clip(1 - nearest.item(), 0, 1))

    return newness
