"""How far an open test is, for the people who answer its questions; it decides nothing.

Why what answers moved is told of several at once only: told of one, it would say which side the person picked.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from pydantic import Field

from ratchet.agent.record import Record
from ratchet.evaluation.gate.plays import Same
from ratchet.evaluation.gate.questions import Settled
from ratchet.evaluation.gate.remaining import remaining_labels
from ratchet.evaluation.gate.trial import Trial, TrialState

_TOGETHER: Final = 5
"""Answers below which what they moved is not told."""


class Standing(Record):
    """An open test, as people's answers leave it."""

    challenger: str
    asked: int = Field(ge=0)
    """Questions that people were asked for it."""
    answered: int = Field(ge=0)
    new: int = Field(ge=0)
    """Answers since a run last looked."""
    before: float
    """Its e-value at that run."""
    now: float
    needed: float
    """The e-value at which the challenger is proven."""
    gain: float
    remaining: int | None
    """Answers that say which is right until it is proven, should it be better by `gain`; None = out of reach."""

    @property
    def sentence(self) -> str:
        """For the person who answers; which side is which version stands nowhere in it."""
        told = f"open test: {self.answered} of {self.asked} answered"
        if self.remaining:
            told += f", enough for a verdict at gain {self.gain:g} in about {self.remaining} more"
        elif self.remaining == 0:
            told += ", enough for a verdict: `ratchet improve`"
        return f"{told}; {self.worth}" if self.worth else told

    @property
    def worth(self) -> str:
        """What the answers since the last run moved; nothing where they are few."""
        if self.new < _TOGETHER:
            return ""
        moved = f"from e = {self.before:.2g} to {self.now:.2g} of {self.needed:.2g}"
        return f"the last {self.new} answers moved an open test {moved}"


def standing(
    state: TrialState, settled: Mapping[str, Settled], same: Same, now: datetime, *, gain: float
) -> Standing:
    """Where a stored test stands with what people said since it was stored."""
    trial = Trial.resume(state, (), (), 0)
    before, heard = trial.verdict.e_value, sum(bool(play.raters) for play in trial.plays)
    trial.hear(settled, same, now)
    answered = sum(bool(play.raters) for play in trial.plays)
    return Standing(
        challenger=state.challenger,
        asked=sum(bool(play.question) for play in trial.plays),
        answered=answered,
        new=answered - heard,
        before=before,
        now=trial.verdict.e_value,
        needed=1 / trial.gate.policy.alpha,
        gain=gain,
        remaining=remaining_labels(trial.gate, gain),
    )
