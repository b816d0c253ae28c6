"""What a proposer may spend on one candidate, and what it has spent: looked at before each call, not after.

Decision: what is counted is what was asked, whether it was paid now or in an earlier start that was killed; so a
second start stops at the same call as an undisturbed one, and comes to the same candidate. `paid` is what this start
really paid.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from pydantic import Field

from ratchet.agent.errors import RatchetError
from ratchet.agent.record import Record, StageSettings
from ratchet.agent.trace import Usage

NAMES: Final = {"calls": "calls", "tokens": "tokens", "usd": "US dollars", "seconds": "seconds"}


class Budget(StageSettings):
    """Hard stops of one proposer for one candidate; what is left out has no bound."""

    calls: int | None = Field(default=None, ge=1)
    """Cases played and texts written; exact."""
    tokens: int | None = Field(default=None, ge=1)
    """Input and output; what is under way when it is reached is still paid."""
    usd: float | None = Field(default=None, gt=0)
    """At LiteLLM's prices; what is under way when it is reached is still paid."""
    seconds: float | None = Field(default=None, gt=0)
    """On the clock, also of work in this process; those of an earlier start whose calls were kept count, too."""
    call_seconds: float | None = Field(default=None, gt=0)
    """Until a single case or text is given up, tries and waits included; left out: as the project's limits and the
    endpoint's settings say."""

    def within(self, other: "Budget") -> "Budget":
        """The tighter bound of each."""
        both = {
            name: [v for v in (getattr(self, name), getattr(other, name)) if v is not None]
            for name in Budget.model_fields
        }
        return Budget(**{name: min(values) for name, values in both.items() if values})


class BudgetSpent(RatchetError):
    """The next call would not fit into the budget. A proposer ends with what it has found until then."""


class Stopped(BaseException):
    """A library's optimizer must end now; `why` is the budget, or what nobody in it is to blame for.

    No `Exception`: DSPy's evaluators catch those, and go on with a score of 0.
    """

    def __init__(self, why: RatchetError) -> None:
        super().__init__(str(why))
        self.why = why


class Spent(Record):
    """What was used."""

    calls: int = 0
    tokens: int = 0
    usd: float = 0.0
    seconds: float = 0.0

    @property
    def by_unit(self) -> dict[str, float]:
        """What is not 0."""
        return {name: float(value) for name, value in self.model_dump().items() if value}


class Meter:
    """What one proposer has spent of its budget; safe for use from several threads."""

    def __init__(
        self,
        budget: Budget | None = None,
        *,
        outer: "Meter | None" = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin to count.

        Args:
            budget: None = no bound.
            outer: the meter of what this is a step of: what is spent here is spent there, and its bounds hold, too.
            clock: seconds, only forward.
        """
        self.budget, self._outer = budget or Budget(), outer
        self._clock, self._began = clock, clock()
        self._lock = threading.Lock()
        self._calls = self._paid = self._held = 0
        self._usage, self._earlier = Usage(), 0.0

    def take(self, n: int = 1) -> None:
        """Count the next `n` calls; to be called before them.

        Raises:
            BudgetSpent: they do not fit, and none of them was counted.
        """
        with self._lock:
            spent, bound = self._spent(), self.budget
            if bound.calls is not None and spent.calls + n + self._held > bound.calls:
                self._refuse("calls", spent)
            for name in ("tokens", "usd", "seconds"):
                most = getattr(bound, name)
                if most is not None and getattr(spent, name) >= most:
                    self._refuse(name, spent)
            if self._outer is not None:
                self._outer.take(n)
            self._calls += n

    def room(self, n: int) -> int:
        """How many of the next `n` calls fit."""
        try:
            self.take(0)
        except BudgetSpent:
            return 0
        with self._lock:
            most = self.budget.calls
            left = n if most is None else max(0, min(n, most - self._calls - self._held))
            return left if self._outer is None else self._outer.room(left)

    @contextmanager
    def holding(self, calls: int) -> Iterator[None]:
        """Keep so many calls back meanwhile: without them what is found could not be checked."""
        self._held += calls
        try:
            yield
        finally:
            self._held -= calls

    def charge(self, usage: Usage, *, kept_s: float | None = None) -> None:
        """Add what a call used; `kept_s` = it was paid by an earlier start and took so many seconds then."""
        with self._lock:
            self._usage += usage
            if kept_s is None:
                self._paid += 1
            else:
                self._earlier += kept_s
            if self._outer is not None:
                self._outer.charge(usage, kept_s=kept_s)

    @property
    def spent(self) -> Spent:
        """Until now, by this start and by the earlier ones that it goes on from."""
        with self._lock:
            return self._spent()

    @property
    def paid(self) -> int:
        """Calls that this start paid itself."""
        return self._paid

    def _refuse(self, name: str, spent: Spent) -> None:
        held = f", {self._held} kept for a check" if name == "calls" and self._held else ""
        raise BudgetSpent(
            f"the budget of {getattr(self.budget, name):,.6g} {NAMES[name]} is spent "
            f"({getattr(spent, name):,.6g} used{held}): raise budget.{name} for more"
        )

    def _spent(self) -> Spent:
        tokens = self._usage.input_tokens + self._usage.output_tokens
        seconds = self._clock() - self._began + self._earlier
        return Spent(calls=self._calls, tokens=tokens, usd=self._usage.cost_usd, seconds=seconds)
