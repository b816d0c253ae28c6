"""Candidates and judge are frozen before the first case is drawn, and stay the same to the last.

Why: a challenger that is edited, or a judge that is changed, in the middle of a test makes its bets depend on
the outcomes that they are meant to predict; then no error rate holds.
"""

from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ratchet.agent.errors import BadInput
from ratchet.evaluation.gate.betting import NO_PRIOR, TrustPrior
from ratchet.evaluation.gate.pairs import Pair


class Registration(BaseModel):
    """What is compared, and by whom it is judged; written before the first case is drawn."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    champion: str = Field(min_length=1)
    """Content hash."""
    challenger: str = Field(min_length=1)
    judge: str | None = None
    """Content hash of prompt, model and rubric; None = no judge may take part."""
    trust: TrustPrior = NO_PRIOR
    """What the labels of its licence say of the judge: where the trust in it begins."""


@dataclass
class Provenance:
    """Checks each pair against the registration, or without one against the first pair that says."""

    registration: Registration | None = None
    first: dict[str, str] = field(default_factory=dict)

    def check(self, pair: Pair) -> None:
        """Raise BadInput when the pair comes from other candidates or another judge."""
        if self.registration is None and pair.champion_id is pair.challenger_id is pair.judge_id is None:
            return
        stated = {"champion": pair.champion_id, "challenger": pair.challenger_id, "judge": pair.judge_id}
        if self.registration is not None:
            self._check_registered(pair, self.registration)
        for role, value in stated.items():
            if value is not None and self._expected(role, value) != value:
                raise BadInput(
                    f"case {pair.case_id!r} names {role} {value!r}, the test began with "
                    f"{self._expected(role, value)!r}; a test keeps its candidates and judge: open a new test"
                )
        self.first.update({role: value for role, value in stated.items() if value is not None})

    def _expected(self, role: str, stated: str) -> str | None:
        if self.registration is not None:
            registered: str | None = getattr(self.registration, role)
            return registered
        return self.first.get(role, stated)

    def _check_registered(self, pair: Pair, registration: Registration) -> None:
        judged = pair.champion_judge is not None or pair.challenger_judge is not None
        if judged and registration.judge is None:
            raise BadInput(
                f"case {pair.case_id!r} has judge scores but no judge was registered; "
                "register the judge before the first case or drop its scores"
            )

    def state(self) -> dict[str, Any]:
        """Everything as plain JSON."""
        registered = self.registration.model_dump(mode="json") if self.registration else None
        return {"registration": registered, "first": dict(self.first)}

    @staticmethod
    def restore(state: dict[str, Any]) -> "Provenance":
        """The inverse of `state`."""
        registered = state["registration"]
        return Provenance(
            Registration.model_validate(registered) if registered else None, dict(state["first"])
        )
