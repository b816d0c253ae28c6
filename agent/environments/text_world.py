"""Text games that make themselves and keep their own score: TextWorld's coin collector and cooking.

Decision: games are played from their logic (TextWorld's JSON backend) and described here in one line of what is true
around the player, so that a small model reads 50 tokens a step and no game is compiled for a virtual machine.
A cooking game's goal tells the recipe, as if the cookbook had been read. `pip install "ratchet-loop[textworld]"`.
Source: Côté et al., TextWorld (2018); MIT, but it needs jericho, which is GPL-2: hence an extra.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import Any, Literal

from pydantic import Field

from ratchet.agent.case import Case
from ratchet.agent.environment import Action, Observation, Option, Outcome
from ratchet.agent.errors import BadInput
from ratchet.agent.record import Record

IDLE = ("close", "drop", "examine", "insert", "inventory", "look", "put")
"""Commands that only undo, or tell what the observation tells already: not offered."""
CUTS = {"chopped": "chop", "sliced": "slice", "diced": "dice"}
FIRES = {"fried": "fry", "roasted": "roast", "grilled": "grill"}
STATES = ("closed", "locked", *CUTS, *FIRES, "burned")


class World(Record):
    """One game, whole: the same settings make the same game."""

    game: Literal["coin", "cooking"]
    seed: int = Field(ge=0, lt=65536)
    rooms: int = Field(default=1, ge=1, le=100)
    """coin: steps of the shortest way at least; cooking: 1, 6, 9 or 12. Drift: a larger world."""
    detours: int = Field(default=0, ge=0, le=2)
    """coin: dead ends beside each room of the way."""
    ingredients: int = Field(default=1, ge=1, le=5)
    cut: bool = True
    """cooking: ingredients must be cut as the recipe says."""
    cook: bool = False
    """cooking: ingredients must be cooked as the recipe says. Drift: a new goal."""
    split: Literal["train", "valid", "test"] | None = None
    """cooking: TextWorld's share of the foods. Drift: foods never met."""


def text_world_cases(worlds: Iterable[World]) -> tuple[Case, ...]:
    """A case per game; the slice is the kind of game. Needs the extra `textworld`."""
    return tuple(
        Case(inputs={"world": world.model_dump(mode="json"), "goal": world_goal(world)}, slice=world.game)
        for world in worlds
    )


def world_goal(world: World) -> str:
    """What is to be done, in words."""
    if world.game == "coin":
        return "find and take the coin"
    parts = []
    for food, cooked, cut in _game(world).metadata["ingredients"]:
        verbs = ["take", CUTS.get(cut, ""), FIRES.get(cooked, "") if world.cook else ""]
        parts.append(f"{', '.join(filter(None, verbs))} {food}")
    return f"{'; '.join(parts)}; prepare meal; eat meal"


class TextWorld:
    """One game; the score is the share of its points, 1 only for a game that was won."""

    def reset(self, case: Case) -> Observation:
        """Begin the game of the case.

        Raises:
            BadInput: the case describes no game, or TextWorld is not installed.
        """
        if not isinstance(case.inputs.get("world"), dict):
            raise BadInput(
                f"case {case.case_id}: inputs need a `world` (see `text_world_cases`); got {sorted(case.inputs)}"
            )
        world = World.model_validate(case.inputs["world"])
        self._goal = str(case.inputs.get("goal") or world_goal(world))
        self._played = _player(_game(world))
        self._state = self._played.reset()
        return self._observe()

    def step(self, action: Action) -> tuple[Observation, bool]:
        """Carry out an admissible command; anything else changes nothing."""
        self._state, _, done = self._played.step(action.name)
        return self._observe(), bool(done)

    def outcome(self) -> Outcome:
        """1 if the game is won; else the share of its points, below 1, and 0 if it is lost."""
        if self._state["won"]:
            return Outcome(score=1.0)
        if self._state["lost"]:
            return Outcome(score=0.0, feedback="The game is lost: something was spoilt.")
        share = (self._state.get("score") or 0) / max(self._state["max_score"], 1)
        return Outcome(score=min(max(share, 0.0), 0.99), feedback="The goal was not reached.")

    def _observe(self) -> Observation:
        known = self._state["admissible_commands"]
        names = [name for name in known if name.split()[0] not in IDLE] or known
        text = f"Goal: {self._goal}. {described(self._state['game'], self._state['_facts'])}"
        return Observation(text=text, options=tuple(Option(name=name) for name in names))


def described(game: Any, facts: Iterable[Any]) -> str:
    """What is true around the player, in one line."""
    names = {key: info.name for key, info in game.infos.items()}
    states: dict[str, list[str]] = {}
    inside: dict[str, list[str]] = {}
    for fact in facts:
        first, *rest = (variable.name for variable in fact.arguments)
        if fact.name in STATES:
            states.setdefault(first, []).append(fact.name)
        elif fact.name in ("at", "on", "in") and rest:
            inside.setdefault(rest[0], []).append(first)
    room = next(place for place, held in inside.items() if "P" in held)

    def told(key: str) -> str:
        state = f" ({', '.join(sorted(states[key]))})" if key in states else ""
        held = [] if "closed" in states.get(key, ()) else [told(item) for item in sorted(inside.get(key, ()))]
        return f"{names[key]}{state}" + (f" [{', '.join(held)}]" if held else "")

    here = ", ".join(told(key) for key in sorted(inside[room]) if key != "P" and names[key])
    carried = ", ".join(told(key) for key in sorted(inside.get("I", ())))
    return f"You carry {carried or 'nothing'}. You are in the {names[room]}{f': {here}' if here else ''}."


@lru_cache(maxsize=1024)
def _game(world: World) -> Any:
    """Make the game: 2 s for the first of a kind, then some tenths."""
    try:
        from textworld.challenges.tw_coin_collector import coin_collector
        from textworld.challenges.tw_cooking import cooking
        from textworld.generator.game import GameOptions
    except ModuleNotFoundError as error:
        raise BadInput(
            f'text games need TextWorld ({error.name} is missing): run `pip install "ratchet-loop[textworld]"`'
        ) from error
    options = GameOptions()
    options.seeds = world.seed
    with _uncompiled():
        if world.game == "coin":
            return coin_collector.make({"level": world.rooms + 100 * world.detours}, options)
        settings = {
            "recipe": world.ingredients, "take": world.ingredients, "go": world.rooms, "open": False,
            "cook": world.cook, "cut": world.cut, "drop": False, "recipe_seed": world.seed, "split": world.split,
        }  # fmt: skip
        return cooking.make(settings, options)


@contextmanager
def _uncompiled() -> Iterator[None]:
    """Spare what costs seconds a game: compiling it to check its walkthrough, and parsing the same rules again."""
    import textworld
    from textworld.generator.data import KnowledgeBase

    maker, load = textworld.GameMaker, KnowledgeBase.load

    class Unchecked(maker):  # type: ignore[misc, valid-type]  # textworld ships no types
        def set_walkthrough(self, commands: list[str]) -> None:
            """The walkthrough is not used."""

    textworld.GameMaker, KnowledgeBase.load = Unchecked, _rules(load)
    try:
        yield
    finally:
        textworld.GameMaker, KnowledgeBase.load = maker, load


@cache
def _rules(load: Any) -> Any:
    return cache(load)


def _player(game: Any) -> Any:
    from textworld.envs.tw import TextWorldEnv
    from textworld.generator.inform7 import Inform7Game

    played = TextWorldEnv()
    played._game, played._inform7 = game, Inform7Game(game)  # what `load` does, without a file
    return played
