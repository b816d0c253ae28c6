"""What do people ask now that they did not ask before? Groups of strange messages, named in their words."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from evaluation.conformal import Floats, Ints
from evaluation.embedding import unit_rows

Vectors = NDArray[np.float32]

_GROUPS: Final = 3
_MAX_CENTRES: Final = 400
_SMALLEST: Final = 4
_LARGEST: Final = 40
_LEAST_ALIKE: Final = 0.05
"""Cosine below which messages have nothing in common."""
_SURROUNDINGS: Final = 0.6
"""Share of a group's own similarity within which nothing else is named: it would be another wording of the same."""
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


def risen_groups(vectors: Vectors, usual: Vectors, strangeness: Floats) -> list[Ints]:
    """Rows of at most three groups of like messages that came far more often than usual, the clearest first.

    A scan statistic (Kulldorff, *A spatial scan statistic*, 1997): around each message, and for each number of its
    nearest new messages, the Poisson likelihood ratio of that many against what the usual messages in the same
    reach let one expect. The best ball is a group; it and its surroundings are set aside, and the scan repeated. A
    further group must be so clear that chance would give less than one among the messages tried.

    Args:
        vectors: new messages (n, dimensions), of length one.
        usual: messages from before (m, dimensions).
        strangeness: (n,); balls are tried around the 400 strangest.
    """
    middle = usual.mean(axis=0)
    here, there = unit_rows(vectors - middle), unit_rows(usual - middle)
    alike = here @ here.T
    known = np.sort(here @ there.T, axis=1)
    ratio = len(here) / max(len(there), 1)
    centres = np.argsort(-strangeness, kind="stable")[:_MAX_CENTRES]
    left = np.ones(len(here), dtype=bool)
    groups: list[Ints] = []
    while len(groups) < _GROUPS:
        found = [(*_best_ball(alike[i][left], known[i], ratio), int(i)) for i in centres if left[i]]
        if not found:
            break
        clear, reach, i = max(found)
        if clear <= 0.0 or (groups and clear < np.log(len(found))):
            break
        group = np.flatnonzero(left & (alike[i] >= reach))
        groups.append(group)
        centre, at_least, _ = central(here[group])
        left &= here @ centre < _SURROUNDINGS * at_least
        left[group] = False
    return groups


def _best_ball(near: Vectors, known: Vectors, ratio: float) -> tuple[float, float]:
    """The clearest number of neighbours as log-likelihood ratio (0 = none rose), and the cosine that it reaches.

    `near` are cosines to the new messages, `known` those to the usual ones in rising order.
    """
    reach = -np.sort(-near)[:_LARGEST]
    count = np.arange(1, len(reach) + 1)
    expected = (len(known) - np.searchsorted(known, reach, side="left") + 0.5) * ratio
    rose = (count >= _SMALLEST) & (reach > _LEAST_ALIKE) & (count > expected)
    clear = np.where(rose, count * np.log(count / expected) - (count - expected), 0.0)
    best = int(clear.argmax()) if len(clear) else 0
    return (float(clear[best]), float(reach[best])) if len(clear) else (0.0, 1.0)


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
