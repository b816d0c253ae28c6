"""Has the traffic changed? Sequential, with a bounded rate of false alarms: Evidently draws, this decides.

Each detector ranks every message among all earlier ones, bets that strange ranks come too often, and sums its bets
as Shiryaev and Roberts do. The mean over bets, detectors and groups pages at 1/alpha, so that without drift a page
comes at most once in 1/alpha windows on average, however often one looks.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from ratchet.agent.errors import BadInput, CorruptRecord
from ratchet.agent.memory.ranking import Embed
from ratchet.evaluation.data.embedding import (
    HASHING,
    HashingEmbedding,
    surface_features,
    unit_rows,
    without_numbers,
)
from ratchet.evaluation.drift.attribution import Attribution
from ratchet.evaluation.drift.categories import CategoryDetector
from ratchet.evaluation.drift.conformal import (
    N_BETS,
    log_bets,
    low_counts,
    message_shares,
    shiryaev_roberts,
    usual_size,
)
from ratchet.evaluation.drift.detectors import fit_detectors, restored_detector
from ratchet.evaluation.drift.explain import attribute_drift
from ratchet.evaluation.drift.history import History
from ratchet.evaluation.drift.message import (
    GROUPS,
    Message,
    MessageBatch,
    as_messages,
    session_groups,
)
from ratchet.evaluation.drift.scores import (
    Ranked,
    WindowView,
)
from ratchet.evaluation.drift.shift import ShiftDetector
from ratchet.evaluation.drift.state import DriftState

STATE_VERSION: Final = 3
MIN_REFERENCE: Final = 40
MAX_REFERENCE: Final = 2_000
_CEILING: Final = 10.0
_SESSION_MEMORY: Final = 20


class OtherMonitor(CorruptRecord):
    """A monitor's state that this code, or this embedding, cannot go on from; its reference makes a new one."""


@dataclass
class _Session:
    """What is remembered of a conversation that may go on."""

    number: int
    """Number of its first message, by which detectors tell its messages."""
    since: int
    """Window in which its present bet began."""
    last: int
    """Window in which it was last heard."""
    messages: int = 0
    bets: dict[str, list[float]] = field(default_factory=dict)
    """For each stream its `low_counts` so far: what its bet has become."""


class DriftMonitor:
    """Watches windows of messages against a reference."""

    def __init__(
        self,
        reference: MessageBatch,
        *,
        alpha: float = 0.001,
        embed: Embed | None = None,
        embedding: str | None = None,
        seed: int = 0,
    ) -> None:
        """Learn what is usual.

        Args:
            reference: texts, observations, or an array (messages, dimensions) of ready embeddings. Half of it
                is learned from, half is ranked against; beyond 2,000 messages a random sample is taken.
            alpha: false alarms per window that are acceptable without drift.
            embed: texts → vectors; the default hashes n-grams and needs no model.
            embedding: name of `embed`, kept in the state so that vectors of two models never mix.
            seed: decides the halves and splits ties; the same seed and traffic give the same numbers.

        Raises:
            BadInput: alpha out of (0, 1), or a reference too small to rank against.
        """
        if not 0 < alpha < 1:
            raise BadInput(f"alpha is {alpha}; it must lie between 0 and 1, for example 0.001")
        if len(reference) < MIN_REFERENCE:
            raise BadInput(
                f"the reference has {len(reference)} messages; drift needs at least {MIN_REFERENCE}: "
                "take a longer period as the reference"
            )
        self.alpha = alpha
        self.seed = seed
        self.embedding = _name(embed, embedding)
        self.n_seen = 0
        self.n_windows = 0
        self._arrays_only = isinstance(reference, np.ndarray)
        fit, calibrate = _halves(reference, seed)
        self._size = usual_size(session_groups(as_messages(reference)))
        self._usual_texts = [row.text for row in as_messages(fit) if row.text]
        texts = [without_numbers(text) for text in self._usual_texts]
        self._embed: Embed = embed or HashingEmbedding.fit(texts or [""])
        self._dimensions = len(self._embed([""])[0])
        self._detectors = fit_detectors(self._view(fit), self._view(calibrate))
        self._evidence = {s: np.zeros(N_BETS) for detector in self._detectors for s in detector.streams}
        self._starts = dict.fromkeys(self._evidence, 0)
        self._sessions: dict[str, _Session] = {}
        self._history = History()

    def update(self, batch: MessageBatch) -> DriftState:
        """Rank, bet on and then absorb one window; an empty one changes nothing."""
        if not len(batch):
            return self.state
        self._check(batch)
        self._meet(as_messages(batch))
        view = self._view(batch, self._sessions)
        random = np.random.default_rng([self.seed, self.n_windows])
        ranked = {stream: found for f in self._detectors for stream, found in f.rank(view, random).items()}
        for stream, found in ranked.items():
            self._bet(stream, found, view)
        alarm = self.state.alarm
        for detector in self._detectors:
            detector.follow(view)
            # What is drifted must not become usual while nobody has looked at it.
            if not alarm:
                detector.absorb(view)
        weights = message_shares(view.groups, view.before, self._size).weights
        self._history.remember(self.n_seen + np.arange(len(batch)), view, weights, ranked)
        for row in view.rows:
            if row.session is not None:
                self._sessions[row.session].messages += 1
        self.n_seen += len(batch)
        self.n_windows += 1
        return self.state

    def explain(self) -> Attribution:
        """What changed, from the last few thousand messages; meaningful after an alarm.

        Raises:
            BadInput: no window was seen yet.
        """
        if not self._history.windows:
            raise BadInput("no window was seen yet, so there is nothing to explain: call update first")
        shift = next((detector for detector in self._detectors if isinstance(detector, ShiftDetector)), None)
        groups = {stream: (f.name, f.group) for f in self._detectors for stream in f.streams}
        lagging = frozenset(f.name for f in self._detectors if isinstance(f, CategoryDetector))
        vectors = (shift.arrays["known"] if shift else np.zeros((0, self._dimensions))).astype(np.float32)
        return attribute_drift(
            self.state, self._history, groups, lagging, shift, (self._usual_texts, vectors)
        )

    @property
    def state(self) -> DriftState:
        """What is known now."""
        by_detector = {
            detector.name: float(np.mean([self._evidence[stream] for stream in detector.streams]))
            for detector in self._detectors
        }
        # A column that the traffic has not shown yet has no evidence to average over.
        seen = [f for f in self._detectors if any(self._evidence[stream].any() for stream in f.streams)]
        groups = {group: [by_detector[f.name] for f in seen if f.group == group] for group in GROUPS}
        known = {group: float(np.mean(values)) for group, values in groups.items() if values}
        e_value = float(np.mean(list(known.values()))) if known else 0.0
        threshold = 1.0 / self.alpha
        strongest = max(self._evidence, key=lambda stream: float(self._evidence[stream].mean()))
        return DriftState(
            alarm=e_value >= threshold,
            e_value=e_value,
            threshold=threshold,
            since=self._starts[strongest] if e_value >= threshold else None,
            n_seen=self.n_seen,
            n_windows=self.n_windows,
            **{group: known.get(group, 0.0) for group in GROUPS},
            families=by_detector,
            embedding=self.embedding,
        )

    def _check(self, batch: MessageBatch) -> None:
        if self._arrays_only != isinstance(batch, np.ndarray):
            raise BadInput(
                f"a window of {type(batch).__name__} does not match the reference: give both alike"
            )

    def _meet(self, rows: Sequence[Message]) -> None:
        """Let sessions go that were silent for long, begin a new bet on those that last, and meet new ones."""
        oldest = self.n_windows - _SESSION_MEMORY
        for name, one in list(self._sessions.items()):
            if one.last < oldest:
                del self._sessions[name]
            elif one.since < oldest:
                self._sessions[name] = _Session(one.number, self.n_windows, one.last)
        for number, row in enumerate(rows, start=self.n_seen):
            if row.session is not None:
                new = _Session(number, self.n_windows, self.n_windows)
                self._sessions.setdefault(row.session, new).last = self.n_windows

    def _bet(self, stream: str, found: Ranked, view: WindowView) -> None:
        names = {int(group): row.session for group, row in zip(view.groups, view.rows, strict=True)}
        known = {group: self._sessions[name] for group, name in names.items() if name is not None}
        counts = low_counts(found.p, found.groups, len(names))
        earlier = np.zeros_like(counts)
        for group, session in known.items():
            earlier[group] = session.bets.get(stream, 0.0)
            session.bets[stream] = (earlier[group] + counts[group]).tolist()
        log_bet = log_bets(counts, before=earlier, size=found.size, floor=found.floor)
        before = self._evidence[stream]
        if before.mean() < 1.0:
            self._starts[stream] = self.n_seen
        self._evidence[stream] = shiryaev_roberts(before, log_bet, _CEILING * N_BETS / self.alpha)

    def _view(self, batch: MessageBatch, met: "Mapping[str, _Session]" = MappingProxyType({})) -> WindowView:
        rows = as_messages(batch)
        known = [met.get(row.session or "") for row in rows]
        before = np.array([one.messages if one else 0 for one in known], dtype=np.int64)
        numbers = enumerate(known, start=self.n_seen)
        sessions = np.array([one.number if one else number for number, one in numbers], dtype=np.int64)
        groups = session_groups(rows)
        texts = [i for i, row in enumerate(rows) if row.text]
        if isinstance(batch, np.ndarray):
            return WindowView(rows, groups, before, sessions, unit_rows(batch), np.zeros((len(rows), 6)))
        vectors = np.full((len(rows), self._dimensions), np.nan, dtype=np.float32)
        surface = np.full((len(rows), 6), np.nan)
        if texts:
            asked = [without_numbers(rows[i].text or "") for i in texts]
            vectors[texts] = unit_rows(self._embed(asked))
            surface[texts] = surface_features(asked)
        return WindowView(rows, groups, before, sessions, vectors, surface)

    def to_json(self) -> str:
        """All that the monitor knows, except an embedding that was given; `from_json` goes on bit for bit."""
        hashing = self._embed.to_state() if isinstance(self._embed, HashingEmbedding) else None
        state = {
            "version": STATE_VERSION,
            "alpha": self.alpha,
            "seed": self.seed,
            "n_seen": self.n_seen,
            "n_windows": self.n_windows,
            "arrays_only": self._arrays_only,
            "dimensions": self._dimensions,
            "embedding": self.embedding,
            "hashing": hashing,
            "families": [detector.to_state() for detector in self._detectors],
            "evidence": {stream: list(map(float, values)) for stream, values in self._evidence.items()},
            "starts": self._starts,
            "size": self._size,
            "sessions": {name: asdict(one) for name, one in self._sessions.items()},
            "history": self._history.to_state(),
            "usual_texts": self._usual_texts,
        }
        return json.dumps(state)

    @classmethod
    def from_json(
        cls, text: str, *, embed: Embed | None = None, embedding: str | None = None
    ) -> "DriftMonitor":
        """The monitor that `to_json` stored; `embed` and its name must be those it was made with.

        Raises:
            OtherMonitor: the state is sound, but of another version or another embedding.
            CorruptRecord: the text is no state.
        """
        try:
            state: dict[str, Any] = json.loads(text)
            if state["version"] != STATE_VERSION:
                raise OtherMonitor(
                    f"drift state has version {state['version']}, not {STATE_VERSION}: "
                    "build a new monitor from its reference"
                )
            asked = _name(embed, embedding)
            if state["embedding"] != asked and not state["arrays_only"]:
                raise OtherMonitor(
                    f"drift state reads texts by {state['embedding']!r}, not {asked!r}: "
                    "give it that embedding, or build a new monitor from its reference"
                )
            monitor = cls.__new__(cls)
            monitor.embedding = state["embedding"]
            monitor.alpha, monitor.seed = state["alpha"], state["seed"]
            monitor.n_seen, monitor.n_windows = state["n_seen"], state["n_windows"]
            monitor._arrays_only, monitor._dimensions = state["arrays_only"], state["dimensions"]
            monitor._embed = embed or HashingEmbedding.from_state(state["hashing"])
            monitor._detectors = [restored_detector(one) for one in state["families"]]
            monitor._evidence = {stream: np.array(values) for stream, values in state["evidence"].items()}
            monitor._starts, monitor._size = state["starts"], state["size"]
            monitor._sessions = {name: _Session(**one) for name, one in state["sessions"].items()}
            monitor._history = History.from_state(state["history"])
            monitor._usual_texts = state["usual_texts"]
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptRecord(f"drift state does not parse ({error}): build a new monitor") from error
        return monitor


def alpha_per_window(alpha: float, n_windows: int) -> float:
    """The monitor's `alpha` with which a file of so many windows alarms with probability `alpha` at most.

    Without drift R is a submartingale of mean t after t windows, so P(max R ≥ c) ≤ n/c over n windows (Doob's maximal
    inequality): c = n/alpha. Per window instead, a file of 1,000 windows would alarm by chance alone.
    """
    return alpha / max(n_windows, 1)


def _name(embed: Embed | None, embedding: str | None) -> str:
    return HASHING if embed is None else embedding or "unnamed"


def _halves(reference: MessageBatch, seed: int) -> tuple[Any, Any]:
    """Random halves to learn from and to rank against; a session stays whole."""
    random = np.random.default_rng(seed)
    groups = session_groups(as_messages(reference))
    order = random.permutation(int(groups.max()) + 1)
    place = order[groups]
    kept = np.argsort(place, kind="stable")[:MAX_REFERENCE]
    learned = place[kept] <= place[kept[len(kept) // 2]]
    parts = kept[learned], kept[~learned]
    if isinstance(reference, np.ndarray):
        return reference[parts[0]], reference[parts[1]]
    rows: Sequence[Any] = reference
    return [rows[i] for i in parts[0]], [rows[i] for i in parts[1]]
