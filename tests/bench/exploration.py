"""Trying things out, to find winning trajectories that the agent alone would not: its first experience.

Decision: what was found counts only if the environment says that it won, so chance never teaches a loss. `Explorer`
lets the agent do something random now and then; `search` asks no LM at all: it keeps every state that it saw, goes
back to one, and tries what it tried least there. Going on from the best-scored state alone ends in dead ends (a meal
made of raw food has points, and can no longer be won). Source: Ecoffet et al., First return, then explore (2021).
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from ratchet.agent.case import Case
from ratchet.agent.environment import Action, Environment, Observation
from ratchet.agent.kinds.decision import Decision, View
from ratchet.agent.kinds.program import Program

Way = list[tuple[Observation, Action]]
"""What was seen and done, step by step."""


class Explorer(Program):
    """An agent that sometimes does something else; `run` plays it like any other."""

    def __init__(self, program: Program, *, share: float = 1.0, seed: int = 0) -> None:
        """Take a random admissible action in this `share` of the decisions, in [0, 1].

        At 1 no LM is asked. Where the agent writes its actions freely there is nothing to draw from: it decides.
        """
        super().__init__(
            program.candidate, memory=program.memory, adapter=program.adapter, endpoint=program.endpoint
        )
        self._share, self._seed = share, seed

    def act(self, view: View) -> Decision:
        """Something random, or what the agent would do."""
        action = self._draw(view)
        return Decision(action=action) if action else super().act(view)

    def _draw(self, view: View) -> Action | None:
        options = view.observation.options
        # by what is at hand, not by whose turn it is: cases are played side by side
        chance = random.Random(f"{self._seed} {view.case_id} {view.done} {view.tried}")
        if not options or chance.random() >= self._share:
            return None
        left = [option.name for option in options if option.name not in view.tried]
        return Action(name=chance.choice(left or [option.name for option in options]))


def search(environment: Environment, case: Case, *, tries: int, steps: int, seed: int = 0) -> Way | None:
    """A way that wins, without the steps that it does not need; None = not found, or there are no options.

    Args:
        environment: one that gives options, scores itself, and does the same after the same actions.
        case: what is to be won.
        tries: how often it is begun anew at most.
        steps: steps of one try beyond the state that it goes back to.
        seed: of the choice among what was tried equally little.
    """
    found = _Archive(random.Random(seed))
    for _ in range(tries):
        if (way := _explore(environment, case, found, steps)) is not None:
            return _shortened(environment, case, way)
    return None


@dataclass
class _Cell:
    """A state that was seen."""

    score: float
    path: tuple[Action, ...]
    """The shortest way there so far."""
    picked: int = 0


@dataclass
class _Archive:
    """Every state that was seen, by its text, and what was tried there."""

    chance: random.Random
    cells: dict[str, _Cell] = field(default_factory=dict)
    taken: Counter[tuple[str, str]] = field(default_factory=Counter)
    levels: Counter[float] = field(default_factory=Counter)
    """How often a state of this score was gone back to."""

    def pick(self) -> tuple[Action, ...]:
        """The way to a state: scores in turn, highest first; then the state picked least, then the nearest."""
        if not self.cells:
            return ()
        level = min(
            {cell.score for cell in self.cells.values()}, key=lambda score: (self.levels[score], -score)
        )
        self.levels[level] += 1
        same = [cell for cell in self.cells.values() if cell.score == level]
        cell = min(same, key=lambda c: (c.picked, len(c.path), self.chance.random()))
        cell.picked += 1
        return cell.path

    def note(self, text: str, score: float, path: tuple[Action, ...]) -> None:
        """Keep a state, by the shortest way to it."""
        cell = self.cells.setdefault(text, _Cell(score, path))
        if len(path) < len(cell.path):
            cell.score, cell.path = score, path

    def draw(self, seen: Observation) -> Action:
        """An action that was tried least in this state."""
        names = [option.name for option in seen.options]
        least = min(self.taken[seen.text, name] for name in names)
        name = self.chance.choice([name for name in names if self.taken[seen.text, name] == least])
        self.taken[seen.text, name] += 1
        return Action(name=name)


def _explore(environment: Environment, case: Case, found: _Archive, steps: int) -> Way | None:
    """One try: back to a state, and on from there; the way if it wins."""
    path = found.pick()
    seen, done, score = environment.reset(case), False, 0.0
    way: Way = []
    for step in range(len(path) + steps):
        if done or not seen.options:
            break
        if step >= len(path):
            found.note(seen.text, score, tuple(action for _, action in way))
        action = path[step] if step < len(path) else found.draw(seen)
        way.append((seen, action))
        seen, done = environment.step(action)
        score = environment.outcome().score or 0.0
        if score == 1:
            return way
    return None


def _shortened(environment: Environment, case: Case, way: Way) -> Way:
    """The way without each step, the last first, without which the rest still wins."""
    for place in reversed(range(len(way) - 1)):
        actions = [action for _, action in way]
        shorter = _replayed(environment, case, actions[:place] + actions[place + 1 :])
        way = shorter or way
    return way


def _replayed(environment: Environment, case: Case, actions: Sequence[Action]) -> Way | None:
    """The same actions again; None where one of them is not offered, or they do not win."""
    seen, done = environment.reset(case), False
    way: Way = []
    for action in actions:
        if done or action.name not in {option.name for option in seen.options}:
            return None
        way.append((seen, action))
        seen, done = environment.step(action)
    return way if environment.outcome().score == 1 else None
