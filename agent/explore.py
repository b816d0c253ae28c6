"""Rolling out with chance, to find winning trajectories that the agent alone would not: its first experience.

Decision: a share of the decisions is random among the admissible actions, the rest are the agent's own. What was
found counts only if the environment says that it won, so chance never teaches a loss.
"""

import random
from collections.abc import Sequence

from agent.decision import Decision, View
from agent.environment import Action
from agent.program import Program


class Explorer(Program):
    """An agent that sometimes does something else; `run` plays it like any other."""

    def __init__(self, program: Program, *, share: float = 1.0, seed: int = 0) -> None:
        """Take a random admissible action in this `share` of the decisions, in [0, 1].

        At 1 no LM is asked. Where the agent writes its actions freely there is nothing to draw from: it decides.
        """
        super().__init__(
            program.candidate, memory=program.memory, adapter=program.adapter, endpoint=program.endpoint
        )
        self._share, self._random = share, random.Random(seed)

    def decide(self, views: Sequence[View]) -> list[Decision]:
        """One decision per view, in order."""
        drawn = [self._draw(view) for view in views]
        asked = [view for view, action in zip(views, drawn, strict=True) if action is None]
        own = iter(super().decide(asked) if asked else [])
        return [Decision(action=action) if action else next(own) for action in drawn]

    def _draw(self, view: View) -> Action | None:
        options = view.observation.options
        if not options or self._random.random() >= self._share:
            return None
        left = [option.name for option in options if option.name not in view.tried]
        return Action(name=self._random.choice(left or [option.name for option in options]))
