"""TextWorld's games through our protocol: each is won by its own walkthrough, and drift makes other games."""

import subprocess
import sys

import pytest

from ratchet.agent.case import Case
from ratchet.agent.environment import Action, Environment
from ratchet.agent.environments.text_world import TextWorld, World, _game, text_world_cases
from ratchet.agent.errors import BadInput

COIN = World(game="coin", seed=3, rooms=3, detours=1)
COOKING = World(game="cooking", seed=2)


@pytest.fixture(autouse=True)
def _installed(request):
    if "without_textworld" not in request.node.name:
        pytest.importorskip("textworld", reason='install it: pip install "ratchet-loop[textworld]"')


def play(world, commands):
    environment = TextWorld()
    (case,) = text_world_cases([world])
    seen, done = environment.reset(case), False
    for command in commands:
        assert not done
        seen, done = environment.step(Action(name=command))
    return seen, done, environment.outcome()


@pytest.mark.parametrize(
    "world", [COOKING, World(game="cooking", seed=5, rooms=6, ingredients=2, cook=True, split="test")]
)
def test_the_walkthrough_wins_and_half_of_it_has_a_share_of_the_points(world):
    walkthrough = _game(world).metadata["walkthrough"]
    _, done, outcome = play(world, walkthrough)
    assert (done, outcome.score) == (True, 1.0)
    _, done, outcome = play(world, walkthrough[:-1])
    assert not done
    assert 0 < outcome.score < 1
    assert outcome.feedback == "The goal was not reached."


def test_the_coin_is_found_by_going_there(monkeypatch):
    environment = TextWorld()
    (case,) = text_world_cases([World(game="coin", seed=1, rooms=2)])
    assert isinstance(environment, Environment)
    seen = environment.reset(case)
    assert seen.text.startswith("Goal: find and take the coin. You carry nothing. You are in the ")
    (way,) = [option.name for option in seen.options]
    seen, done = environment.step(Action(name=way))
    assert not done
    assert "coin" in seen.text
    assert "take coin" in [option.name for option in seen.options]
    _, done = environment.step(Action(name="take coin"))
    assert (done, environment.outcome().score) == (True, 1.0)


def test_a_goal_tells_the_recipe_and_spoiling_it_loses():
    (case,) = text_world_cases([COOKING])
    food = _game(COOKING).metadata["ingredients"][0][0]
    assert case.inputs["goal"].endswith(f"{food}; prepare meal; eat meal")
    walkthrough = _game(COOKING).metadata["walkthrough"]
    (take,) = [command for command in walkthrough if command.startswith(f"take {food}")]
    _, done, outcome = play(COOKING, [take, f"eat {food}"])
    assert (done, outcome.score) == (True, 0.0)
    assert "lost" in outcome.feedback


def test_what_is_not_admissible_changes_nothing():
    environment = TextWorld()
    (case,) = text_world_cases([COIN])
    before = environment.reset(case)
    assert environment.step(Action(name="fly to the moon <|im_end|>")) == (before, False)


def test_commands_that_only_undo_or_look_are_not_offered():
    seen, _, _ = play(COOKING, [])
    verbs = {option.name.split()[0] for option in seen.options}
    assert "take" in verbs
    assert not verbs & {"look", "examine", "inventory", "drop", "put", "insert", "close"}


def test_the_same_settings_make_the_same_game_and_drift_makes_another():
    (one,), (same,) = text_world_cases([COIN]), text_world_cases([World.model_validate(COIN.model_dump())])
    assert one == same
    environment = TextWorld()
    assert environment.reset(one) == environment.reset(same)
    worlds = [
        COOKING.model_copy(update=change) for change in ({}, {"rooms": 6}, {"cook": True}, {"split": "test"})
    ]
    cases = text_world_cases(worlds)
    assert len({case.case_id for case in cases}) == 4
    assert len({environment.reset(case).text for case in cases}) >= 3


def test_a_case_without_a_world_says_what_it_needs():
    with pytest.raises(BadInput, match="inputs need a `world`"):
        TextWorld().reset(Case(inputs={"request": "hello"}))


def test_without_textworld_the_remedy_is_named():
    code = (
        "import sys; sys.modules['textworld'] = None\n"
        "from ratchet.agent.environments.text_world import World, text_world_cases\n"
        "text_world_cases([World(game='cooking', seed=0)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert 'pip install "ratchet-loop[textworld]"' in done.stderr
