"""What do people ask now that they did not ask before? Groups of strange messages, named in their words."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from evaluation.conformal import Floats, Ints

Vectors = NDArray[np.float32]

_MAX_STRANGE: Final = 400
_DIRECTIONS: Final = 8
_EXAMPLES: Final = 3
_WORDS: Final = 4
_KNOWN_RANK: Final = 0.4
"""Median novelty rank above which a cluster is known: new requests lie well below, usual ones at 0.5."""
_RISEN: Final = 1.28
"""Standard errors by which novelty must have risen for something new to have been asked (one in ten)."""
_WORD: Final = re.compile(r"[^\W\d_]{2,}")
_STOP: Final = frozenset(
    _WORD.findall(
        "the and for that with this are was have has had you your from they them not but can could would "
        "will what when where why how who which did does do is it its my me we our to of in on at an be "
        "been if or as so by am there their than then any some just also about please into out up get got"
    )
)


def strange_groups(
    vectors: Vectors, strangeness: Floats, *, share: float = 0.2, reach: float = 0.5
) -> list[Ints]:
    """Rows of each group among the strangest `share` of the messages, largest first.

    Average linkage on the cosine in the few directions in which strange messages differ most, which brings
    different wordings of one request together; `reach` is the cut, in median distances.
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import pdist

    keep = int(np.clip(share * len(vectors), min(len(vectors), 12), _MAX_STRANGE))
    strange = np.sort(np.argsort(-strangeness, kind="stable")[:keep])
    if len(strange) < 2 * _DIRECTIONS:
        return [strange]
    centred = vectors[strange].astype(np.float64) - vectors.mean(axis=0)
    left, scale, _ = np.linalg.svd(centred, full_matrices=False)
    # A message at the very centre has no direction; the smallest nudge keeps its cosine defined.
    places = left[:, :_DIRECTIONS] * scale[:_DIRECTIONS] + 1e-12
    distances = np.maximum(pdist(places, metric="cosine"), 0.0)
    cut = max(reach * float(np.median(distances)), 1e-9)
    labels = fcluster(linkage(distances, method="average"), cut, "distance")
    groups = [strange[labels == label] for label in np.unique(labels)]
    return sorted((group for group in groups if len(group) >= 3), key=len, reverse=True)


def near_share(centre: Vectors, vectors: Vectors, at_least: float) -> float:
    """Share of the vectors at least so similar to the centre."""
    return float((vectors @ centre >= at_least).mean()) if len(vectors) else 0.0


def central(vectors: Vectors) -> tuple[Vectors, float, Ints]:
    """Unit centre, the similarity that the inner three quarters have to it, and rows from the centre out."""
    centre = vectors.mean(axis=0)
    centre = centre / max(float(np.linalg.norm(centre)), 1e-12)
    near = vectors @ centre
    return centre, float(np.quantile(near, 0.25)), np.argsort(-near, kind="stable")


def telling_words(texts: Sequence[str], usual: Sequence[str]) -> str:
    """The few words that set `texts` apart from `usual`, by the log-odds of containing them.

    Informative Dirichlet prior as in Monroe, Colaresi & Quinn, *Fightin' Words* (2008).
    """
    here, there = _contains(texts), _contains(usual)
    scores = {}
    for word, count in here.items():
        if count < min(2, len(texts)):
            continue
        elsewhere = there[word]
        prior = 0.5 + elsewhere / max(len(usual), 1) * 5.0
        odds = np.log((count + prior) / (len(texts) - count + 5.5)) - np.log(
            (elsewhere + prior) / (len(usual) - elsewhere + 5.5)
        )
        scores[word] = odds / np.sqrt(1.0 / (count + prior) + 1.0 / (elsewhere + prior))
    best = sorted(scores, key=lambda word: (-scores[word], word))[:_WORDS]
    return " ".join(best) if best else texts[0][:40]


def _contains(texts: Sequence[str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update({word for word in _WORD.findall(text.lower()) if word not in _STOP})
    return counts


def is_known(novelty: Floats) -> bool:
    """Whether messages with these novelty ranks are like the reference: a surge rather than something new."""
    return bool(len(novelty) and np.median(novelty) > _KNOWN_RANK)


def is_surge(novelty: Floats, weights: Floats) -> bool:
    """Whether messages with these novelty ranks, as a whole, are no more novel than the reference was.

    −log p has mean and standard deviation one where nothing is new; a session counts as one message.
    """
    n = max(float(weights.sum()), 1.0)
    mean = float(weights @ -np.log(np.clip(novelty, 1e-6, 1.0))) / n
    return bool((mean - 1.0) * np.sqrt(n) < _RISEN)


def examples(texts: Sequence[str], order: Ints) -> tuple[str, ...]:
    """A few different texts, the most central first."""
    return tuple(dict.fromkeys(texts[i] for i in order))[:_EXAMPLES]
