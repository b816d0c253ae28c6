"""What the gate answers, and the one sentence that a person reads."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from ratchet.evaluation.gate.pairs import Pair
from ratchet.evaluation.gate.slices import SliceEvidence

VerdictKind = Literal["promote", "reject", "continue"]

SAID: Final[Mapping[str, str]] = {"promote": "proven", "reject": "refused", "continue": "not yet"}
"""The word that a person reads for each decision, on every screen and picture; data hold the decision."""


class SideBySide(BaseModel):
    """Champion's and challenger's mean over the pairs that state both."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    champion: float
    challenger: float
    n: int


class Verdict(BaseModel):
    """The decision with its evidence; self-contained, so that it can be stored and read years later."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    decision: VerdictKind
    gain: float | None
    """Estimated mean of challenger − champion on the human scale; None before the first bet."""
    ci: tuple[float, float]
    """Confidence sequence for the gain, intersected over every bet: covers at every n at once with probability ≥
    confidence. Above `min_gain` in every promotion at alpha ≤ (1 − confidence)/2 that no horizon helped."""
    steady: bool = True
    """False = what early bets refuted, later ones call likely: the gain moved during the test (or the promised
    1 − confidence happened), no single value fits, and `ci` is that of all bets together."""
    confidence: float
    min_gain: float
    e_value: float
    """Evidence for gain > min_gain: at the crossing if promoted, now otherwise; promotes at `threshold`."""
    threshold: float
    harm_e_value: float
    """Evidence for gain < min_gain; rejects at `harm_threshold`."""
    harm_threshold: float
    n_seen: int
    n_bets: int
    """Bets made: labelled pairs, or clusters of them (every pair where labels were chosen)."""
    n_labelled: int
    n_judged: int
    decided_at: int | None
    """Number of bets at the first crossing."""
    excluded: dict[str, int]
    """Reason to number of pairs."""
    blocked_by: tuple[str, ...]
    slices: tuple[SliceEvidence, ...]
    cost: SideBySide | None
    latency: SideBySide | None
    """Seconds."""
    reason: str
    """One sentence for a person."""
    n_alike: int = Field(default=0, exclude_if=lambda n: not n)
    """Cases at which both answered the same, so that nobody was asked: bets of 0."""
    n_waiting: int = Field(default=0, exclude_if=lambda n: not n)
    """Cases about which people were asked and have not said: bets, too, the worst that they can be."""
    screening: str = ""
    """Why this was no full test, in words; empty = it was. What is only screened serves by a person's word alone,
    never by a policy's."""


class WealthPoint(NamedTuple):
    """The state of a test after `n_bets` bets; a point of the picture."""

    n_bets: int
    e_value: float
    harm_e_value: float
    gain: float
    low: float
    high: float


@dataclass
class Tally:
    """Sums of cost and latency over pairs that state both sides."""

    sums: dict[str, list[float]] = field(default_factory=dict)

    def add(self, pair: Pair) -> None:
        """Count one pair."""
        if pair.champion_cost is not None:
            self._add("cost", pair.champion_cost, pair.challenger_cost)
        if pair.champion_latency is not None:
            self._add("latency", pair.champion_latency, pair.challenger_latency)

    def _add(self, what: str, champion: float, challenger: float | None) -> None:
        if challenger is None:
            return
        totals = self.sums.setdefault(what, [0.0, 0.0, 0])
        totals[0] += champion
        totals[1] += challenger
        totals[2] += 1

    def side_by_side(self, what: str) -> SideBySide | None:
        """Means of `cost` or `latency`; None when no pair states it."""
        if what not in self.sums:
            return None
        champion, challenger, n = self.sums[what]
        return SideBySide(champion=champion / n, challenger=challenger / n, n=int(n))

    def state(self) -> dict[str, Any]:
        """Everything as plain JSON."""
        return {what: list(totals) for what, totals in self.sums.items()}

    @staticmethod
    def restore(state: dict[str, Any]) -> "Tally":
        """The inverse of `state`."""
        return Tally({what: list(totals) for what, totals in state.items()})


def screened(verdict: Verdict, why: str) -> Verdict:
    """The verdict of a test that was none in full, which every sentence about it says first."""
    return verdict.model_copy(
        update={"screening": why, "reason": f"screening, not a full test ({why}): {verdict.reason}"}
    )


def with_unanswered(
    low: Verdict,
    high: Verdict | None,
    *,
    labelled: int,
    alike: int,
    waiting: int,
    blocked: tuple[str, ...] = (),
    gain: float | None = None,
) -> Verdict:
    """One verdict of a test in which questions wait.

    Args:
        low: with every unanswered one as a loss: what may promote.
        high: with every unanswered one as a win: what may reject, as a whole or for a slice; None = nothing waits.
        labelled: cases of which both scores are known.
        alike: cases at which both answered the same.
        waiting: cases that are not answered.
        blocked: what else keeps it from being promoted.
        gain: estimate without these, if any wait; the interval holds whatever they will be.
    """
    if high is None:
        high, gain = low, low.gain
    blocked = (*high.blocked_by, *blocked)
    decision: VerdictKind = "continue"
    if high.decision == "reject":
        decision = "reject"
    elif low.decision == "promote" and not blocked:
        decision = "promote"
    found = low.model_copy(
        update={
            "decision": decision,
            "gain": gain,
            "ci": (low.ci[0], high.ci[1]),
            "harm_e_value": high.harm_e_value,
            "harm_threshold": high.harm_threshold,
            "decided_at": high.decided_at if decision == "reject" else low.decided_at,
            "blocked_by": blocked,
            "slices": high.slices,
            "n_labelled": labelled,
            "n_alike": alike,
            "n_waiting": waiting,
        }
    )
    return found.model_copy(update={"reason": verdict_sentence(found)})


def verdict_sentence(verdict: Verdict) -> str:
    """One sentence: "+0.061 on 214 labelled cases, 95 % interval …, e = 48 ≥ 40: proven"."""
    if verdict.gain is None and verdict.n_waiting:
        return f"{verdict.n_waiting:,} questions wait for people: {SAID[verdict.decision]}"
    if verdict.gain is None:
        why = ", ".join(f"{count:,} {reason}" for reason, count in verdict.excluded.items()) or "no pairs"
        return f"no usable evidence ({why}): {SAID[verdict.decision]}"
    cases = f"{verdict.n_labelled:,} labelled"
    if verdict.n_judged:
        cases += f" and {verdict.n_judged:,} judged"
    cases += " cases"
    if verdict.n_alike:
        cases += f" and {verdict.n_alike:,} answered alike"
    if verdict.n_waiting:
        cases += f", {verdict.n_waiting:,} unanswered ones counted at their worst"
    low, high = verdict.ci
    parts = [
        f"{verdict.gain:+.3f} on {cases}",
        f"{verdict.confidence * 100:g} % interval {low:+.3f}…{high:+.3f}{_beside(verdict)}",
        _evidence(verdict),
    ]
    if verdict.decided_at is not None and verdict.decided_at < verdict.n_bets:
        parts[-1] += f" at bet {verdict.decided_at:,}"
    blocked = f" (blocked: {'; '.join(verdict.blocked_by)})" if verdict.blocked_by else ""
    return f"{', '.join(parts)}: {SAID[verdict.decision]}{blocked}"


def _beside(verdict: Verdict) -> str:
    """Why the interval may hold a gain that the decision denies."""
    if not verdict.steady:
        return " (the gain moved during the test: early cases alone say otherwise)"
    low, high = verdict.ci
    promoted = verdict.decision == "promote" and low <= verdict.min_gain
    refused = verdict.harm_e_value >= verdict.harm_threshold and high >= verdict.min_gain
    if not promoted and not (verdict.decision == "reject" and refused):
        return ""
    alpha = 1 / (verdict.threshold if promoted else verdict.harm_threshold)
    return f" (two-sided, so wider than the one-sided test at α = {alpha:.3g})"


def _evidence(verdict: Verdict) -> str:
    floor = f" for gain > {verdict.min_gain:+g}" if verdict.min_gain else ""
    if verdict.harm_e_value >= verdict.harm_threshold and verdict.decision == "reject":
        what = f" for gain < {verdict.min_gain:+g}" if verdict.min_gain else " for harm"
        return f"e = {_short(verdict.harm_e_value)} ≥ {_short(verdict.harm_threshold)}{what}"
    sign = "≥" if verdict.e_value >= verdict.threshold else "<"
    return f"e = {_short(verdict.e_value)} {sign} {_short(verdict.threshold)}{floor}"


def _short(value: float) -> str:
    return f"{value:,.3g}" if value < 1e6 else f"{value:.1e}"
