"""Where an agent acts: one protocol (`Environment`), and what goes in and out of it.

Why `options` stand in the observation: where the admissible actions are known, a small model scores them
instead of writing them, which is faster and cannot produce an action that does not exist.
"""

from typing import Final, Protocol, runtime_checkable

from pydantic import Field

from ratchet.agent.case import Case
from ratchet.agent.record import Json, Record

RESPOND: Final = "respond"
"""Action of a message to whoever asked, which is what a free answer is; what it says is the argument `content`."""


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

    @property
    def is_free(self) -> bool:
        """Whether it is a free answer: a message, where others name what is done."""
        return self.name == RESPOND and "content" in (self.arguments or {})

    @property
    def said(self) -> Json:
        """The answer that it is: what a message says, text or JSON; else the action's name."""
        return self.arguments["content"] if self.is_free and self.arguments else self.name


def respond(content: Json) -> Action:
    """A free answer, text or JSON."""
    return Action(name=RESPOND, arguments={"content": content})


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
