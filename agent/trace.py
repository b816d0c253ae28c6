"""The history of one interaction. Facts are stored; what follows from them is a property.

Why failures are data: a rollout that broke is a trace with `error`, so that an evaluation can say how many
broke and whose fault it was, and never mistakes a missing score for 0.
"""

from datetime import datetime
from typing import Literal

from pydantic import Field

from ratchet.agent.case import Case
from ratchet.agent.environment import Action, Outcome
from ratchet.agent.record import Json, Record

UNKNOWN = "unknown"
"""The candidate's id in a trace that does not say which version of this agent made it; its case can be played."""
IMPORTED = "imported:"
"""Begins the candidate's id in a trace of an agent that is not ours: its cases are not our environment's."""

RECALLED = "ratchet.recalled"
"""Tag of a trace that another wrote, where examples were shown: `Attempt.recalled`, with commas between."""

Stop = Literal["steps", "repeats", "tokens", "seconds", "cost_usd"]
"""Limits that end an attempt or a run (see `ratchet.agent.limits`)."""


class Usage(Record):
    """What a run consumed."""

    input_tokens: int = Field(default=0, ge=0)
    output_tokens: int = Field(default=0, ge=0)
    lm_calls: int = Field(default=0, ge=0)
    cost_usd: float = Field(default=0.0, ge=0)

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            lm_calls=self.lm_calls + other.lm_calls,
            cost_usd=self.cost_usd + other.cost_usd,
        )


class Contribution(Record):
    """What one member of a team said before somebody acted."""

    actor: str
    observation: str | None = None
    """What it saw; None = what the one who acted saw."""
    options: tuple[str, ...] = ()
    """What it could say; empty = it wrote freely."""
    said: str
    about: str | None = None
    """The action that it judged; None = it judged none."""
    confidence: float | None = Field(default=None, ge=0, le=1)
    recalled: tuple[str, ...] = ()
    """Ids of the traces whose steps it was shown."""


class Step(Record):
    """One turn: what was seen, thought, done, and what came of it."""

    actor: str = "agent"
    """Who acted: the role's name in a team."""
    observation: str
    thought: str | None = None
    parts: tuple[Contribution, ...] = ()
    """What the other members of a team said before, in order."""
    action: Action
    result: str | None = None
    confidence: float | None = Field(default=None, ge=0, le=1)
    """Probability that the actor gave to its own action; None = it cannot tell."""


class Attempt(Record):
    """One try at the case, from reset to outcome."""

    steps: tuple[Step, ...] = ()
    outcome: Outcome = Outcome()
    reflection: str | None = None
    """What the agent concluded from its failure, for the next attempt."""
    recalled: tuple[str, ...] = ()
    """Ids of the traces whose steps were recalled as examples."""


class RunError(Record):
    """Why a run broke, and on which side."""

    kind: Literal["agent", "infrastructure"]
    """`agent`: its own answer could not be used, it counts as a failure; `infrastructure`: excluded."""
    message: str


class Trace(Record):
    """The whole history of one interaction; names the candidate, memory and session that made it."""

    schema_version: Literal[1] = 1
    trace_id: str = Field(pattern=r"^[0-9a-f]{32}$")
    """32 hex digits, as OpenTelemetry wants; derived from what made it, so a re-run writes the same."""
    case: Case
    candidate_id: str
    memory_id: str | None = None
    session_id: str | None = None
    user: str | None = Field(default=None, exclude_if=lambda user: user is None)
    """Who asked, as the trace names them; not written where it does not."""
    started_at: datetime
    latency_s: float = Field(ge=0)
    usage: Usage = Usage()
    attempts: tuple[Attempt, ...] = ()
    error: RunError | None = None
    stopped: Stop | None = None
    """The limit that ended the last attempt or kept a retry from beginning; the outcome is where it stood then."""
    system: str = Field(default="", exclude_if=lambda text: not text)
    """What the LM was told beside the messages, where another's trace says it; not written where it is empty."""
    tools: tuple[Json, ...] = Field(default=(), exclude_if=lambda tools: not tools)
    """Definitions of the tools that the LM could call, as the trace has them; not written where there are none."""

    @property
    def is_imported(self) -> bool:
        """Whether another agent's log was read, so that its case cannot be played again."""
        return self.candidate_id.startswith(IMPORTED)

    @property
    def first_score(self) -> float | None:
        """Score of the first attempt: single-attempt accuracy is reported apart from retry-until-success."""
        return self.attempts[0].outcome.score if self.attempts else None

    @property
    def score(self) -> float | None:
        """Score of the last attempt; None = not scored."""
        return self.attempts[-1].outcome.score if self.attempts else None

    @property
    def n_steps(self) -> int:
        """Steps over all attempts."""
        return sum(len(attempt.steps) for attempt in self.attempts)

    @property
    def first_action(self) -> Action | None:
        """What the agent did first."""
        return self.attempts[0].steps[0].action if self.attempts and self.attempts[0].steps else None

    @property
    def action(self) -> Action | None:
        """The last action: the agent's answer."""
        return self.attempts[-1].steps[-1].action if self.attempts and self.attempts[-1].steps else None

    @property
    def is_free(self) -> bool:
        """Whether its answer is a message, text or JSON, and not one of some options."""
        return self.action is not None and self.action.is_free

    @property
    def answer(self) -> Json:
        """What the last action says: text, JSON, or an option's name; None where nothing was done."""
        return None if self.action is None else self.action.said
