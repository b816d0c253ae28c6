"""Scores whose ranks are bet on: one per question one may ask of a message. Higher is stranger.

A fixed score is learned from the fitting half alone, so its ranks are exactly uniform without drift. A
learned score follows the last windows (`drift_shift`): it finds weaker drift by approximate ranks.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from ratchet.evaluation.data.arrays import Floats, Ints, pack, unpack
from ratchet.evaluation.drift.conformal import (
    RankCounts,
    Shares,
    message_shares,
    usual_size,
)
from ratchet.evaluation.drift.message import HARMLESS_FALLS, Group, Message, numeric_column

Vectors = NDArray[np.float32]

_LOOKS: Final = 16
_UNCERTAINTY: Final = 0.5
_UNIT_GRID: Final = np.linspace(0.0, 1.0, 4_097)
_MIN_VALUES: Final = 10


@dataclass(frozen=True)
class WindowView:
    """A batch made ready: records, session numbers, and for each text its vector and its surface."""

    rows: Sequence[Message]
    groups: Ints
    before: Ints
    """(n,) messages of its session in earlier batches."""
    sessions: Ints
    """(n,) one number for each session while it is remembered, and for each message without one."""
    vectors: Vectors
    """(n, dimensions) of length one; rows without text are NaN."""
    surface: Floats
    """(n, 6) of `surface_features`; rows without text are NaN."""

    @property
    def texts(self) -> Ints:
        """Which messages have a text, and so a vector."""
        return np.flatnonzero(~np.isnan(self.vectors[:, 0]))


@dataclass(frozen=True)
class Ranked:
    """The p-values that one stream of evidence bets on, and the sessions they belong to."""

    p: Floats
    groups: Ints
    size: float
    """Usual messages a session; see `message_shares`."""
    rows: Ints
    """Which messages of the batch have one."""
    floor: Floats | None = None
    """Smallest stake on each quantile; see `stake_floor`."""


class Detector(ABC):
    """One kind of evidence: ranks a batch against the past, then counts it as past."""

    kind: ClassVar[str]

    def __init__(self, name: str, group: Group, streams: Sequence[str]) -> None:
        self.name = name
        self.group: Group = group
        self.streams = tuple(streams)
        self.size = 1.0
        """Usual messages a session, of those that have what the detector looks at."""

    def shares(self, view: WindowView, rows: Ints) -> Shares:
        """What these messages of the batch weigh."""
        return message_shares(view.groups[rows], view.before[rows], self.size)

    @abstractmethod
    def rank(self, view: WindowView, random: np.random.Generator) -> dict[str, Ranked]:
        """P-values of the batch for each stream that has something to say about it."""

    @abstractmethod
    def absorb(self, view: WindowView) -> None:
        """Count the batch as past."""

    def follow(self, view: WindowView) -> None:  # noqa: B027 - a fixed score has nothing to learn
        """Learn from the batch what drift may look like; called for every window, drifted or not."""

    def _sized(self, view: WindowView, rows: Ints) -> Self:
        self.size = usual_size(view.groups[rows])
        return self

    def to_state(self) -> dict[str, Any]:
        """JSON object from which the detector is restored bit for bit; each kind adds what it has learned."""
        return {"kind": self.kind, "name": self.name, "group": self.group, "size": self.size}

    @classmethod
    @abstractmethod
    def from_state(cls, state: dict[str, Any]) -> "Detector":
        """The detector that `to_state` stored."""


class FixedDetector(Detector):
    """A score that never changes; the whole past is kept as counts, so its ranks are exact for ever."""

    def __init__(
        self, name: str, group: Group, streams: Sequence[str], params: dict[str, NDArray[Any]], cuts: Floats
    ) -> None:
        super().__init__(name, group, streams)
        self.params = params
        self.ranks = {stream: RankCounts(-cuts if stream.endswith(" falls") else cuts) for stream in streams}
        self._last: tuple[WindowView, Floats] | None = None

    @abstractmethod
    def score(self, view: WindowView) -> Floats:
        """Score (n,) of each message; NaN where the message does not have what it takes."""

    @override
    def rank(self, view: WindowView, random: np.random.Generator) -> dict[str, Ranked]:
        rows, values = self._present(view)
        if not len(rows):
            return {}
        those = self.shares(view, rows)
        ranked = {}
        for stream, ties in zip(self.streams, random.random((len(self.streams), len(rows))), strict=True):
            p = self.ranks[stream].p_values(_signed(stream, values), those, ties)
            ranked[stream] = Ranked(p, those.groups, self.size, rows)
        return ranked

    @override
    def absorb(self, view: WindowView) -> None:
        rows, values = self._present(view)
        if len(rows):
            for stream in self.streams:
                self.ranks[stream].absorb(_signed(stream, values), self.shares(view, rows).weights)

    def _present(self, view: WindowView) -> tuple[Ints, Floats]:
        if self._last is None or self._last[0] is not view:
            self._last = view, self.score(view)
        scores = self._last[1]
        rows = np.flatnonzero(~np.isnan(scores))
        return rows, scores[rows]

    @override
    def to_state(self) -> dict[str, Any]:
        return super().to_state() | {
            "params": {key: pack(value) for key, value in self.params.items()},
            "ranks": {s: {"cuts": pack(r.cuts), "counts": pack(r.counts)} for s, r in self.ranks.items()},
        }

    @classmethod
    @override
    def from_state(cls, state: dict[str, Any]) -> "FixedDetector":
        params = {key: unpack(value) for key, value in state["params"].items()}
        detector = cls(state["name"], state["group"], tuple(state["ranks"]), params, np.zeros(0))
        detector.size = state["size"]
        detector.ranks = {
            stream: RankCounts(unpack(ranks["cuts"]), unpack(ranks["counts"]))
            for stream, ranks in state["ranks"].items()
        }
        return detector


class NoveltyDetector(FixedDetector):
    """Cosine distance to the nearest message of the fitting half: what nobody asked before."""

    kind = "novelty"

    @classmethod
    def fit(cls, view: WindowView) -> "NoveltyDetector":
        """Remember the vectors of the fitting half."""
        known = view.vectors[view.texts]
        return cls("novelty", "input", ("novelty",), {"known": known}, _UNIT_GRID)._sized(view, view.texts)

    @override
    def score(self, view: WindowView) -> Floats:
        nearest = (view.vectors @ self.params["known"].T).max(axis=1)
        return np.asarray(1.0 - nearest, dtype=np.float64)


class SurfaceDetector(FixedDetector):
    """How unusual length, capitals, punctuation and the like are together (Mahalanobis distance), and the look.

    The look is whether there are capitals, mostly capitals, punctuation, letters beyond ASCII: a text without any
    capital lies near the mean of their share, and yet hardly anybody writes so.
    """

    kind = "surface"

    @classmethod
    def fit(cls, view: WindowView) -> "SurfaceDetector":
        """Learn mean and spread of the features, and how common each look is."""
        known = view.surface[view.texts]
        spread = np.cov(known, rowvar=False) + np.diag(0.1 * known.var(axis=0) + 1e-4)
        counts = np.bincount(_looks(known), minlength=_LOOKS)
        params = {
            "mean": known.mean(axis=0),
            "precision": np.linalg.inv(spread),
            "rarity": -2.0 * np.log((counts + 0.5) / (counts.sum() + 0.5 * _LOOKS)),
        }
        return cls("surface", "input", ("surface",), params, _UNIT_GRID)._sized(view, view.texts)

    @override
    def score(self, view: WindowView) -> Floats:
        away = view.surface - self.params["mean"]
        squared = np.einsum("ij,jk,ik->i", away, self.params["precision"], away)
        squared += self.params["rarity"][_looks(view.surface)]
        return np.asarray(squared / (squared + away.shape[1]))


def _looks(surface: Floats) -> Ints:
    """Number (n,) of each text's look, from its surface features; where there is none any number will do."""
    capitals, punctuation, beyond = np.nan_to_num(surface[:, 3:6]).T
    bits = (capitals == 0, capitals > 0.5, punctuation == 0, beyond > 0)
    return np.asarray(sum(bit.astype(np.int64) << place for place, bit in enumerate(bits)))


class UncertaintyDetector(FixedDetector):
    """One minus the confidence of a light classifier that learned to tell the agent's tools from the text.

    Half of it is added to the distance to the nearest known message: a request of a new kind is both, and the sum
    tells it sooner than either does alone.
    """

    kind = "doubt"

    @classmethod
    def fit(cls, view: WindowView) -> "UncertaintyDetector | None":
        """None where fewer than two tools have five texts each: there is nothing to tell apart."""
        from sklearn.linear_model import LogisticRegression

        named = [i for i in view.texts if view.rows[i].tool is not None]
        tools, counts = np.unique([str(view.rows[i].tool) for i in named], return_counts=True)
        frequent = set(tools[counts >= 5])
        kept = [i for i in named if view.rows[i].tool in frequent]
        if len(frequent) < 2:
            return None
        model = LogisticRegression(C=30.0, max_iter=200)
        model.fit(view.vectors[kept].astype(np.float64), [str(view.rows[i].tool) for i in kept])
        params = {
            "weights": model.coef_.T.copy(),
            "bias": model.intercept_.copy(),
            "known": view.vectors[view.texts].astype(np.float16),
        }
        return cls("doubt", "input", ("doubt",), params, _UNIT_GRID)._sized(view, view.texts)

    @override
    def score(self, view: WindowView) -> Floats:
        logits = view.vectors.astype(np.float64) @ self.params["weights"] + self.params["bias"]
        if logits.shape[1] == 1:
            logits = np.hstack([np.zeros_like(logits), logits])
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        uncertainty = 1.0 - 1.0 / odds.sum(axis=1)
        away = 1.0 - (view.vectors @ self._known.T).max(axis=1)
        return np.asarray((away + _UNCERTAINTY * uncertainty) / (1.0 + _UNCERTAINTY), dtype=np.float64)

    @cached_property
    def _known(self) -> Vectors:
        return self.params["known"].astype(np.float32)


class NumberDetector(FixedDetector):
    """A numeric column that rises or falls: steps, confidence, outcome, judge score; latency and cost only rise.

    Why: an agent that gets quicker or cheaper (a cache that warms up) is no incident, and nobody is to be woken.
    """

    kind = "number"

    @classmethod
    def fit(cls, halves: tuple[WindowView, WindowView], name: str, group: Group) -> "NumberDetector | None":
        """None where the reference has fewer than ten values of the column.

        A value is its own score, so there is nothing to fit and both halves are ranked against.
        """
        values = np.concatenate([numeric_column(half.rows, name) for half in halves])
        known = values[~np.isnan(values)]
        if len(known) < _MIN_VALUES:
            return None
        both = (f"{name} rises", f"{name} falls")
        detector = cls(name, group, both[:1] if name in HARMLESS_FALLS else both, {}, np.unique(known))
        detector._sized(halves[0], np.flatnonzero(~np.isnan(numeric_column(halves[0].rows, name))))
        for half in halves:
            detector.absorb(half)
        return detector

    @override
    def score(self, view: WindowView) -> Floats:
        return numeric_column(view.rows, self.name)


def _signed(stream: str, values: Floats) -> Floats:
    return -values if stream.endswith(" falls") else values


FIXED: Final[dict[str, type[FixedDetector]]] = {
    detector.kind: detector
    for detector in (NoveltyDetector, SurfaceDetector, UncertaintyDetector, NumberDetector)
}
