"""Which traces are worth a person's time, each with the probability with which it was picked.

Two parts with different duties: traces on the gate's side are picked uniformly at random, because the gate's
evidence must be a random sample; on the training side the picks go where the agent is unsure, the request is new
or the traffic drifted, and a random share always remains.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import Field

from agent.record import Record
from agent.trace import Trace
from evaluation.cases import side_of


class SelectionSettings(Record):
    """How many people are asked for."""

    gate_labels: int = Field(default=100, ge=0)
    train_labels: int = Field(default=60, ge=0)
    random_share: float = Field(default=0.3, gt=0, le=1)
    """Share of the training picks that is drawn at random, whatever the scores say."""
    gate_share: float = Field(default=0.4, gt=0, lt=1)
    """Share of all cases that is reserved for the gate."""
    seed: int = 0


class Pick(Record):
    """A trace to show to a person."""

    trace_id: str
    propensity: float = Field(gt=0, le=1)
    reason: str


def select(
    traces: Sequence[Trace],
    settings: SelectionSettings,
    *,
    salt: str = "",
    novelty: Callable[[Trace], float] = lambda _: 0.0,
    drifted: Mapping[str, str] | None = None,
) -> list[Pick]:
    """Pick traces for labelling; one that the infrastructure broke is left out.

    Args:
        traces: those not yet asked about, one per case.
        settings: numbers and shares.
        salt: the project's name, as in `role_of`.
        novelty: how new a request is in [0, 1]; added to the doubt (1 − confidence).
        drifted: trace ids in the region that drifted, each with its words; they come first.
    """
    ordered = sorted(traces, key=lambda t: t.case.case_id)
    usable = [t for t in ordered if t.error is None and t.action is not None]
    # a case that broke the agent stays in the gate's sample: without it the champion would look better than it is
    judgeable = [t for t in ordered if (t.error.kind == "agent" if t.error else t.action is not None)]
    gate = [t for t in judgeable if _role(t, settings, salt) == "gate"]
    train = [t for t in usable if _role(t, settings, salt) == "train"]
    rng = random.Random(settings.seed)
    picks = _uniform(gate, settings.gate_labels, rng, "a random sample for the gate")
    return picks + _interesting(train, settings, rng, _Interest(novelty, drifted or {}))


@dataclass(frozen=True)
class _Interest:
    """How much a person's answer would teach: the agent's doubt, the request's novelty, and the drift."""

    novelty: Callable[[Trace], float]
    drifted: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, trace: Trace) -> float:
        return _doubt(trace) + self.novelty(trace) + (2.0 if trace.trace_id in self.drifted else 0.0)

    def why(self, trace: Trace) -> str:
        """For the person who is asked."""
        told = (
            f"the agent is unsure ({1 - _doubt(trace):.2f}), the request is new ({self.novelty(trace):.2f})"
        )
        words = self.drifted.get(trace.trace_id)
        return told if words is None else f"the traffic drifted here ({words}); {told}"


def _role(trace: Trace, settings: SelectionSettings, salt: str) -> str:
    return side_of(trace, gate_share=settings.gate_share, salt=salt)


def _uniform(traces: list[Trace], n: int, rng: random.Random, reason: str) -> list[Pick]:
    n = min(n, len(traces))
    share = n / len(traces) if traces else 1.0
    return [Pick(trace_id=t.trace_id, propensity=share, reason=reason) for t in rng.sample(traces, n)]


def _interesting(
    traces: list[Trace], settings: SelectionSettings, rng: random.Random, interest: _Interest
) -> list[Pick]:
    """A random share first, then the most interesting of what is left."""
    ranked = sorted(traces, key=lambda t: (-interest(t), t.case.case_id))
    n = min(settings.train_labels, len(ranked))
    n_random = min(max(round(n * settings.random_share), 1), n)
    at_random = rng.sample(range(len(ranked)), n_random)
    taken = set(at_random)
    chosen = [rank for rank in range(len(ranked)) if rank not in taken][: n - n_random]
    return [
        Pick(
            trace_id=ranked[rank].trace_id,
            propensity=_propensity(rank, len(ranked), n_random, n - n_random),
            reason="a random share" if rank in taken else interest.why(ranked[rank]),
        )
        for rank in (*at_random, *chosen)
    ]


def _propensity(rank: int, n: int, n_random: int, n_chosen: int) -> float:
    """Probability that the trace at `rank` is picked, whichever way.

    It is drawn at random, or enough of the `rank` traces before it are (hypergeometric) for its turn to come.
    """
    if rank < n_chosen or n_random == n:
        return 1.0
    drawn = n_random / n
    ways = sum(
        math.comb(rank, before) * math.comb(n - 1 - rank, n_random - before)
        for before in range(rank - n_chosen + 1, min(rank, n_random) + 1)
    )
    return min(drawn + (1 - drawn) * (ways / math.comb(n - 1, n_random)), 1.0)


def _doubt(trace: Trace) -> float:
    confidence = trace.attempts[0].steps[0].confidence if trace.attempts and trace.attempts[0].steps else None
    return 0.5 if confidence is None else 1 - confidence
