"""The judge for when there is no endpoint: a logistic regression on what an answer looks like beside its request.

Why these features: words and letters of the answer, each word of a request with a short answer (which request has
which answer), how near the request lies to ones whose right answer is this or another, and how much of the request
comes back in the answer. The neighbours of what it learns from exclude the case itself, else it would look up what
it is asked. Margins are calibrated on folds that did not see them.
"""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Final

import numpy as np
from scipy.sparse import csr_matrix, hstack

from ratchet.agent.case import Case
from ratchet.agent.errors import BadInput
from ratchet.agent.memory.similarity import GRAMS
from ratchet.agent.record import Json
from ratchet.evaluation.data.arrays import Floats, pack, unpack
from ratchet.evaluation.data.labels import BRIEF
from ratchet.evaluation.data.scorers import plain
from ratchet.evaluation.judge.document import JudgeDocument, even_odds
from ratchet.evaluation.judge.graded import Graded, lessons
from ratchet.evaluation.judge.judge import by_grade, request_and_answer

_SURFACE: Final = 2**10
_CROSSED: Final = 2**12
_NEAR: Final = 2**12
_READ: Final = 2000
"""Characters of a text that it looks at."""
_REMEMBERED: Final = 2000
"""Right answers that it keeps, the newest."""
_FOLDS: Final = 5
_DENSE_WEIGHT: Final = 3.0
"""Of the few dense features against thousands of sparse ones, which the same penalty shrinks."""


class Classifier:
    """A judge that needs neither endpoint nor model."""

    def __init__(self, document: JudgeDocument) -> None:
        self.document = document
        content = document.content
        self._weights = unpack(content["weights"])
        self._offset, self._even = float(content["offset"]), content["even"]
        self._known = _Known([(str(q), str(a)) for q, a in content["known"]])

    @cached_property
    def judge_id(self) -> str:
        """Content hash."""
        return self.document.judge_id

    def grade(self, case: Case, answer: Json) -> float:
        """P(right) at even odds."""
        pair = request_and_answer(case, answer)
        features = _features([pair], self._known, [None])
        margin = float((features @ self._weights)[0]) + self._offset
        slope, offset = self._even
        return 1 / (1 + math.exp(-max(min(slope * margin + offset, 700.0), -700.0)))

    def prefer(self, case: Case, left: Json, right: Json) -> float:
        """By its grades."""
        return by_grade(self, case, left, right)


def made_classifier(graded: Sequence[Graded], *, rubric: str, rubric_version: str) -> JudgeDocument:
    """Learn from what people graded.

    Raises:
        BadInput: they called none right, or none wrong.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    taught = lessons(graded)
    right = np.array([one.is_right for one in taught])
    least = min(int(right.sum()), int((~right).sum()))
    if least < 2:
        raise BadInput(
            f"{int(right.sum())} of {len(right)} answers are right: two of each kind are needed to learn a judge; "
            "label more answers"
        )
    pairs = [request_and_answer(one.case, one.answer) for one in taught]
    kept = [i for i in range(len(taught)) if right[i]][-_REMEMBERED:]
    known = _Known([pairs[i] for i in kept], [taught[i].case.case_id for i in kept])
    features = _features(pairs, known, [one.case.case_id for one in taught])
    model = LogisticRegression(max_iter=2000)
    folds = StratifiedKFold(min(_FOLDS, least), shuffle=True, random_state=0)
    margins = cross_val_predict(model, features, right, cv=folds, method="decision_function")
    model.fit(features, right)
    return JudgeDocument(
        kind="classifier",
        rubric=rubric,
        rubric_version=rubric_version,
        n_labels=len(graded),
        content={
            "weights": pack(model.coef_[0].astype(np.float32)),
            "offset": float(model.intercept_[0]),
            "even": list(even_odds(margins.tolist(), taught)),
            "known": [list(pair) for pair in known.pairs],
        },
    )


class _Known:
    """Right answers, and how near a request lies to theirs."""

    def __init__(self, pairs: Sequence[tuple[str, str]], case_ids: Sequence[str] = ()) -> None:
        self.pairs, self.case_ids = list(pairs), np.array(case_ids)
        self._requests = _grams([q for q, _ in pairs])
        self._answers = _grams([a for _, a in pairs])
        self._plain = np.array([plain(a) for _, a in pairs], dtype=object)

    def near(self, request: str, answer: str, but: str | None) -> list[float]:
        """Nearness of requests with this right answer, with another one, and how often the nearest five have it."""
        if not self.pairs:
            return [0.0, 0.0, 0.0]
        near: Floats = np.asarray((self._requests @ _grams([request]).T).todense()).ravel()
        alike: Floats = np.asarray((self._answers @ _grams([answer]).T).todense()).ravel()
        alike = np.where(self._plain == plain(answer), 1.0, alike * _brief(answer))
        if but is not None and len(self.case_ids):
            near = np.where(self.case_ids == but, 0.0, near)
        top = np.argsort(-near, kind="stable")[:5]
        among = float((near[top] * alike[top]).sum() / max(near[top].sum(), 1e-9))
        return [float((near * alike).max()), float((near * (1 - alike)).max()), among]


def _brief(answer: str) -> float:
    """Two short answers are the same or not; long ones may say the same in part."""
    return float(len(answer.split()) > BRIEF)


def _features(pairs: Sequence[tuple[str, str]], known: _Known, buts: Sequence[str | None]) -> Any:
    dense = np.array(
        [
            [*known.near(q, a, but), *_overlap(q, a), math.log1p(len(a)) / 10]
            for (q, a), but in zip(pairs, buts, strict=True)
        ]
    )
    return hstack(
        [
            _hashed([a for _, a in pairs], _SURFACE, analyzer="word", ngram_range=(1, 2)),
            _hashed([_crossed(q, a) for q, a in pairs], _CROSSED, analyzer=str.split),
            csr_matrix(dense * _DENSE_WEIGHT),
        ]
    ).tocsr()


def _overlap(request: str, answer: str) -> tuple[float, float]:
    asked, said = (set(plain(text[:_READ]).split()) for text in (request, answer))
    both = len(asked & said)
    return both / max(len(asked), 1), both / max(len(said), 1)


def _crossed(request: str, answer: str) -> str:
    """Each word of the request with the whole of a short answer; of a long one nothing."""
    said = "_".join(plain(answer).split())
    if len(answer.split()) > BRIEF:
        return ""
    return " ".join(f"{word}|{said}" for word in dict.fromkeys(plain(request[:_READ]).split()))


def _grams(texts: Sequence[str]) -> Any:
    return _hashed(texts, _NEAR, **GRAMS)


def _hashed(texts: Sequence[str], buckets: int, **how: Any) -> Any:
    from sklearn.feature_extraction.text import HashingVectorizer

    if not texts:
        return csr_matrix((0, buckets))
    made = HashingVectorizer(n_features=buckets, alternate_sign=False, norm="l2", **how)
    return made.transform([text[:_READ] for text in texts])
