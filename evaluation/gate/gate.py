"""Champion against challenger: evidence in, verdict out. Promote only what is shown to be better.

Guarantee. If the challenger's true gain is at most `min_gain`, then the probability that this gate ever says
`promote`, however often it is asked and whenever it stops, is at most `alpha` (an e-process and Ville's
inequality; the theorems stand in `ratchet.evaluation.gate.betting` and `.horizon`). Slices, exclusions and a
person can only take a promotion away; a judge changes how many labels it takes, never how often it is wrong.
Needs: cases drawn alike, and labels that are a random sample of them, or picked with the stated propensities; see
`ratchet.evaluation.gate.evidence`.

The interval beside the verdict is a two-sided confidence sequence, intersected over every bet. What that
guarantees: where alpha ≤ (1 − confidence)/2, a promotion's interval lies above `min_gain`, for the bet that
promoted refuted it there, too. At a larger alpha the one-sided test needs less evidence than either end of the
interval, as does a test with a horizon; where the two then seem to disagree the sentence says so.
"""

import json
import math
from collections.abc import Iterable, Iterator
from copy import deepcopy
from typing import Annotated, Any, Final, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ratchet.agent.errors import BadInput, CorruptRecord
from ratchet.evaluation.data.arrays import Floats
from ratchet.evaluation.gate.betting import (
    EVERYTHING,
    KAPPA,
    NO_PRIOR,
    Run,
    Wealth,
    bet,
    confidence_sequence,
    log_e_above,
    log_e_below,
    narrowed,
)
from ratchet.evaluation.gate.evidence import Bet, Intake
from ratchet.evaluation.gate.horizon import Counts, Horizon, SignTest
from ratchet.evaluation.gate.pairs import Pair
from ratchet.evaluation.gate.provenance import Provenance, Registration
from ratchet.evaluation.gate.slices import SliceEvidence, Slices
from ratchet.evaluation.gate.verdict import (
    SideBySide,
    Tally,
    Verdict,
    VerdictKind,
    WealthPoint,
    verdict_sentence,
)

__all__ = ["Gate", "GatePolicy", "Pair", "Registration", "SideBySide", "SliceEvidence", "Verdict", "decide"]

BLOCK: Final = 512
"""Bets per vectorized step: bounded memory on input of any length, and it fits into the cache."""
STATE_SCHEMA: Final = 3
_BEFORE_HORIZONS: Final = 2
"""A state of this schema has none, and goes on as it began."""
_LARGEST_LOG: Final = 690.0
"""e-values are shown up to e^690, just below the largest float."""


class GatePolicy(BaseModel):
    """What counts as better, and how sure to be; fixed before the first pair."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Probability of a false promotion of this one test; in a project the ledger hands it out."""
    min_gain: Annotated[float, Field(gt=-1, lt=1)] = 0.0
    """Promote above this mean gain; negative = non-inferiority, for "as good but cheaper or faster"."""
    reject_alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Probability of stopping a challenger whose gain is at least `min_gain` as if it were worse."""
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    slice_alpha: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Probability that any slice without harm ever blocks, all slices together."""
    slice_tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """A slice blocks when its mean gain is shown to be below −tolerance (or below a negative min_gain)."""
    min_propensity: Annotated[float, Field(gt=0, le=1)] | None = None
    """Smallest propensity that any pair may have; set = labels were chosen, unset = a plain random sample."""
    max_excluded: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the labelled pairs that may be excluded for a fault; above it nothing is promoted."""
    horizon: Horizon | None = None
    """Decisive labels until which the verdict is wanted (`plan_horizon`); None: as many as it takes."""

    @model_validator(mode="after")
    def _horizon_fits(self) -> Self:
        if self.horizon is None:
            return self
        if self.min_gain or self.min_propensity is not None:
            raise ValueError("a horizon's sign test needs min_gain = 0 and labels that are a plain sample")
        if not self.horizon.size < self.alpha:
            raise ValueError(
                f"the horizon's sign test takes {self.horizon.size:.3g} of alpha = {self.alpha:.3g}: "
                "plan it from the test's own share"
            )
        return self

    @property
    def slice_floor(self) -> float:
        """Mean gain below which a slice is harmed."""
        return min(-self.slice_tolerance, self.min_gain, 0.0)


def decide(
    pairs: Iterable[Pair],
    *,
    alpha: float = 0.05,
    min_gain: float = 0.0,
    policy: GatePolicy | None = None,
    registration: Registration | None = None,
) -> Verdict:
    """Verdict on pairs in the order in which they came: the first crossing; later pairs do not undo it.

    `policy` replaces `alpha` and `min_gain` and says the rest. Raises BadInput (no partial verdict) when a
    pair breaks a rule: repeated case, returning cluster, uneven propensity, changed candidate or judge.
    """
    gate = Gate(policy or GatePolicy(alpha=alpha, min_gain=min_gain), registration)
    gate.extend(pairs)
    gate.finish()
    return gate.verdict()


class Gate:
    """The same, one pair at a time: `update`, ask for the `verdict` whenever wanted, keep the state."""

    def __init__(self, policy: GatePolicy | None = None, registration: Registration | None = None) -> None:
        self.policy = policy or GatePolicy()
        self._provenance = Provenance(registration)
        self._intake = Intake(self.policy.min_propensity)
        self._slices = Slices()
        self._tally = Tally()
        self._wealth = Wealth.start()
        self._sign_test = SignTest(self.policy.alpha, self.policy.horizon)
        self._ends = EVERYTHING
        self._crossing: tuple[VerdictKind, int, float] | None = None
        self._bounds = self._intake.bounds

    def update(self, pair: Pair) -> None:
        """Take one pair. On BadInput nothing has changed."""
        self._provenance.check(pair)
        self._bet(self._admit(pair))

    def extend(self, pairs: Iterable[Pair]) -> None:
        """Take many pairs, vectorized; equal to `update` on each, bit for bit.

        When a pair is refused, the pairs before it have been taken.
        """
        source = iter(pairs)
        bets: list[Bet] = []
        try:
            for pair in source:
                self._provenance.check(pair)
                bets.extend(self._admit(pair))
                if len(bets) >= BLOCK:
                    ready, bets = bets, []
                    self._bet(ready)
        finally:
            self._bet(bets)

    def finish(self) -> None:
        """No more pairs of the last cluster will come: make its bet."""
        self._bet(self._intake.finish())

    def verdict(self) -> Verdict:
        """What the pairs so far support."""
        rules, seen = self.policy, self._intake
        bets = int(self._wealth.bets)
        ci, steady = self._interval()
        slices = self._slices.evidence(rules.slice_alpha, rules.slice_floor, self._bounds)
        blocked = tuple(_blocks(slices, seen, rules))
        decision: VerdictKind = self._crossing[0] if self._crossing else "continue"
        if any(part.harmed for part in slices):
            decision = "reject"
        elif blocked and decision == "promote":
            decision = "continue"
        log_e = self._log_e()
        draft = Verdict(
            decision=decision,
            gain=float(self._wealth.mean) if bets else None,
            ci=ci,
            steady=steady,
            confidence=rules.confidence,
            min_gain=rules.min_gain,
            e_value=math.exp(min(log_e[0], _LARGEST_LOG)),
            threshold=1 / rules.alpha,
            harm_e_value=math.exp(min(log_e[1], _LARGEST_LOG)),
            harm_threshold=1 / rules.reject_alpha,
            n_seen=seen.seen,
            n_bets=bets,
            n_labelled=seen.labelled,
            n_judged=seen.judged,
            decided_at=self._crossing[1] if self._crossing else None,
            excluded=dict(seen.excluded),
            blocked_by=blocked,
            slices=slices,
            cost=self._tally.side_by_side("cost"),
            latency=self._tally.side_by_side("latency"),
            reason="",
        )
        return draft.model_copy(update={"reason": verdict_sentence(draft)})

    def snapshot(self) -> WealthPoint | None:
        """The test as of now, without regard to what it decided before; None before the first bet."""
        bets = int(self._wealth.bets)
        if not bets:
            return None
        (low, high), _ = self._interval()
        above, below = self._log_e_now()
        return WealthPoint(
            n_bets=bets,
            e_value=math.exp(min(above, _LARGEST_LOG)),
            harm_e_value=math.exp(min(below, _LARGEST_LOG)),
            gain=float(self._wealth.mean),
            low=low,
            high=high,
        )

    def log_e_after(self, wins: Counts, losses: Counts) -> Floats:
        """Ln e for promotion if so many more wins and losses came, whole numbers, each [N]; [N]."""
        up, down = (count[:, None] * np.log1p(sign * KAPPA) for count, sign in ((wins, 1), (losses, -1)))
        n = (wins + losses)[:, None]
        sums = np.concatenate([self._wealth.bets + n, np.zeros((n.size, 3))], axis=-1)
        more = Wealth(self._wealth.up + up + down, self._wealth.down, sums)
        return self._log_up(more, wins, losses)

    def copy(self, **policy: float) -> "Gate":
        """Another gate that goes on from here, with these fields of its policy; it shares nothing that moves."""
        twin = Gate(GatePolicy.model_validate(dict(self.policy) | policy) if policy else self.policy)
        twin._provenance = deepcopy(self._provenance)
        twin._intake = self._intake.copy()
        twin._slices = Slices(dict(self._slices.wealth))
        twin._tally = Tally.restore(self._tally.state())
        twin._wealth, twin._sign_test = self._wealth, self._sign_test
        twin._ends, twin._crossing = self._ends, self._crossing
        return twin

    def to_json(self) -> str:
        """The whole state; `from_json` gives a gate that goes on exactly as this one would."""
        return json.dumps(
            {
                "schema": STATE_SCHEMA,
                "policy": self.policy.model_dump(mode="json"),
                "provenance": self._provenance.state(),
                "intake": self._intake.state(),
                "slices": self._slices.state(),
                "tally": self._tally.state(),
                "wealth": {name: value.tolist() for name, value in vars(self._wealth).items()},
                "sign_test": self._sign_test.state(),
                "ends": self._ends,
                "crossing": self._crossing,
            }
        )

    @staticmethod
    def from_json(state: str) -> "Gate":
        """The inverse of `to_json`; CorruptRecord when it does not parse, BadInput when of another schema."""
        try:
            parts: dict[str, Any] = json.loads(state)
            return Gate._restore(parts)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorruptRecord(f"gate state does not parse ({error!r}): start a new test") from None

    @staticmethod
    def _restore(parts: dict[str, Any]) -> "Gate":
        if parts.get("schema") not in (STATE_SCHEMA, _BEFORE_HORIZONS):
            raise BadInput(
                f"gate state has schema {parts.get('schema')!r}, expected {STATE_SCHEMA}: start a new test"
            )
        gate = Gate(GatePolicy.model_validate(parts["policy"]))
        gate._provenance = Provenance.restore(parts["provenance"])
        gate._intake = Intake.restore(parts["intake"])
        gate._slices = Slices.restore(parts["slices"])
        gate._tally = Tally.restore(parts["tally"])
        gate._wealth = Wealth(**{name: np.array(value) for name, value in parts["wealth"].items()})
        if parts["schema"] != _BEFORE_HORIZONS:
            gate._sign_test = gate._sign_test.restore(parts["sign_test"])
        low, high = parts["ends"]
        gate._ends = (float(low), float(high))
        crossing = parts["crossing"]
        gate._crossing = (crossing[0], crossing[1], crossing[2]) if crossing else None
        return gate

    def _admit(self, pair: Pair) -> list[Bet]:
        bets = self._intake.add(pair)
        self._tally.add(pair)
        return bets

    def _bet(self, bets: list[Bet]) -> None:
        if not bets:
            return
        before = int(self._wealth.bets)
        a, c = np.array([b.a for b in bets]), np.array([b.c for b in bets])
        registered = self._provenance.registration
        prior = registered.trust if registered else NO_PRIOR
        run = bet(self._wealth, a, c, null=self.policy.min_gain, bounds=self._bounds, prior=prior)
        self._wealth = run.wealth
        self._ends = narrowed(self._ends, run.path, confidence=self.policy.confidence, bounds=self._bounds)
        self._slices.bet((part for b in bets for part in b.parts), self._bounds)
        log_e = run.log_up
        if self.policy.horizon is not None:
            plain = np.array([b.alone and not b.c for b in bets])
            self._sign_test, log_e = self._sign_test.after(a, plain, run.path)
        if self._crossing is None:
            self._crossing = self._first_crossing(run, log_e, before)

    def _first_crossing(self, run: Run, log_e: Floats, before: int) -> tuple[VerdictKind, int, float] | None:
        up = np.flatnonzero(log_e >= -math.log(self.policy.alpha))
        down = np.flatnonzero(run.log_down >= -math.log(self.policy.reject_alpha))
        if up.size and (not down.size or up[0] <= down[0]):
            return "promote", before + int(up[0]) + 1, float(log_e[up[0]])
        if down.size:
            return "reject", before + int(down[0]) + 1, float(run.log_down[down[0]])
        return None

    def _interval(self) -> tuple[tuple[float, float], bool]:
        """The intersection over time and True; where that is empty, the interval of all bets and False."""
        low, high = self._ends
        if low <= high:
            return (low, high), True
        now = confidence_sequence(self._wealth, confidence=self.policy.confidence, bounds=self._bounds)
        return (float(now[0]), float(now[1])), False

    def _log_e(self) -> tuple[float, float]:
        """Ln e for promotion and for harm: now, or at the crossing for the side that crossed."""
        above, below = self._log_e_now()
        if self._crossing and self._crossing[0] == "promote":
            above = self._crossing[2]
        elif self._crossing:
            below = self._crossing[2]
        return above, below

    def _log_e_now(self) -> tuple[float, float]:
        below = log_e_below(self._wealth, self.policy.min_gain, self._bounds)
        return float(self._log_up(self._wealth)), float(below)

    def _log_up(self, wealth: Wealth, won: Counts | int = 0, lost: Counts | int = 0) -> Floats:
        """Ln e for promotion at `wealth`, which holds so many labels more than were taken."""
        if self.policy.horizon is None:
            return log_e_above(wealth, self.policy.min_gain, self._bounds)
        return self._sign_test.log_e(wealth, won, lost)


def _blocks(slices: Iterable[SliceEvidence], seen: Intake, rules: GatePolicy) -> Iterator[str]:
    for part in slices:
        if part.harmed:
            evidence = f"gain {part.gain:+.3f} on {part.n_bets}, e = {part.e_value:.3g}"
            yield f"slice {part.name!r} is worse: {evidence}"
    wanted = seen.labelled + seen.faulty
    if seen.faulty > rules.max_excluded * wanted:
        yield (
            f"{seen.faulty} of {wanted} labelled pairs excluded for a fault, limit {rules.max_excluded:.0%}: "
            "repair and run them again"
        )
