"""The error budget that all verdicts of a project share, for its lifetime. It only ever spends.

Family-wise (default): the k-th test gets α_k = 6α/(π²k²). The α_k sum to α, so by the union bound the
probability of even one false promotion in the whole lifetime is at most α, whatever the tests have in common.
e-LOND (Xu & Ramdas 2024, "Online multiple testing with e-values"): α_k = α γ_k (R + 1), γ_k = 6/(π²k²), R =
promotions so far; holds the false discovery rate below α under any dependence, and buys power after wins.

Pure: each function returns a new ledger. What is stored is the log of what was done
    (`ratchet.infra.registry.event_log`), and whoever
comes second in it is refused: two runs cannot both spend the next share.
"""

import math
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from ratchet.agent.errors import BadInput
from ratchet.evaluation.gate.verdict import VerdictKind

Spending = Literal["family-wise", "e-LOND"]


class Entry(BaseModel):
    """One test: its share of the budget, and how it ended."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    k: Annotated[int, Field(ge=1)]
    """Place within its budget, from 1."""
    budget: Annotated[int, Field(ge=1)]
    """Which budget it spends from: 1, or one more for each refresh."""
    alpha_k: Annotated[float, Field(gt=0, lt=1)]
    candidate: Annotated[str, Field(min_length=1)]
    """Content hash of the challenger."""
    champion: str = ""
    """Content hash of what it is compared with; empty = written before this was kept, and proves nothing."""
    opened_at: AwareDatetime
    closed_at: AwareDatetime | None = None
    decision: VerdictKind | None = None
    """None = still open; `continue` = given up without a verdict, its share stays spent."""
    e_value: float | None = None

    @property
    def threshold(self) -> float:
        """Evidence that promotes."""
        return 1 / self.alpha_k

    @property
    def proven(self) -> bool:
        """Whether it ended with the evidence that promotes."""
        return self.decision == "promote" and (self.e_value or 0.0) >= self.threshold


class Refresh(BaseModel):
    """A person granted a new budget: from here on the promise is per budget and no longer per lifetime."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    budget: Annotated[int, Field(ge=2)]
    granted_by: Annotated[str, Field(min_length=1)]
    because: Annotated[str, Field(min_length=1)]
    at: AwareDatetime


class Ledger(BaseModel):
    """Every test that was ever opened, in order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    spending: Spending = "family-wise"
    smallest_alpha: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    """Below this share a test would need so many labels that the budget counts as exhausted."""
    entries: tuple[Entry, ...] = ()
    refreshes: tuple[Refresh, ...] = ()

    @property
    def budget(self) -> int:
        """The budget now in force, from 1."""
        return len(self.refreshes) + 1

    @property
    def current(self) -> tuple[Entry, ...]:
        """Tests of the budget now in force."""
        return tuple(entry for entry in self.entries if entry.budget == self.budget)

    @property
    def next_alpha(self) -> float:
        """Share that the next test would get."""
        k = len(self.current) + 1
        share = 6 * self.alpha / (math.pi * k) ** 2
        if self.spending == "e-LOND":
            share *= 1 + sum(entry.decision == "promote" for entry in self.current)
        return min(share, self.alpha)

    @property
    def spent(self) -> float:
        """Sum of the shares given out from the budget now in force."""
        return math.fsum(entry.alpha_k for entry in self.current)

    @property
    def exhausted(self) -> bool:
        """Whether a person must grant a new budget before the next test."""
        return self.next_alpha < self.smallest_alpha

    @property
    def summary(self) -> str:
        """One sentence for a person."""
        kind = "family-wise error" if self.spending == "family-wise" else "false discovery rate"
        head = f"{len(self.current)} tests, {self.spent:.3g} of {self.alpha:g} {kind} spent"
        if self.refreshes:
            last = self.refreshes[-1]
            head += f", budget {self.budget} (granted by {last.granted_by}: {last.because})"
        if self.exhausted:
            return (
                f"{head}; exhausted: the next test would get {self.next_alpha:.2g} < {self.smallest_alpha:g}"
            )
        return f"{head}; the next test needs e ≥ {1 / self.next_alpha:,.4g}"


def open_test(
    ledger: Ledger,
    *,
    candidate: str,
    now: AwareDatetime,
    champion: str = "",
) -> Ledger:
    """Spend the next share on `candidate` against `champion`; its entry is `entries[-1]` of the ledger returned.

    Raises:
        BadInput: the budget is exhausted, or the candidate already has an open test.
    """
    for entry in ledger.entries:
        if entry.candidate == candidate and entry.decision is None:
            raise BadInput(
                f"candidate {candidate!r} already has open test {entry.k}; continue it or close it first"
            )
    if ledger.exhausted:
        raise BadInput(
            f"error budget exhausted: {ledger.summary}; "
            "a person may grant a new one, with a reason, by `ratchet budget --grant`"
        )
    entry = Entry(
        k=len(ledger.current) + 1,
        budget=ledger.budget,
        alpha_k=ledger.next_alpha,
        candidate=candidate,
        champion=champion,
        opened_at=now,
    )
    return _changed(ledger, entries=(*ledger.entries, entry))


def close_test(
    ledger: Ledger,
    *,
    candidate: str,
    decision: VerdictKind,
    e_value: float,
    now: AwareDatetime,
    champion: str = "",
) -> Ledger:
    """Write how the open test of `candidate` ended; the share stays spent whatever the decision.

    Raises:
        BadInput: there is no open test, or a promotion's e-value does not reach the threshold that its share demands.
    """
    entry = open_entry(ledger, candidate)
    if champion and entry.champion != champion:
        raise BadInput(
            f"candidate {candidate!r} has its open test against {entry.champion!r}, not {champion!r}: "
            "what was found against the one says nothing about the other"
        )
    if decision == "promote" and not e_value >= entry.threshold:
        raise BadInput(
            f"e = {e_value:.4g} < {entry.threshold:.4g} = 1/α for test {entry.k}; "
            "the gate was run with another alpha: use the entry's alpha_k"
        )
    closed = entry.model_copy(update={"decision": decision, "e_value": e_value, "closed_at": now})
    return _changed(ledger, entries=tuple(closed if e is entry else e for e in ledger.entries))


def open_entry(ledger: Ledger, candidate: str) -> Entry:
    """The open test of `candidate`; BadInput when there is none."""
    for entry in ledger.entries:
        if entry.candidate == candidate and entry.decision is None:
            return entry
    raise BadInput(f"candidate {candidate!r} has no open test in the ledger; open one before the first case")


def last_test(ledger: Ledger, candidate: str, champion: str) -> Entry | None:
    """The newest test of `candidate` against `champion`; None if there was none."""
    found = (e for e in reversed(ledger.entries) if (e.candidate, e.champion) == (candidate, champion))
    return next(found, None)


def refresh(ledger: Ledger, *, granted_by: str, because: str, now: AwareDatetime) -> Ledger:
    """Start a new budget, in a person's name and with a reason; earlier entries stay as they are."""
    grant = Refresh(budget=ledger.budget + 1, granted_by=granted_by, because=because, at=now)
    return _changed(ledger, refreshes=(*ledger.refreshes, grant))


def _changed(ledger: Ledger, **update: object) -> Ledger:
    return Ledger.model_validate(dict(ledger) | update)
