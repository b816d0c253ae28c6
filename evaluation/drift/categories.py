"""A categorical column whose shares move: tools, routes, versions, whatever the agent chose.

The score is learned from the last windows, as in `drift_shift`; the past is counts, however long. Values
that the reference never had share one name, so that a column of free text cannot grow without bound.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
from typing_extensions import override

from ratchet.evaluation.data.arrays import Floats, Ints
from ratchet.evaluation.drift.conformal import (
    Shares,
    pool_p_values,
    stake_floor,
)
from ratchet.evaluation.drift.message import Group, category_column
from ratchet.evaluation.drift.scores import Detector, Ranked, WindowView
from ratchet.evaluation.drift.shift import RECENT_WINDOWS

_MAX_CATEGORIES: Final = 500
_MIN_VALUES: Final = 10
_PRIOR: Final = 20.0
UNSEEN: Final = "(never seen before)"
RARE: Final = "(rare)"


class CategoryDetector(Detector):
    """A categorical column whose shares move: log of a category's recent share over its usual one."""

    kind = "category"

    def __init__(self, name: str, group: Group, usual: dict[str, float]) -> None:
        super().__init__(name, group, (name,))
        self.usual = usual
        self.past = dict.fromkeys(usual, 0.0)
        self.recent: deque[dict[str, float]] = deque(maxlen=RECENT_WINDOWS)
        self.sessions: deque[dict[str, dict[str, float]]] = deque(maxlen=RECENT_WINDOWS)
        """Of each recent window, what each conversation added to it."""
        self.waiting: deque[dict[str, float]] = deque()

    @classmethod
    def fit(cls, view: WindowView, name: str, group: Group) -> "CategoryDetector | None":
        """None where the fitting half has fewer than ten values of the column."""
        values = [value for value in category_column(view.rows, name) if value is not None]
        if len(values) < _MIN_VALUES:
            return None
        names, counts = np.unique(values, return_counts=True)
        order = np.argsort(-counts, kind="stable")[:_MAX_CATEGORIES]
        usual = {str(names[i]): float(counts[i]) for i in order}
        usual[RARE] = float(counts.sum() - counts[order].sum())
        usual[UNSEEN] = 0.0
        total = sum(usual.values()) + 0.5 * len(usual)
        rows = np.array([i for i, value in enumerate(category_column(view.rows, name)) if value is not None])
        detector = cls(name, group, {key: (count + 0.5) / total for key, count in usual.items()})
        return detector._sized(view, rows)

    @override
    def rank(self, view: WindowView, random: np.random.Generator) -> dict[str, Ranked]:
        rows, keys = self._keys(view)
        if not len(rows) or not self.recent:
            return {}
        those, ties = self.shares(view, rows), random.random(len(rows))
        p = self._p_values(keys, those, ties, {})
        sessions = view.sessions[rows]
        for session in np.unique(sessions):
            # A conversation that goes on is like itself: what it taught before says nothing about its next message.
            taught = _sum(window.get(str(session), {}) for window in self.sessions)
            if taught:
                own = np.flatnonzero(sessions == session)
                p[own] = self._p_values([keys[i] for i in own], those.of(own), ties[own], taught)
        floor = stake_floor(sum(self.past.values()))
        return {self.name: Ranked(p, those.groups, self.size, rows, floor)}

    def _p_values(self, keys: list[str], those: Shares, ties: Floats, without: dict[str, float]) -> Floats:
        scores = self._scores(without)
        values = np.array([scores[key] for key in keys])
        pool = np.array([scores[key] for key in self.past])
        return pool_p_values(values, those, pool, np.array(list(self.past.values())), ties)

    @override
    def follow(self, view: WindowView) -> None:
        rows, keys = self._keys(view)
        if not len(rows):
            return
        self.recent.append(self._count(view))
        sessions: dict[str, dict[str, float]] = {}
        for i, key, weight in zip(rows, keys, self.shares(view, rows).weights, strict=True):
            if view.rows[i].session is not None:
                one = sessions.setdefault(str(view.sessions[i]), {})
                one[key] = one.get(key, 0.0) + float(weight)
        self.sessions.append(sessions)

    @override
    def absorb(self, view: WindowView) -> None:
        counts = self._count(view)
        if counts:
            self.waiting.append(counts)
        while len(self.waiting) > RECENT_WINDOWS:
            self._join(self.waiting.popleft())

    def _join(self, counts: dict[str, float]) -> None:
        for key, weight in counts.items():
            self.past[key] += weight

    def calibrate(self, view: WindowView) -> None:
        """Count the calibration half as past."""
        self._join(self._count(view))

    def _scores(self, without: dict[str, float]) -> dict[str, float]:
        recent = dict.fromkeys(self.usual, 0.0) | _sum(self.recent)
        for key, weight in without.items():
            recent[key] = max(recent[key] - weight, 0.0)
        total = sum(recent.values()) + _PRIOR
        return {
            key: float(np.log((recent[key] + _PRIOR * share) / total / share))
            for key, share in self.usual.items()
        }

    def _keys(self, view: WindowView) -> tuple[Ints, list[str]]:
        values = category_column(view.rows, self.name)
        rows = [i for i, value in enumerate(values) if value is not None]
        return np.array(rows, dtype=np.int64), [
            str(values[i]) if values[i] in self.usual else UNSEEN for i in rows
        ]

    def _count(self, view: WindowView) -> dict[str, float]:
        rows, keys = self._keys(view)
        counts: dict[str, float] = {}
        if len(rows):
            for key, weight in zip(keys, self.shares(view, rows).weights, strict=True):
                counts[key] = counts.get(key, 0.0) + float(weight)
        return counts

    @override
    def to_state(self) -> dict[str, Any]:
        return super().to_state() | {
            "usual": self.usual,
            "past": self.past,
            "recent": list(self.recent),
            "sessions": list(self.sessions),
            "waiting": list(self.waiting),
        }

    @classmethod
    @override
    def from_state(cls, state: dict[str, Any]) -> "CategoryDetector":
        detector = cls(state["name"], state["group"], state["usual"])
        detector.size, detector.past = state["size"], state["past"]
        detector.recent.extend(state["recent"])
        detector.sessions.extend(state["sessions"])
        detector.waiting.extend(state["waiting"])
        return detector


def _sum(windows: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for window in windows:
        for key, weight in window.items():
            total[key] = total.get(key, 0.0) + weight
    return total
