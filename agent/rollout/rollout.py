"""One case on its way: what was seen, done and concluded so far, and what may not be done again."""

from collections import Counter
from dataclasses import dataclass, field

from ratchet.agent.case import Case
from ratchet.agent.environment import Action, Environment, Observation, Outcome
from ratchet.agent.record import as_text, content_hash
from ratchet.agent.trace import Attempt, RunError, Step, Stop, Usage

HISTORY = 4
"""Actions of the attempt that the agent is reminded of."""


@dataclass
class Rollout:
    """One case on its way."""

    case: Case
    environment: Environment | None = None
    """None = it could not be made; then `error` says why."""
    observation: Observation = field(default_factory=lambda: Observation(text=""))
    steps: list[Step] = field(default_factory=list)
    recalled: list[str] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    outcome: Outcome | None = None
    """Of the attempt that is over and waits to be closed."""
    error: RunError | None = None
    stopped: Stop | None = None
    """The limit that ended the last attempt, or kept the next from beginning."""
    seconds: float = 0.0
    taken: Counter[str] = field(default_factory=Counter)
    """How often each action was taken in each observed state of this attempt."""

    def tried(self, repeats: int) -> tuple[str, ...]:
        """Actions not to take now.

        Those that, after the same steps as those taken so far, ended a failed attempt; and those taken `repeats`
        times in this observed state already.
        """
        so_far = [step.action for step in self.steps]
        failed = [
            attempt.steps[-1].action.name
            for attempt in self.attempts
            if attempt.steps and [step.action for step in attempt.steps[:-1]] == so_far
        ]
        offered = (option.name for option in self.observation.options)
        circling = [name for name in offered if self.taken[self._key(Action(name=name))] >= repeats]
        return tuple(dict.fromkeys((*failed, *circling)))

    def is_circling(self, action: Action, repeats: int) -> bool:
        """Whether this action was taken `repeats` times in this observed state."""
        return self.taken[self._key(action)] >= repeats

    def count(self, action: Action) -> None:
        """Note that the action is taken in the observed state."""
        self.taken[self._key(action)] += 1

    def close(self, reflection: str | None) -> None:
        """The attempt that is over becomes history, with what was concluded from it; the next may begin."""
        assert self.outcome is not None, "its attempt is over"
        recalled = tuple(dict.fromkeys(self.recalled))
        self.attempts.append(
            Attempt(steps=tuple(self.steps), outcome=self.outcome, reflection=reflection, recalled=recalled)
        )
        self.steps, self.recalled, self.outcome = [], [], None
        self.taken.clear()

    def _key(self, action: Action) -> str:
        return content_hash([self.observation.text, action.name, action.arguments])

    @property
    def done(self) -> tuple[str, ...]:
        """What was done last in this attempt, oldest first."""
        return tuple(as_text(step.action.said) for step in self.steps[-HISTORY:])

    @property
    def reflections(self) -> tuple[str, ...]:
        """What was concluded from failed attempts, oldest first."""
        return tuple(attempt.reflection for attempt in self.attempts if attempt.reflection)
