"""Any agent, whatever its kind: what the one rollout code plays, the gate compares and a server asks.

Decision: an agent is asked for one action at a time. The built-in one acts in an environment, step by step; a
callable, a module or a chat endpoint answers a case whole: one action, in a world of one step (`answering`).
"""

from typing import Protocol, Self

from ratchet.agent.candidate import Candidate
from ratchet.agent.kinds.decision import Decision, View
from ratchet.agent.lm.lm import LM


class Agent(Protocol):
    """One candidate, ready to act."""

    candidate: Candidate
    attempts: int
    """Tries within one case."""
    lm: LM | None
    """What writes its reflections; None = nobody does, a template stands in."""

    @property
    def at_once(self) -> int:
        """Cases that may be played at the same time."""

    def act(self, view: View) -> Decision:
        """The next action.

        Raises:
            LMFailure: what was answered cannot be used; the agent's failure, not a crash.
        """

    def with_attempts(self, attempts: int) -> Self:
        """The same agent with another number of tries; traces name the same candidate."""

    def single_attempt(self) -> Self:
        """The same agent without retries."""

    def serving(self) -> Self:
        """The same agent for real requests: `ratchet.is_trial()` is false where it is asked."""
