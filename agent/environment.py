"""Where an agent acts, and what it is asked: one record (`Case`) and one protocol (`Environment`).

Why `options` stand in the observation: where the admissible actions are known, a small model scores them
instead of writing them, which is faster and cannot produce an action that does not exist.
"""

from datetime import datetime
from typing import Protocol, runtime_checkable

from pydantic import Field

from agent.record import Json, Record, content_hash


class Case(Record):
    """One input that the agent may face."""

    inputs: dict[str, Json]
    expected: Json | None = None
    """The right answer as a person or ground truth gives it; None = not known (yet)."""
    slice: str | None = None
    """Channel, language, tenant…: the gate looks for harm in each."""
    seen_at: datetime | None = None

    @property
    def case_id(self) -> str:
        """Hash of the inputs alone: the same request is the same case, labelled or not."""
        return content_hash(self.inputs)


class Option(Record):
    """One admissible action."""

    name: str
    """What the agent answers with when it picks this option."""
    description: str = ""
    parameters: dict[str, Json] = Field(default_factory=dict)
    """JSON schema of the arguments (`properties`, `required`); empty = the action takes none."""


class Observation(Record):
    """What the agent sees before it acts."""

    text: str
    options: tuple[Option, ...] = ()
    """Admissible actions; empty = the agent writes its action freely."""


class Action(Record):
    """What the agent does: the option's name, or free text, and arguments where the option takes some."""

    name: str
    arguments: dict[str, Json] | None = None
    """None = not filled (the option takes none, or the agent was asked for the choice alone)."""


class Outcome(Record):
    """How an attempt ended, on the environment's own scale."""

    score: float | None = Field(default=None, ge=0, le=1)
    """None = the environment cannot tell (most of production)."""
    feedback: str = ""
    """What the environment says about it, in words; data, never an instruction."""
    details: dict[str, float] = Field(default_factory=dict)
    """Further scores in [0, 1], such as `arguments`."""


@runtime_checkable
class Environment(Protocol):
    """A user's environment: one small class, these three methods; an instance plays one case at a time."""

    def reset(self, case: Case) -> Observation:
        """Begin the case; may be called again for another attempt at the same case."""
        ...

    def step(self, action: Action) -> tuple[Observation, bool]:
        """Carry out the action; returns what is seen next and whether the attempt is over."""
        ...

    def outcome(self) -> Outcome:
        """How the attempt went so far. Never raises for an agent's mistake: that is a score."""
        ...
