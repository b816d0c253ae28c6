"""Scores learned anew in each window from the last ten, so that weak but steady drift adds up.

The score is fixed before the window it ranks, and is ranked against messages it did not learn from: the
calibration half and the traffic before the last ten windows. Ranks are uniform, but no longer independent of
one another, so the false-alarm rate holds by measurement rather than by proof (see `tests/bench`).
"""

from collections import deque
from typing import Any, Final

import numpy as np
from typing_extensions import override

from evaluation.conformal import Floats, pool_p_values, session_weights
from evaluation.drift_scores import Family, Ranked, Vectors, View
from evaluation.observation import Group, category_column
from evaluation.packing import pack, unpack

RECENT_WINDOWS: Final = 10
_POOL_LIMIT: Final = 2_000
_RIDGE: Final = 1.0
_SURFACE_SHARE: Final = 2.0
_MAX_CATEGORIES: Final = 500
_MIN_VALUES: Final = 10
_PRIOR: Final = 20.0
UNSEEN: Final = "(never seen before)"
RARE: Final = "(rare)"


class Discriminant(Family):
    """Fisher's direction from the fitting half to the last ten windows, in vectors and surface together."""

    kind = "discriminant"

    def __init__(self, arrays: dict[str, Any]) -> None:
        super().__init__("discriminant", "input", ("discriminant",))
        self.arrays = arrays
        self.recent: deque[tuple[Floats, float]] = deque(maxlen=RECENT_WINDOWS)
        self.waiting: deque[tuple[Vectors, Floats]] = deque()

    @classmethod
    def fit(cls, view: View) -> "Discriminant":
        """Learn scale and spread from the fitting half; the pool of messages to rank against is empty."""
        known = view.texts
        surface = view.surface[known]
        arrays: dict[str, Any] = {"centre": surface.mean(axis=0), "scale": surface.std(axis=0) + 1e-3}
        features = _features(view.vectors[known], surface, arrays)
        centred = features - features.mean(axis=0)
        spread = centred.T @ centred / max(len(features), 1)
        ridge = _RIDGE * np.trace(spread) / len(spread)
        arrays["mean"] = features.mean(axis=0)
        arrays["precision"] = np.linalg.inv(spread + ridge * np.eye(len(spread))).astype(np.float32)
        arrays["pool"] = np.zeros((0, features.shape[1]), dtype=np.float16)
        arrays["pool_weights"] = np.zeros(0)
        return cls(arrays)

    @override
    def rank(self, view: View, random: np.random.Generator) -> dict[str, Ranked]:
        rows = view.texts
        direction = self._direction()
        if direction is None or not len(rows):
            return {}
        values = (self._features(view, rows).astype(np.float64)) @ direction
        pool = self.arrays["pool"].astype(np.float64) @ direction
        groups = view.groups[rows]
        p = pool_p_values(values, groups, pool, self.arrays["pool_weights"], random.random(len(rows)))
        return {"discriminant": Ranked(p, groups, rows)}

    @override
    def follow(self, view: View) -> None:
        rows = view.texts
        if len(rows):
            weights = session_weights(view.groups[rows])
            features = self._features(view, rows).astype(np.float64)
            self.recent.append((weights @ features, float(weights.sum())))

    @override
    def absorb(self, view: View) -> None:
        """Messages wait until they have left the last ten windows, then join the pool to rank against."""
        rows = view.texts
        if len(rows):
            self.waiting.append((self._features(view, rows), session_weights(view.groups[rows])))
        while len(self.waiting) > RECENT_WINDOWS:
            self.calibrate(*self.waiting.popleft())

    def calibrate(self, features: Vectors, weights: Floats) -> None:
        """Add messages to the pool to rank against; the oldest leave it beyond its limit."""
        self.arrays["pool"] = np.concatenate([self.arrays["pool"], features])[-_POOL_LIMIT:]
        self.arrays["pool_weights"] = np.concatenate([self.arrays["pool_weights"], weights])[-_POOL_LIMIT:]

    def calibrate_view(self, view: View) -> None:
        """Add a view's messages to the pool at once: for the calibration half."""
        rows = view.texts
        self.calibrate(self._features(view, rows), session_weights(view.groups[rows]))

    def _direction(self) -> Floats | None:
        total = sum(weight for _, weight in self.recent)
        if total < 1:
            return None
        mean = np.sum([sums for sums, _ in self.recent], axis=0) / total
        return np.asarray(self.arrays["precision"].astype(np.float64) @ (mean - self.arrays["mean"]))

    def _features(self, view: View, rows: Any) -> Vectors:
        return _features(view.vectors[rows], view.surface[rows], self.arrays).astype(np.float16)

    @override
    def to_state(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "arrays": {key: pack(value) for key, value in self.arrays.items()},
            "recent": [[pack(sums), weight] for sums, weight in self.recent],
            "waiting": [[pack(features), pack(weights)] for features, weights in self.waiting],
        }

    @classmethod
    @override
    def from_state(cls, state: dict[str, Any]) -> "Discriminant":
        family = cls({key: unpack(value) for key, value in state["arrays"].items()})
        family.recent.extend((unpack(sums), weight) for sums, weight in state["recent"])
        family.waiting.extend((unpack(features), unpack(weights)) for features, weights in state["waiting"])
        return family


def _features(vectors: Vectors, surface: Floats, arrays: dict[str, Any]) -> Vectors:
    looks = np.clip((surface - arrays["centre"]) / arrays["scale"], -4.0, 4.0)
    share = _SURFACE_SHARE / np.sqrt(vectors.shape[1])
    return np.hstack([vectors, (share * looks).astype(np.float32)])


class Category(Family):
    """A categorical column whose shares move: log of a category's recent share over its usual one."""

    kind = "category"

    def __init__(self, name: str, group: Group, usual: dict[str, float]) -> None:
        super().__init__(name, group, (name,))
        self.usual = usual
        self.past = dict.fromkeys(usual, 0.0)
        self.recent: deque[dict[str, float]] = deque(maxlen=RECENT_WINDOWS)
        self.waiting: deque[dict[str, float]] = deque()

    @classmethod
    def fit(cls, view: View, name: str, group: Group) -> "Category | None":
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
        return cls(name, group, {key: (count + 0.5) / total for key, count in usual.items()})

    @override
    def rank(self, view: View, random: np.random.Generator) -> dict[str, Ranked]:
        rows, keys = self._keys(view)
        if not len(rows) or not self.recent:
            return {}
        scores = self._scores()
        values = np.array([scores[key] for key in keys])
        pool = np.array([scores[key] for key in self.past])
        weights = np.array(list(self.past.values()))
        groups = view.groups[rows]
        p = pool_p_values(values, groups, pool, weights, random.random(len(rows)))
        return {self.name: Ranked(p, groups, rows)}

    @override
    def follow(self, view: View) -> None:
        counts = self._count(view)
        if counts:
            self.recent.append(counts)

    @override
    def absorb(self, view: View) -> None:
        counts = self._count(view)
        if counts:
            self.waiting.append(counts)
        while len(self.waiting) > RECENT_WINDOWS:
            self.calibrate(self.waiting.popleft())

    def calibrate(self, counts: dict[str, float]) -> None:
        """Count categories as past at once."""
        for key, weight in counts.items():
            self.past[key] += weight

    def calibrate_view(self, view: View) -> None:
        """Count the calibration half as past."""
        self.calibrate(self._count(view))

    def _scores(self) -> dict[str, float]:
        recent = dict.fromkeys(self.usual, 0.0)
        for window in self.recent:
            for key, weight in window.items():
                recent[key] += weight
        total = sum(recent.values()) + _PRIOR
        return {
            key: float(np.log((recent[key] + _PRIOR * share) / total / share))
            for key, share in self.usual.items()
        }

    def _keys(self, view: View) -> tuple[Any, list[str]]:
        values = category_column(view.rows, self.name)
        rows = [i for i, value in enumerate(values) if value is not None]
        return np.array(rows, dtype=np.int64), [
            str(values[i]) if values[i] in self.usual else UNSEEN for i in rows
        ]

    def _count(self, view: View) -> dict[str, float]:
        rows, keys = self._keys(view)
        counts: dict[str, float] = {}
        if len(rows):
            for key, weight in zip(keys, session_weights(view.groups[rows]), strict=True):
                counts[key] = counts.get(key, 0.0) + float(weight)
        return counts

    @override
    def to_state(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "name": self.name,
            "group": self.group,
            "usual": self.usual,
            "past": self.past,
            "recent": list(self.recent),
            "waiting": list(self.waiting),
        }

    @classmethod
    @override
    def from_state(cls, state: dict[str, Any]) -> "Category":
        family = cls(state["name"], state["group"], state["usual"])
        family.past = state["past"]
        family.recent.extend(state["recent"])
        family.waiting.extend(state["waiting"])
        return family
