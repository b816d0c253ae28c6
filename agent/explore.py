"""Trying things out, to find winning trajectories that the agent alone would not: its first experience.

Decision: what was found counts only if the environment says that it won, so chance never teaches a loss. `Explorer`
lets the agent do something random now and then; `search` asks no LM at all and goes on from the furthest point that
it reached by the environment's own score, trying first what it tried least.
"""

import random
from collections import Counter
from collections.abc import Sequence

from agent.decision import Decision, View
from agent.environment import Action, Case, Environment, Observation
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


def search(
    environment: Environment, case: Case, *, tries: int, steps: int, seed: int = 0
) -> list[tuple[Observation, Action]] | None:
    """A way that wins, as what was seen and done; None = not found, or there are no options.

    Args:
        environment: one that gives options, scores itself, and does the same after the same actions.
        case: what is to be won.
        tries: how often it is begun anew at most.
        steps: steps of one try beyond the furthest point known.
        seed: of the choice among what was tried equally little.
    """
    chance, counts = random.Random(seed), Counter[tuple[str, str]]()
    best, furthest = 0.0, list[Action]()
    for _ in range(tries):
        seen, done, way = environment.reset(case), False, list[tuple[Observation, Action]]()
        for step in range(len(furthest) + steps):
            names = [option.name for option in seen.options]
            if done or not names:
                break
            least = min(counts[seen.text, name] for name in names)
            fresh = [name for name in names if counts[seen.text, name] == least]
            action = furthest[step] if step < len(furthest) else Action(name=chance.choice(fresh))
            if step >= len(furthest):
                counts[seen.text, action.name] += 1
            way.append((seen, action))
            seen, done = environment.step(action)
            score = environment.outcome().score or 0.0
            if score == 1:
                return _straight(way)
            if score > best and not done:
                best, furthest = score, [done_action for _, done_action in way]
    return None


def _straight(way: list[tuple[Observation, Action]]) -> list[tuple[Observation, Action]]:
    """The way without its loops: of a state that came more than once, what was done the last time."""
    last = {seen.text: index for index, (seen, _) in enumerate(way)}
    kept, index = [], 0
    while index < len(way):
        index = last[way[index][0].text]
        kept.append(way[index])
        index += 1
    return kept
