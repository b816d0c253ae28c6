"""Who may let a proven challenger serve, by how far its change reaches, and for how long the question stays open.

Why a person's name and not a role: what is recorded for good is who decided. Why a proof lapses: it speaks of the
cases of its time, and a champion of next spring was never compared on next spring's.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AwareDatetime, BeforeValidator, Field, model_validator

from ratchet.agent.errors import BadInput
from ratchet.agent.record import Record, StageSettings
from ratchet.agent.risk import RISKS, Risk

AUTO: Final = "auto"
ANYONE: Final = "anyone"
_STRICTNESS: Final = "a riskier change cannot need less"


def _rule(value: Any) -> Any:
    """Refuse with one line whatever is neither a word nor names."""
    if value in (AUTO, ANYONE, None):
        return value
    names = tuple(value) if isinstance(value, list | tuple) else ()
    if names and all(isinstance(name, str) and name.strip() for name in names):
        return names
    raise ValueError(f'{value!r} is no rule: "{AUTO}", "{ANYONE}", or names, such as ["anna", "ben"]')


Rule = Annotated[str | tuple[str, ...] | None, BeforeValidator(_rule)]
"""`auto`: whatever is proven serves; `anyone`: a person with a name; names: one of these."""


class ApprovalSettings(StageSettings):
    """Who may let serve what is proven. It holds in the terminal, in Prefect and from code alike."""

    memory: Rule = None
    """Examples and recalled experience: "auto", "anyone", or names; left out: anyone, or approved_by's policy."""
    prompt: Rule = None
    """Instructions and what is said of tools."""
    adapter: Rule = None
    """Adapters, and the name and address of a model."""
    topology: Rule = None
    """Attempts, roles, options, another kind of agent."""
    two: tuple[Risk, ...] = ()
    """Kinds of change that two different people must approve."""
    expires_days: float = Field(default=14.0, gt=0, le=365)
    """Days after which a proven challenger that nobody approved must be proven anew."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for lower, higher in pairwise(RISKS):
            if self.rule(higher) == AUTO != self.rule(lower):
                said = f"{higher} is {AUTO!r} and {lower} needs a person"
                raise ValueError(f"{said}: {_STRICTNESS}; set {lower} too, or name who approves {higher}")
        for risk in self.two:
            named = self.rule(risk)
            if named == AUTO or (isinstance(named, tuple) and len(_distinct(named)) < 2):
                raise ValueError(f"two of {risk} = {named!r} cannot approve: name two or more, or {ANYONE!r}")
        return self

    def rule(self, risk: Risk) -> str | tuple[str, ...] | None:
        """What is set for this kind of change."""
        found: str | tuple[str, ...] | None = getattr(self, risk)
        return found

    def needed(self, risk: Risk) -> int:
        """How many people."""
        return 2 if risk in self.two else 1

    def may(self, risk: Risk, by: str) -> bool:
        """Whether this person's word counts."""
        rule = self.rule(risk)
        return bool(by.strip()) and (not isinstance(rule, tuple) or _name(by) in _distinct(rule))

    def who(self, risk: Risk) -> str:
        """Who may approve, for a person: `two of anna, ben, eva`."""
        rule, n = self.rule(risk), self.needed(risk)
        if rule == AUTO:
            return "nobody needs to"
        if not isinstance(rule, tuple):
            return "any two people" if n == 2 else "anyone"
        listed = ", ".join(rule)
        return f"two of {listed}" if n == 2 else f"one of {listed}" if len(rule) > 1 else listed


class Approval(Record):
    """One person's yes to one proven challenger."""

    by: str
    at: AwareDatetime
    via: Literal["terminal", "prefect", "code"] = "code"
    reason: str = ""


class Waiting(Record):
    """A proven challenger between its proof and somebody's word."""

    candidate_id: str
    champion: str
    """What it is proven against."""
    risk: Risk
    policy: ApprovalSettings = ApprovalSettings()
    proven_at: AwareDatetime
    approvals: tuple[Approval, ...] = ()
    """Of people whose word counts, each once."""
    declined: str = ""
    """Who said no, and why; empty = nobody did."""
    told_at: AwareDatetime | None = None
    """When people were reminded that it is about to lapse."""

    @property
    def expires_at(self) -> datetime:
        """From then on it must be proven anew."""
        return self.proven_at + timedelta(days=self.policy.expires_days)

    @property
    def remind_at(self) -> datetime:
        """When people are told: three days before, at the latest after half of the time."""
        days = self.policy.expires_days
        return self.proven_at + timedelta(days=max(days - 3, days / 2))

    @property
    def names(self) -> tuple[str, ...]:
        """Who said yes so far."""
        return tuple(one.by for one in self.approvals)

    def missing(self, by: str = "") -> int:
        """How many more people's word is missing, once `by` has given theirs."""
        known = _distinct([*self.names, *([by] if by.strip() else [])])
        return max(self.policy.needed(self.risk) - len(known), 0)

    def served_by(self, approved_by: str | None) -> str | None:
        """In whose name it serves although no person said so; None = a person must.

        Args:
            approved_by: the policy of the run, which counts where `[approval]` says nothing of this kind of change.
        """
        rule = self.policy.rule(self.risk)
        if self.policy.needed(self.risk) > 1 or rule not in (AUTO, None):
            return None
        return approved_by or (f"approval.{self.risk} = {AUTO}" if rule == AUTO else None)

    @property
    def asked(self) -> str:
        """Whose word is missing, and until when, for a person."""
        until = f"until {self.expires_at:%Y-%m-%d %H:%M} UTC"
        so_far = f", {', '.join(self.names)} did" if self.approvals else ""
        return f"a change of {self.risk}, to be approved by {self.policy.who(self.risk)}{so_far}, {until}"

    def lapsed(self, now: datetime) -> str:
        """Why it is not to serve any more; empty = it still may."""
        if self.declined:
            return f"declined by {self.declined}"
        if now < self.expires_at:
            return ""
        days = f"{self.policy.expires_days:g} days"
        return f"nobody approved it in {days} (until {self.expires_at:%Y-%m-%d %H:%M} UTC)"

    def require(self, by: str | None, now: datetime) -> None:
        """Do nothing if this person may say yes or no now; None = whoever it will be.

        Raises:
            BadInput: the proof lapsed, or the policy names others.
        """
        if why := self.lapsed(now):
            raise BadInput(f"candidate {self.candidate_id} is not promoted: {why}; it must be proven anew")
        if by is not None and not self.policy.may(self.risk, by):
            raise BadInput(
                f"{by!r} may not approve a change of {self.risk}: approval.{self.risk} names "
                f"{self.policy.who(self.risk)}"
            )


def one_each(approvals: Iterable[Approval]) -> tuple[Approval, ...]:
    """Each person's first approval, in order."""
    first: dict[str, Approval] = {}
    for one in approvals:
        first.setdefault(_name(one.by), one)
    return tuple(first.values())


def _distinct(names: Sequence[str]) -> set[str]:
    return {_name(name) for name in names}


def _name(text: str) -> str:
    return text.strip().casefold()
