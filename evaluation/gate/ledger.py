"""The error budget that all verdicts of a project share, for its lifetime: a reserve that lends shares and gets back.

Family-wise (default): the reserve begins at α. Opening the k-th test takes a = max(0.1, 0.6/k) · reserve. A promotion
gives a back; closing without one gives back a · min(1, e), e being the evidence then, with every question that was
asked and has no answer counted as a loss. Proof that the probability of even one false promotion in the whole
lifetime is at most α, whatever the tests have in common: Z = reserve + Σ a·e over open tests of challengers that are
no better + Σ a over the other open ones begins at α; opening leaves it as it is (e begins at 1), each a·e is a
supermartingale, closing adds at most what the test stood for in Z, and a false promotion (e ≥ 1/a) makes Z ≥ 1,
which by Ville's inequality happens with probability at most α. So what was given back is cashed: a closed test
never goes on. Shares 6α/(π²k²), which gave nothing back, promoted half as many of the truly better ones; a test that
was opened by that rule keeps to it.
e-LOND (Xu & Ramdas 2024, "Online multiple testing with e-values"): α_k = α γ_k (R + 1), γ_k = 6/(π²k²), R =
promotions so far; holds the false discovery rate below α under any dependence, and buys power after wins.

Pure: each function returns a new ledger. What is stored is the log of what was done
(`ratchet.infra.registry.event_log`), and whoever comes second in it is refused: two runs cannot both take the next
share, nor give the same one back.
"""

import math
from typing import Annotated, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from ratchet.agent.errors import BadInput
from ratchet.evaluation.gate.verdict import VerdictKind

Spending = Literal["family-wise", "e-LOND"]
_LEAST_TAKEN: Final = 0.1
"""Share of the reserve that a test takes, however many there were before: the reserve never runs dry by count."""
_FIRST_TAKEN: Final = 0.6
"""Share of the reserve that the first test takes; the k-th takes this over k, until that falls below the least."""


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
    """None = still open; `continue` = closed without a verdict."""
    e_value: float | None = None
    gives_back: bool = False
    """Whether its share came from the reserve; False = of e-LOND, or opened before there was one: it stays spent."""

    @property
    def threshold(self) -> float:
        """Evidence that promotes."""
        return 1 / self.alpha_k

    @property
    def returned(self) -> float:
        """What its closing gave back to the reserve."""
        if not self.gives_back or self.decision is None:
            return 0.0
        return self.alpha_k if self.proven else self.alpha_k * min(1.0, self.e_value or 0.0)

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
        return self.share(gives_back=True)

    def share(self, *, gives_back: bool) -> float:
        """Share that a test opened now gets; `gives_back` False: by the rule that never got anything back."""
        k = len(self.current) + 1
        if self.spending == "family-wise" and gives_back:
            return share_taken(k) * self.reserve
        share = 6 * self.alpha / (math.pi * k) ** 2
        if self.spending == "e-LOND":
            share *= 1 + sum(entry.decision == "promote" for entry in self.current)
        return min(share, self.alpha)

    @property
    def spent(self) -> float:
        """What the tests of the budget now in force took and did not give back."""
        return math.fsum(part for entry in self.current for part in (entry.alpha_k, -entry.returned))

    @property
    def reserve(self) -> float:
        """What is left of the budget now in force."""
        return max(self.alpha - self.spent, 0.0)

    @property
    def exhausted(self) -> bool:
        """Whether a person must grant a new budget before the next test."""
        return self.next_alpha < self.smallest_alpha

    @property
    def summary(self) -> str:
        """One sentence for a person."""
        kind = "family-wise error" if self.spending == "family-wise" else "false discovery rate"
        n_open = sum(entry.decision is None for entry in self.current)
        tests = f"{len(self.current)} tests" + (f" ({n_open} open)" if n_open else "")
        head = f"{tests}, {self.spent:.3g} of {self.alpha:g} {kind} spent"
        if self.refreshes:
            last = self.refreshes[-1]
            head += f", budget {self.budget} (granted by {last.granted_by}: {last.because})"
        if self.exhausted:
            return (
                f"{head}; exhausted: the next test would get {self.next_alpha:.2g} < {self.smallest_alpha:g}"
            )
        return f"{head}; the next test needs e ≥ {1 / self.next_alpha:,.4g}"


def share_taken(k: int) -> float:
    """Part of the reserve that the k-th test takes."""
    return max(_LEAST_TAKEN, _FIRST_TAKEN / k)


def open_test(
    ledger: Ledger,
    *,
    candidate: str,
    now: AwareDatetime,
    champion: str = "",
    gives_back: bool = True,
) -> Ledger:
    """Take the next share for `candidate` against `champion`; its entry is `entries[-1]` of the ledger returned.

    Args:
        ledger: as it stands.
        candidate: content hash of the challenger.
        now: names the test in what is said of it later.
        champion: content hash of what it is compared with.
        gives_back: False = opened when there was no reserve, and none has begun since.

    Raises:
        BadInput: the budget is exhausted, or the candidate already has an open test.
    """
    for entry in ledger.entries:
        if entry.candidate == candidate and entry.decision is None:
            raise BadInput(
                f"candidate {candidate!r} already has open test {entry.k}; continue it or close it first"
            )
    reserved = gives_back or any(entry.gives_back for entry in ledger.entries)
    share = ledger.share(gives_back=reserved)
    if share < ledger.smallest_alpha:
        raise BadInput(
            f"error budget exhausted: {ledger.summary}; "
            "a person may grant a new one, with a reason, by `ratchet budget --grant`"
        )
    entry = Entry(
        k=len(ledger.current) + 1,
        budget=ledger.budget,
        alpha_k=share,
        candidate=candidate,
        champion=champion,
        opened_at=now,
        gives_back=reserved and ledger.spending == "family-wise",
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
    opened_at: AwareDatetime | None = None,
) -> Ledger:
    """Write how the open test of `candidate` ended, and give back of its share what its evidence is worth.

    Args:
        ledger: as it stands.
        candidate: content hash of the challenger.
        decision: `continue` closes it without a verdict.
        e_value: evidence that it is better, every unanswered question counted as a loss.
        now: when.
        champion: where given, the test must be against it.
        opened_at: where given, the test must be the one opened then: a late closing must not end another.

    Raises:
        BadInput: there is no such open test, or a promotion's e-value does not reach what its share demands.
    """
    entry = open_entry(ledger, candidate)
    if opened_at is not None and entry.opened_at != opened_at:
        raise BadInput(
            f"the test of {candidate!r} opened at {opened_at} is closed; the open one began at {entry.opened_at}"
        )
    if not e_value >= 0:
        raise BadInput(f"e = {e_value!r}: evidence is a number from 0 on")
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


def last_test(
    ledger: Ledger, candidate: str, champion: str, opened_at: AwareDatetime | None = None
) -> Entry | None:
    """The newest test of `candidate` against `champion`, or the one opened then; None if there was none."""
    found = (e for e in reversed(ledger.entries) if (e.candidate, e.champion) == (candidate, champion))
    return next((e for e in found if opened_at in (None, e.opened_at)), None)


def refresh(ledger: Ledger, *, granted_by: str, because: str, now: AwareDatetime) -> Ledger:
    """Start a new budget, in a person's name and with a reason; earlier entries stay as they are."""
    grant = Refresh(budget=ledger.budget + 1, granted_by=granted_by, because=because, at=now)
    return _changed(ledger, refreshes=(*ledger.refreshes, grant))


def _changed(ledger: Ledger, **update: object) -> Ledger:
    return Ledger.model_validate(dict(ledger) | update)
