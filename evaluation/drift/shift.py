"""Scores learned anew in each window from the last ten, so that weak but steady drift adds up.

A score is fixed before the window it ranks, and ranks it against messages it never learned from: the
calibration half and the traffic before the last ten windows. Such ranks are uniform, but not independent from
window to window, so the false-alarm rate holds by measurement rather than by proof (see `tests/bench`). What
keeps it: no stake is so small that the sampling error of the pool could pay for it (`stake_floor`).
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from ratchet.evaluation.data.arrays import Floats, Ints, pack, unpack
from ratchet.evaluation.drift.conformal import (
    message_shares,
    pool_p_values,
    stake_floor,
)
from ratchet.evaluation.drift.scores import Detector, Ranked, Vectors, WindowView

Halves = NDArray[np.float16]
"""Half precision: what is kept for long takes half the room."""

RECENT_WINDOWS: Final = 10
DIRECTION: Final = "direction"
RECURRENCE: Final = "recurrence"
_POOL_LIMIT: Final = 2_000
_RECENT_ROWS: Final = 60
_NEIGHBOURS: Final = 3
_RIDGE: Final = 1.0
_LEAST_RIDGE: Final = 1e-6
"""Of a reference that says one thing only, which spreads in no direction."""
_SURFACE_SHARE: Final = 2.0


@dataclass
class _Pool:
    """Messages to rank against, with what each score needs to know of them."""

    features: Vectors
    """(n, dimensions + 6), rounded to half precision: stored as halves, and not converted again each window."""
    weights: Floats
    near_known: Vectors
    """(n,) mean similarity to the nearest messages of the fitting half."""
    near_recent: deque[Vectors]
    """For each recent window (n, neighbours): similarity to its nearest messages."""


@dataclass
class _Window:
    """What is learned from one recent window."""

    sums: Floats
    """Weighted sum of its features."""
    weight: float
    features: Vectors
    """Some of its messages (n, dimensions + 6), with their weights and sessions."""
    weights: Floats
    sessions: Ints


class ShiftDetector(Detector):
    """How the last ten windows differ from the fitting half, asked in two ways.

    `direction`: Fisher's discriminant from the one to the other, in vectors and surface together.
    `recurrence`: mean cosine to the three nearest recent messages, less the same to the fitting half.
    """

    kind = "shift"

    def __init__(self, arrays: dict[str, Any], pool: _Pool) -> None:
        super().__init__("shift", "input", (DIRECTION, RECURRENCE))
        self.arrays = arrays
        self.pool = pool
        self.recent: deque[_Window] = deque(maxlen=RECENT_WINDOWS)
        self.waiting: deque[tuple[Halves, Floats]] = deque()
        self._last: tuple[WindowView, Vectors] | None = None
        self._known: Vectors = arrays["known"].astype(np.float32)

    @classmethod
    def fit(cls, view: WindowView) -> "ShiftDetector":
        """Learn scale and spread from the fitting half; the pool is still empty."""
        surface, vectors = view.surface[view.texts], view.vectors[view.texts]
        arrays: dict[str, Any] = {"centre": surface.mean(axis=0), "scale": surface.std(axis=0) + 1e-3}
        features = _features(vectors, surface, arrays)
        centred = features - features.mean(axis=0)
        spread = centred.T @ centred / max(len(features), 1)
        ridge = max(_RIDGE * np.trace(spread) / len(spread), _LEAST_RIDGE)
        arrays["mean"] = features.mean(axis=0).astype(np.float64)
        arrays["precision"] = np.linalg.inv(spread + ridge * np.eye(len(spread))).astype(np.float32)
        arrays["known"] = vectors.astype(np.float16)
        empty = np.zeros((0, features.shape[1]), dtype=np.float32)
        nothing = _Pool(empty, np.zeros(0), np.zeros(0, dtype=np.float32), deque(maxlen=RECENT_WINDOWS))
        return cls(arrays, nothing)._sized(view, view.texts)

    @override
    def rank(self, view: WindowView, random: np.random.Generator) -> dict[str, Ranked]:
        if not len(view.texts) or not self.recent:
            return {}
        recent = np.concatenate([window.features for window in self.recent])
        # A conversation that goes on is like itself: what it taught before says nothing about its next message.
        own = view.sessions[view.texts, None] == np.concatenate([window.sessions for window in self.recent])
        kept = np.flatnonzero((~own).sum(axis=1) >= 2 * _NEIGHBOURS)
        if not len(kept):
            return {}
        rows, own, features, pool = view.texts[kept], own[kept], self._of(view)[kept], self.pool
        values, past = self._along(features, own, recent)
        near = _nearest(self._vectors(features), self._vectors(recent), own)
        scores = {
            DIRECTION: (values, past),
            RECURRENCE: (
                _mean_nearest([near]) - self._near_known(features),
                _mean_nearest(list(pool.near_recent)) - pool.near_known,
            ),
        }
        those = self.shares(view, view.texts).of(kept)
        floor = stake_floor(float(pool.weights.sum()))
        ranked = {}
        for stream, (values, past) in scores.items():
            ties = random.random(len(values))
            p = pool_p_values(values.astype(np.float64), those, past.astype(np.float64), pool.weights, ties)
            ranked[stream] = Ranked(p, those.groups, self.size, rows, floor)
        return ranked

    @override
    def follow(self, view: WindowView) -> None:
        if not len(view.texts):
            return
        features = self._of(view)
        weights = self.shares(view, view.texts).weights
        step = max(1, -(-len(features) // _RECENT_ROWS))
        self.recent.append(
            _Window(
                sums=weights @ features.astype(np.float64),
                weight=float(weights.sum()),
                features=features[::step],
                weights=weights[::step],
                sessions=view.sessions[view.texts][::step],
            )
        )
        some = self._vectors(features[::step])
        self.pool.near_recent.append(_nearest(self._vectors(self.pool.features), some))

    @override
    def absorb(self, view: WindowView) -> None:
        if len(view.texts):
            features = self._of(view).astype(np.float16)
            self.waiting.append((features, self.shares(view, view.texts).weights))
        while len(self.waiting) > RECENT_WINDOWS:
            self._join(*self.waiting.popleft())

    def calibrate(self, view: WindowView) -> None:
        """Let the calibration half join the pool at once."""
        if len(view.texts):
            self._join(self._of(view).astype(np.float16), self.shares(view, view.texts).weights)

    def hindsight(self, windows: Sequence[Halves], since: int, random: np.random.Generator) -> list[Ranked]:
        """P-values (direction, recurrence) of all messages, had one known that drift began at window `since`.

        Each window is scored by what the others teach, so that no message vouches for itself.
        """
        suspects = list(range(max(since, len(windows) - 2 * RECENT_WINDOWS), len(windows)))
        sums = {k: windows[k].astype(np.float64).sum(axis=0) for k in suspects}
        vectors = {k: self._vectors(windows[k]) for k in suspects}
        pool = self.pool.features
        pool_vectors = self._vectors(pool)
        pool_near = {k: _nearest(pool_vectors, vectors[k]) for k in suspects}
        found: list[list[Floats]] = [[], []]
        for k, window in enumerate(windows):
            others = [j for j in suspects if j != k]
            n = sum(len(windows[j]) for j in others)
            if n < _NEIGHBOURS or not len(window):
                found[0].append(np.full(len(window), 0.5))
                found[1].append(np.full(len(window), 0.5))
                continue
            away = np.sum([sums[j] for j in others], axis=0) / n - self.arrays["mean"]
            direction = np.asarray(self.arrays["precision"] @ away.astype(np.float32))
            features = window.astype(np.float32)
            near = _mean_nearest([_nearest(self._vectors(features), vectors[j]) for j in others])
            past_near = _mean_nearest([pool_near[j] for j in others]) - self.pool.near_known
            for i, (values, past) in enumerate(
                ((features @ direction, pool @ direction), (near - self._near_known(features), past_near))
            ):
                alone = message_shares(np.arange(len(window)))
                ties = random.random(len(window))
                found[i].append(pool_p_values(values, alone, past, self.pool.weights, ties))
        every = np.arange(sum(map(len, windows)))
        return [Ranked(np.concatenate(p), every, 1.0, every) for p in found]

    def _join(self, features: Halves, weights: Floats) -> None:
        pool = self.pool
        vectors = self._vectors(features)
        near = [_nearest(vectors, self._vectors(window.features)) for window in self.recent]
        pool.features = np.concatenate([pool.features, features.astype(np.float32)])[-_POOL_LIMIT:]
        pool.weights = np.concatenate([pool.weights, weights])[-_POOL_LIMIT:]
        pool.near_known = np.concatenate([pool.near_known, self._near_known(features)])[-_POOL_LIMIT:]
        for i, joined in enumerate(near):
            pool.near_recent[i] = np.concatenate([pool.near_recent[i], joined])[-_POOL_LIMIT:]

    def _along(self, features: Vectors, own: NDArray[np.bool_], recent: Vectors) -> tuple[Vectors, Vectors]:
        """How far messages, and those of the pool, lie in the direction of the recent windows.

        `own` (messages, recent) tells which recent messages are of the same session; they are left out.
        """
        sums = np.sum([window.sums for window in self.recent], axis=0)
        total = sum(window.weight for window in self.recent)
        direction = self._direction(sums / total)
        values = features @ direction
        weights = np.concatenate([window.weights for window in self.recent])
        for i in np.flatnonzero(own.any(axis=1)):
            left = sums - weights[own[i]] @ recent[own[i]].astype(np.float64)
            values[i] = features[i] @ self._direction(left / (total - weights[own[i]].sum()))
        return values, self.pool.features @ direction

    def _direction(self, mean: Floats) -> Vectors:
        return np.asarray(self.arrays["precision"] @ (mean - self.arrays["mean"]).astype(np.float32))

    def _near_known(self, features: Vectors | Halves) -> Vectors:
        return _mean_nearest([_nearest(self._vectors(features), self._known)])

    def features(self, vectors: NDArray[np.floating], surface: Floats) -> Halves:
        """Vectors and scaled surface (texts, dimensions + 6) of the messages that have a text."""
        texts = ~np.isnan(vectors[:, 0])
        return _features(vectors[texts].astype(np.float32), surface[texts], self.arrays).astype(np.float16)

    def _of(self, view: WindowView) -> Vectors:
        # Rounded as the pool is stored, so that both sides of a comparison went through the same steps.
        if self._last is None or self._last[0] is not view:
            self._last = view, self.features(view.vectors, view.surface).astype(np.float32)
        return self._last[1]

    def _vectors(self, features: Vectors | Halves) -> Vectors:
        return features[:, : self.arrays["known"].shape[1]].astype(np.float32, copy=False)

    @override
    def to_state(self) -> dict[str, Any]:
        pool = self.pool
        return {
            "kind": self.kind,
            "size": self.size,
            "arrays": {key: pack(value) for key, value in self.arrays.items()},
            "pool": [pack(pool.features.astype(np.float16)), pack(pool.weights), pack(pool.near_known)],
            "near_recent": [pack(near) for near in pool.near_recent],
            "recent": [
                {
                    "sums": pack(window.sums),
                    "weight": window.weight,
                    "features": pack(window.features.astype(np.float16)),
                    "weights": pack(window.weights),
                    "sessions": pack(window.sessions),
                }
                for window in self.recent
            ],
            "waiting": [[pack(features), pack(weights)] for features, weights in self.waiting],
        }

    @classmethod
    @override
    def from_state(cls, state: dict[str, Any]) -> "ShiftDetector":
        features, weights, near_known = map(unpack, state["pool"])
        features = features.astype(np.float32)
        near_recent = deque(map(unpack, state["near_recent"]), maxlen=RECENT_WINDOWS)
        arrays = {key: unpack(value) for key, value in state["arrays"].items()}
        detector = cls(arrays, _Pool(features, weights, near_known, near_recent))
        detector.size = state["size"]
        for window in state["recent"]:
            some = unpack(window["features"]).astype(np.float32)
            told = (unpack(window["weights"]), unpack(window["sessions"]))
            detector.recent.append(_Window(unpack(window["sums"]), window["weight"], some, *told))
        detector.waiting.extend((unpack(rows), unpack(weights)) for rows, weights in state["waiting"])
        return detector


def _features(vectors: Vectors, surface: Floats, arrays: dict[str, Any]) -> Vectors:
    looks = np.clip((surface - arrays["centre"]) / arrays["scale"], -4.0, 4.0)
    share = _SURFACE_SHARE / np.sqrt(vectors.shape[1])
    return np.hstack([vectors, (share * looks).astype(np.float32)])


def _nearest(vectors: Vectors, others: Vectors, own: NDArray[np.bool_] | None = None) -> Vectors:
    """Cosines (n, ≤ 3) of each vector to its nearest others, without those that are its `own`."""
    near = vectors @ others.T
    if own is not None:
        near[own] = -1.0
    k = min(_NEIGHBOURS, near.shape[1])
    return np.asarray(np.partition(near, -k, axis=1)[:, -k:])


def _mean_nearest(near: list[Vectors]) -> Vectors:
    """Mean cosine (n,) to the nearest of all windows, from those of each."""
    every = np.concatenate(near, axis=1)
    k = min(_NEIGHBOURS, every.shape[1])
    return np.asarray(np.partition(every, -k, axis=1)[:, -k:].mean(axis=1))
