"""Which traces are worth a person's time, each with the probability with which it was picked.

Two parts with different duties: traces on the gate's side are picked uniformly at random, because the gate's
evidence must be a random sample; on the training side the picks go where the agent is unsure, the request is new
or the traffic drifted, and a random share always remains.

Why novelty is asked of a pool only: it compares texts, and a million of them take an hour. The pool is what drifted,
where the agent is most unsure, and a part of the rest by the hash of the case, another part each time. It follows
from the traces and not from the draw, so the ranking of all traces is one, and the propensities stay exact.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ratchet.agent.record import Record, StageSettings
from ratchet.agent.trace import Trace
from ratchet.evaluation.data.arrays import Floats, Ints
from ratchet.evaluation.data.cases import on_gate_side

POOL: Final = 2000
"""Traces whose novelty is looked at, where there are more; half of them for doubt, half by hash."""
AT_RANDOM: Final = "a random share"
"""Why a trace was picked that audits judges, too: nothing but chance."""

Flags = NDArray[np.bool_]


class SelectionSettings(StageSettings):
    """How many people are asked for."""

    gate_labels: int = Field(default=0, ge=0)
    """Traces a round that people are asked about for the gate before anything is tested on them, drawn at random; the
    gate itself asks only where two versions differ."""
    train_labels: int = Field(default=60, ge=0)
    """Traces a round that people are asked about for training, where an answer teaches most."""
    random_share: float = Field(default=0.3, gt=0, le=1)
    """Share of the training picks that is drawn at random, whatever the scores say."""
    gate_share: float = Field(default=0.4, gt=0, lt=1)
    """Share of all cases that is reserved for the gate."""


class Pick(Record):
    """A trace to show to a person."""

    trace_id: str
    propensity: float = Field(gt=0, le=1)
    reason: str


@dataclass(frozen=True)
class UnlabelledTraces:
    """The traces that nobody was asked about yet, one a case, as columns: what selection needs to know of them."""

    trace_ids: NDArray[np.bytes_]
    case_ids: NDArray[np.bytes_]
    uncertainty: Floats
    """1 − the agent's confidence in its first action; 0.5 where it cannot tell."""
    gate_side: Flags
    """Whether its session, or else its case, is reserved for the gate."""
    judgeable: Flags
    """Whether it may judge: one that broke the agent does, else the champion would look better than it is."""
    usable: Flags
    """Whether it may teach."""

    def __len__(self) -> int:
        return len(self.trace_ids)

    def only(self, rows: Flags) -> Self:
        """Those of these rows."""
        return type(self)(*(getattr(self, field.name)[rows] for field in fields(self)))

    @classmethod
    def joined(cls, parts: list[Self]) -> Self:
        """The rows of them all, in order; the list is emptied, so that nothing is held twice."""
        if not parts:
            return cls.of([], gate_share=0.5)
        columns = [[getattr(one, field.name) for one in parts] for field in fields(cls)][::-1]
        parts.clear()
        return cls(*(np.concatenate(columns.pop()) for _ in fields(cls)))

    @classmethod
    def of(cls, traces: Sequence[Trace], *, gate_share: float, salt: str = "") -> Self:
        """The columns of these traces."""
        first = [t.attempts[0].steps[0] if t.attempts and t.attempts[0].steps else None for t in traces]
        case_ids = [t.case.case_id for t in traces]
        return cls.of_columns(
            np.array([t.trace_id for t in traces], dtype="S32"),
            np.array(case_ids, dtype="S16"),
            np.array([np.nan if s is None or s.confidence is None else s.confidence for s in first], float),
            np.array([t.error is not None and t.error.kind == "agent" for t in traces], bool),
            np.array([t.error is not None for t in traces], bool),
            np.array([t.action is not None for t in traces], bool),
            on_gate_side(case_ids, [t.session_id for t in traces], gate_share=gate_share, salt=salt),
        )

    @classmethod
    def of_columns(
        cls,
        trace_ids: NDArray[np.bytes_],
        case_ids: NDArray[np.bytes_],
        confidence: Floats,
        agent_broke: Flags,
        broke: Flags,
        answered: Flags,
        gate_side: Flags,
    ) -> Self:
        """The same from what is stored; `confidence` is NaN where the agent cannot tell."""
        uncertainty = np.where(np.isnan(confidence), 0.5, 1 - confidence)
        return cls(
            trace_ids,
            case_ids,
            uncertainty,
            gate_side,
            np.where(broke, agent_broke, answered),
            ~broke & answered,
        )


NoveltyOfRows = Callable[[Ints], Floats]
"""From rows of the unasked to how new their requests are, in [0, 1]."""


def select(
    traces: UnlabelledTraces,
    settings: SelectionSettings,
    *,
    novelty: NoveltyOfRows = lambda rows: np.zeros(len(rows)),
    drifted: Mapping[str, str] | None = None,
    seed: int = 0,
) -> list[Pick]:
    """Pick traces for labelling; one that the infrastructure broke is left out.

    Args:
        traces: those not yet asked about.
        settings: numbers and shares.
        novelty: how new a request is; added to the doubt.
        drifted: trace ids in the region that drifted, each with its words; they come first.
        seed: of what is drawn at random.
    """
    order = np.lexsort((traces.trace_ids, traces.case_ids))
    gate = order[(traces.judgeable & traces.gate_side)[order]]
    train = order[(traces.usable & ~traces.gate_side)[order]]
    rng = random.Random(seed)
    picks = _uniform(traces, gate, settings.gate_labels, rng, "a random sample for the gate")
    return picks + _interesting(train, settings, rng, _Interest(traces, train, novelty, drifted or {}))


class _Interest:
    """How much a person's answer would teach: the agent's doubt, the request's novelty, and the drift."""

    def __init__(
        self, traces: UnlabelledTraces, rows: Ints, novelty: NoveltyOfRows, drifted: Mapping[str, str]
    ) -> None:
        self.traces, self._drifted = traces, drifted
        region = np.isin(traces.trace_ids, np.array(list(drifted), dtype="S32")) if drifted else None
        apart = region[rows] if region is not None else np.zeros(len(rows), bool)
        pool = _pool(traces.uncertainty[rows], apart)
        self._new = np.zeros(len(traces))
        self._new[rows[pool]] = novelty(rows[pool]) if len(pool) else 0.0
        self.of_rows = traces.uncertainty[rows] + self._new[rows] + np.where(apart, 2.0, 0.0)

    def trace_id(self, row: int) -> str:
        """The trace in a row."""
        return str(self.traces.trace_ids[row], "ascii")

    def why(self, row: int) -> str:
        """For the person who is asked."""
        sure, new = 1 - self.traces.uncertainty[row], self._new[row]
        told = f"the agent is unsure ({sure:.2f}), the request is new ({new:.2f})"
        words = self._drifted.get(self.trace_id(row))
        return told if words is None else f"the traffic drifted here ({words}); {told}"


def _pool(uncertainty: Floats, drifted: Flags) -> Ints:
    """Whose novelty is looked at, of traces in the order of their hash: all, or at most `POOL`."""
    n = len(uncertainty)
    if n <= POOL:
        return np.arange(n)
    first = np.flatnonzero(drifted)[:POOL]
    unsure = np.argsort(-uncertainty, kind="stable")[: POOL // 2]
    rest = (np.arange(POOL // 2) + n * 7919) % n  # moves on as traces come in
    return np.unique(np.concatenate([first, unsure, rest]))


def _uniform(traces: UnlabelledTraces, rows: Ints, n: int, rng: random.Random, reason: str) -> list[Pick]:
    n = min(n, len(rows))
    share = n / len(rows) if len(rows) else 1.0
    chosen = [traces.trace_ids[rows[i]].decode() for i in rng.sample(range(len(rows)), n)]
    return [Pick(trace_id=one, propensity=share, reason=reason) for one in chosen]


def _interesting(
    rows: Ints, settings: SelectionSettings, rng: random.Random, interest: _Interest
) -> list[Pick]:
    """A random share first, then the most interesting of what is left."""
    ranked = rows[np.argsort(-interest.of_rows, kind="stable")]
    n = min(settings.train_labels, len(ranked))
    n_random = min(max(round(n * settings.random_share), 1), n)
    at_random = rng.sample(range(len(ranked)), n_random)
    taken = set(at_random)
    chosen = [rank for rank in range(min(len(ranked), n)) if rank not in taken][: n - n_random]
    return [
        Pick(
            trace_id=interest.trace_id(ranked[rank]),
            propensity=_propensity(rank, len(ranked), n_random, n - n_random),
            reason=AT_RANDOM if rank in taken else interest.why(ranked[rank]),
        )
        for rank in (*at_random, *chosen)
    ]


def _propensity(rank: int, n: int, n_random: int, n_chosen: int) -> float:
    """Probability that the trace at `rank` is picked, whichever way.

    It is drawn at random, or enough of the `rank` traces before it are (hypergeometric) for its turn to come.
    """
    from scipy.stats import hypergeom  # a tenth of what every command would load

    if rank < n_chosen or n_random == n:
        return 1.0
    drawn = n_random / n
    turn = float(
        hypergeom.sf(rank - n_chosen, n - 1, rank, n_random)
    )  # more than that many of those before it
    return min(drawn + (1 - drawn) * turn, 1.0)
