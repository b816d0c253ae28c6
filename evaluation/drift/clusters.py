"""What do people ask now that they did not ask before? Groups of strange messages, each named by one of them."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ratchet.agent.memory.similarity import leaning
from ratchet.evaluation.data.arrays import Floats, Ints
from ratchet.evaluation.data.embedding import unit_rows

_Vectors = NDArray[np.float32]

_GROUPS: Final = 3
_MAX_CENTRES: Final = 400
_SMALLEST: Final = 4
_LARGEST: Final = 40
_LEAST_ALIKE: Final = 0.05
"""Cosine below which messages have nothing in common."""
_SURROUNDINGS: Final = 0.6
"""Share of a group's own similarity within which nothing else is named: it would be another wording of the same."""
_EXAMPLES: Final = 3
_NAME_LENGTH: Final = 60
_NAME_PIECES: Final = 3
_GRAMS: Final = (2, 3, 4)
_KNOWN_RANK: Final = 0.4
"""Median novelty rank above which a cluster is known: new requests lie well below, usual ones at 0.5."""
_RISEN: Final = 1.28
"""Standard errors by which novelty must have risen for something new to have been asked (one in ten)."""
_WORD: Final = re.compile(r"[^\W\d_]{2,}")
_UNSPACED: Final = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+"
)
"""Thai, Lao, Burmese, Khmer, kana and Chinese characters: written without blanks between words."""
_STOP: Final = frozenset(
    _WORD.findall(
        "the and for that with this are was have has had you your from they them not but can could would "
        "will what when where why how who which did does do is it its my me we our to of in on at an be "
        "been if or as so by am there their than then any some just also about please into out up get got"
    )
)


def risen_groups(vectors: _Vectors, usual: _Vectors, strangeness: Floats) -> list[Ints]:
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


def _best_ball(near: _Vectors, known: _Vectors, ratio: float) -> tuple[float, float]:
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


def near_share(centre: _Vectors, vectors: _Vectors, at_least: float) -> float:
    """Share of the vectors at least so similar to the centre."""
    return float((vectors @ centre >= at_least).mean()) if len(vectors) else 0.0


def central(vectors: _Vectors) -> tuple[_Vectors, float, Ints]:
    """Unit centre, the similarity that the inner three quarters have to it, and rows from the centre out."""
    centre = vectors.mean(axis=0)
    centre = centre / max(float(np.linalg.norm(centre)), 1e-12)
    near = vectors @ centre
    return centre, float(np.quantile(near, 0.25)), np.argsort(-near, kind="stable")


def name_group(texts: Sequence[str], usual: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """A short name for a group of texts, and a few of them as examples.

    The name is the first text that has what sets the group apart, cut to what stands around it: torn out words do not
    tell what is asked. Where a script has no blanks, the recurring pieces themselves are words.

    Args:
        texts: those of the group, from its centre out.
        usual: texts from before.
    """
    telling = _telling(texts, usual)
    best = telling[0] if telling else ""
    ranked = sorted(dict.fromkeys(texts), key=lambda text: best not in _pieces(text))
    if best and _UNSPACED.search(best):
        return " ".join(_apart(telling)), tuple(ranked[:_EXAMPLES])
    return _excerpt(ranked[0], best), tuple(ranked[:_EXAMPLES])


def _telling(texts: Sequence[str], usual: Sequence[str]) -> list[str]:
    """Pieces that set `texts` apart from `usual`, the best first, by the log-odds of containing them."""
    here, there = _contains(texts), _contains(usual)
    scores = {}
    for word, count in here.items():
        if count < min(2, len(texts)):
            continue
        elsewhere = there[word]
        prior = 0.5 + elsewhere / max(len(usual), 1) * 5.0
        scores[word] = leaning(
            count + prior, len(texts) - count + 5.5, elsewhere + prior, len(usual) - elsewhere + 5.5
        )
    # Where pieces recur in the same texts, the one of the rarest letters is a word, and not the end of another.
    letters = Counter(letter for text in usual for letter in set(text.lower()))
    common = {word: sum(letters[letter] for letter in word) / len(word) for word in scores}
    return sorted(scores, key=lambda word: (-scores[word], common[word], len(word), word))


def _contains(texts: Sequence[str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(_pieces(text))
    return counts


def _pieces(text: str) -> set[str]:
    """Words of a text, and of what is written without blanks every two to four letters."""
    lowered = text.lower()
    words = {word for word in _WORD.findall(_UNSPACED.sub(" ", lowered)) if word not in _STOP}
    for run in _UNSPACED.findall(lowered):
        words.update(run[i : i + n] for n in _GRAMS for i in range(len(run) - n + 1))
    return words


def _apart(telling: Sequence[str]) -> list[str]:
    """The first few pieces that share no letter."""
    kept: list[str] = []
    for piece in telling:
        if _UNSPACED.search(piece) and not any(set(piece) & set(other) for other in kept):
            kept.append(piece)
        if len(kept) == _NAME_PIECES:
            break
    return kept


def _excerpt(text: str, word: str) -> str:
    """One line of at most `_NAME_LENGTH` characters, around the word where the whole is longer."""
    line = " ".join(text.split())
    if len(line) <= _NAME_LENGTH:
        return line
    found = max(line.lower().find(word), 0)
    start = 0 if found + len(word) < _NAME_LENGTH - 2 else found - _NAME_LENGTH // 3
    if start:
        start = line.find(" ", start, found) + 1 or found
    cut = line[start : start + _NAME_LENGTH - 2]
    if start + len(cut) < len(line):
        cut = cut.rsplit(" ", 1)[0] + "…"
    return f"…{cut}" if start else cut


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
