"""What one run may take: steps, attempts, repetitions, tokens, seconds, money.

Decision: a limit ends a run, it does not break it. What was reached is scored by the environment as if the agent
had stopped there, and the trace names the limit in `stopped`: a `RunError` would drop the score of work that was
done, and a made-up score of 0 would say that the environment judged what it never saw.
"""

from pydantic import Field

from ratchet.agent.record import Record
from ratchet.agent.trace import Stop, Usage


class Limits(Record):
    """Limits of one run of one case; a budget (tokens, seconds, money) is looked at before each decision."""

    steps: int = Field(default=30, ge=1)
    """Steps of one attempt before it is cut."""
    repeats: int = Field(default=5, ge=1)
    """How often one action may be taken in one observed state of an attempt. An option that used this up is not
    offered again; where the agent has nothing else to say, the attempt is cut."""
    attempts: int | None = Field(default=None, ge=1)
    """Tries at the case at most; None = as many as the candidate's topology says."""
    tokens: int | None = Field(default=None, ge=1)
    """Input and output tokens over all attempts."""
    seconds: float | None = Field(default=None, gt=0)
    """Time of the LM and the environment over all attempts."""
    cost_usd: float | None = Field(default=None, gt=0)
    """Money over all attempts, at LiteLLM's prices."""

    def spent(self, usage: Usage, seconds: float) -> Stop | None:
        """The budget that is used up; None = there is some left of each."""
        if self.tokens is not None and usage.input_tokens + usage.output_tokens >= self.tokens:
            return "tokens"
        if self.seconds is not None and seconds >= self.seconds:
            return "seconds"
        if self.cost_usd is not None and usage.cost_usd >= self.cost_usd:
            return "cost_usd"
        return None
