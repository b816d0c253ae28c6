"""What the agent does and how well it goes, watched for each version: a promotion changes both on purpose.

So a version is compared with its own first traces, and the watch begins anew with the next one. What people ask is
watched across versions, elsewhere; `combined_state` makes one verdict of both.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from pydantic import model_validator

from ratchet.agent.record import Record, as_text
from ratchet.agent.trace import Trace
from ratchet.evaluation.drift.attribution import Attribution
from ratchet.evaluation.drift.message import GROUPS, Group, Message
from ratchet.evaluation.drift.monitor import DriftMonitor, OtherMonitor
from ratchet.evaluation.drift.remembered import RECENT, tail
from ratchet.evaluation.drift.state import DriftState

BEHAVIOUR_GROUPS: Final[tuple[Group, ...]] = ("behaviour", "outcome")


class BehaviourState(Record):
    """What is remembered of the version that serves."""

    candidate: str
    reference: tuple[str, ...] = ()
    """Ids of its first traces: what is usual for it."""
    seen: tuple[str, ...] = ()
    """Ids of its newest messages, in the order of the monitor's message numbers."""
    n_seen: int = 0
    """How many there ever were."""
    monitor: str | None = None
    """The drift monitor's own JSON; None while the reference is gathered."""

    @model_validator(mode="before")
    @classmethod
    def _counted(cls, given: Any) -> Any:
        """What an earlier version stored: all ids, and no count."""
        if not isinstance(given, dict) or "n_seen" in given:
            return given
        seen = given.get("seen", ())
        return {**given, "seen": seen[-RECENT:], "n_seen": len(seen)}

    def trace_of(self, number: int) -> str | None:
        """Id of a message by its number; None = so long ago that it is forgotten."""
        place = number - (self.n_seen - len(self.seen))
        return self.seen[place] if 0 <= place < len(self.seen) else None


class BehaviourMonitor:
    """Follows the version that most of a window was served by."""

    def __init__(
        self,
        behaviour: BehaviourState | None,
        *,
        reference: int,
        alpha: float,
        traces: Mapping[str, Trace],
        seed: int = 0,
    ) -> None:
        """Go on from `behaviour`; of its reference in `traces` a monitor is made in place of another version's."""
        self.behaviour = behaviour
        self._reference, self._alpha, self._seed = reference, alpha, seed
        self._monitor: DriftMonitor | None = None
        if behaviour is None or behaviour.monitor is None:
            return
        try:
            self._monitor = DriftMonitor.from_json(behaviour.monitor)
        except OtherMonitor:
            self.behaviour = behaviour.model_copy(update={"seen": (), "n_seen": 0, "monitor": None})
            self._begin(traces)

    def update(self, window: Sequence[Trace], traces: Mapping[str, Trace]) -> DriftState | None:
        """Evidence after the window; None while there is no reference."""
        if not window:
            return None
        serving = Counter(trace.candidate_id for trace in window).most_common(1)[0][0]
        if self.behaviour is None or self.behaviour.candidate != serving:
            self.behaviour, self._monitor = BehaviourState(candidate=serving), None
        own = [trace for trace in window if trace.candidate_id == serving]
        ids = tuple(trace.trace_id for trace in own)
        if self._monitor is not None:
            seen = tail((*self.behaviour.seen, *ids), RECENT)
            counted = {"seen": seen, "n_seen": self.behaviour.n_seen + len(ids)}
            self.behaviour = self.behaviour.model_copy(update=counted)
            return self._monitor.update([as_behaviour(trace) for trace in own])
        usual = (*self.behaviour.reference, *ids)
        self.behaviour = self.behaviour.model_copy(update={"reference": usual})
        self._begin(traces)
        return None

    def _begin(self, traces: Mapping[str, Trace]) -> None:
        """Watch, once there are enough traces to say what is usual."""
        usual = self.behaviour.reference if self.behaviour else ()
        there = [as_behaviour(traces[i]) for i in usual if i in traces]
        if len(there) >= self._reference:
            self._monitor = DriftMonitor(there, alpha=self._alpha, seed=self._seed)

    def explain(self, place: Mapping[str, int]) -> Attribution | None:
        """What changed, in the message numbers that `place` gives for trace ids; None before any window."""
        if self._monitor is None or self.behaviour is None or not self._monitor.n_seen:
            return None
        said, earliest = self._monitor.explain(), min(place.values(), default=0)
        low, message, high = (
            place.get(self.behaviour.trace_of(number) or "", earliest)
            for number in (said.onset.low, said.onset.message, said.onset.high)
        )
        change = said.onset.model_copy(update={"low": low, "message": message, "high": high})
        told = said.reason.replace(said.onset.words, change.words)
        return said.model_copy(update={"onset": change, "reason": told})

    def since(self, state: DriftState, place: Mapping[str, int]) -> int | None:
        """The state's change point in the message numbers that `place` gives for trace ids."""
        if state.since is None or self.behaviour is None:
            return None
        return place.get(self.behaviour.trace_of(state.since) or "", min(place.values(), default=0))

    def record(self) -> BehaviourState | None:
        """What to remember, with the monitor as it is now."""
        if self.behaviour is None or self._monitor is None:
            return self.behaviour
        return self.behaviour.model_copy(update={"monitor": self._monitor.to_json()})


def as_behaviour(trace: Trace) -> Message:
    """What the agent did about a request and how it went, without the request."""
    first = trace.attempts[0].steps[0] if trace.attempts and trace.attempts[0].steps else None
    return Message(
        session=trace.session_id,
        at=trace.started_at,
        slice=trace.case.slice,
        tool=trace.first_action.name if trace.first_action else None,
        steps=trace.n_steps,
        retries=max(len(trace.attempts) - 1, 0),
        latency_s=trace.latency_s,
        confidence=first.confidence if first else None,
        outcome=trace.first_score,
        numbers={"tokens": float(trace.usage.input_tokens + trace.usage.output_tokens)} | _length(trace),
    )


def _length(trace: Trace) -> dict[str, float]:
    """Words of a free answer: as a category each would be one of its own."""
    return {"answer_words": float(len(as_text(trace.answer).split()))} if trace.is_free else {}


def combined_state(asked: DriftState, behaviour: DriftState | None, since: int | None) -> DriftState:
    """One state of both: the mean over the groups that have evidence; `since` is the behaviour's change point."""
    if behaviour is None:
        return asked
    groups = {"input": asked.input, "behaviour": behaviour.behaviour, "outcome": behaviour.outcome}
    known = [value for value in groups.values() if value > 0.0]
    e_value = float(np.mean(known)) if known else 0.0
    alarm = e_value >= asked.threshold
    begun = [one for one in (asked.since, since) if one is not None]
    return asked.model_copy(
        update={
            **groups,
            "e_value": e_value,
            "alarm": alarm,
            "since": min(begun, default=0) if alarm else None,
            "families": asked.families | behaviour.families,
        }
    )


def combined_attribution(state: DriftState, asked: Attribution, behaviour: Attribution | None) -> Attribution:
    """What changed, the cause first: what people ask explains what the agent does, not the reverse."""
    kinds = tuple(group for group in GROUPS if group in state.groups) or asked.kinds
    if behaviour is None or not set(kinds) & set(BEHAVIOUR_GROUPS):
        said = asked
    elif "input" in kinds:
        said = asked.model_copy(update={"reason": f"{asked.reason} Then: {behaviour.reason}"})
    else:
        said = behaviour
    carried = sum(state.families.values())
    shares = {name: value / carried for name, value in state.families.items()} if carried else {}
    return said.model_copy(
        update={"kinds": kinds, "families": shares, "surge": said.surge and len(kinds) == 1}
    )
