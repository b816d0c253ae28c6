"""Rolling out with chance: what is random, what is the agent's own, and that it repeats with its seed."""

import pytest

from agent.decision import Decision
from agent.environment import Action, Case, Observation, Option, Outcome
from agent.explore import Explorer, search
from agent.limits import Limits
from agent.loop import run
from agent.program import Program, base_candidate


def cases(n):
    return [Case(inputs={"request": f"{i}: go"}, expected="d") for i in range(n)]


def explored(scripted_environment, at, *, attempts=1, **settings):
    explorer = Explorer(Program(base_candidate("Pick one.", attempts=attempts)), **settings)
    make = lambda: scripted_environment(options=tuple("abcd"))  # noqa: E731
    return run(explorer, cases(12), make, at=lambda i: at(i), limits=Limits(attempts=4))


def test_at_share_1_no_lm_is_asked_and_every_option_comes_up(scripted_environment, at):
    traces = explored(scripted_environment, at)
    assert {trace.action.name for trace in traces} == set("abcd")
    assert sum(trace.usage.lm_calls for trace in traces) == 0


def test_the_same_seed_does_the_same_and_another_does_not(scripted_environment, at):
    first, again, other = (
        [trace.action.name for trace in explored(scripted_environment, at, seed=seed)] for seed in (1, 1, 2)
    )
    assert first == again != other


def test_what_failed_is_not_drawn_again(scripted_environment, at):
    traces = explored(scripted_environment, at, attempts=4)
    assert all(trace.score == 1 for trace in traces)


def test_at_share_0_and_without_options_the_agent_decides(scripted_environment, at, monkeypatch):
    own = Decision(action=Action(name="d"), confidence=0.5)
    monkeypatch.setattr(Program, "decide", lambda self, views: [own for _ in views])
    assert all(trace.score == 1 for trace in explored(scripted_environment, at, share=0.0))
    free = Explorer(Program(base_candidate("Say one.")), share=1.0)
    (trace,) = run(free, cases(1), lambda: scripted_environment(options=()), at=at)
    assert trace.action.name == "d"


class Corridor:
    """Five doors in a row; the way on is `east`, `west` leads back; points on the way."""

    def reset(self, case):
        self.at, self.pits = 0, case.inputs["pits"]
        return self._see()

    def step(self, action):
        self.at = max(self.at + {"east": 1, "west": -1}[action.name], 0)
        return self._see(), self.at in (5, *self.pits)

    def outcome(self):
        return Outcome(score=0.0 if self.at in self.pits else self.at / 5)

    def _see(self):
        return Observation(text=f"door {self.at}", options=(Option(name="west"), Option(name="east")))


def test_a_search_goes_on_from_where_it_stood_and_gives_the_way_without_its_loops():
    case = Case(inputs={"pits": []})
    way = search(Corridor(), case, tries=40, steps=2)
    assert [action.name for _, action in way] == ["east"] * 5
    assert [seen.text for seen, _ in way] == [f"door {i}" for i in range(5)]
    assert search(Corridor(), case, tries=40, steps=2) == way


class Kitchen:
    """A meal has points whatever is in it, and wins only if the food was cut first; waiting changes nothing."""

    def reset(self, case):
        self.cut, self.meal, self.waited = False, False, 0
        return self._see()

    def step(self, action):
        self.cut |= action.name == "cut" and not self.meal
        self.meal |= action.name == "prepare"
        self.waited = min(self.waited + (action.name == "wait"), 3)
        return self._see(), self.meal and self.cut

    def outcome(self):
        return Outcome(score=1.0 if self.meal and self.cut else 0.5 * self.meal)

    def _see(self):
        text = f"cut {self.cut}, meal {self.meal}, waited {self.waited}"
        return Observation(text=text, options=tuple(Option(name=name) for name in ("cut", "prepare", "wait")))


@pytest.mark.parametrize("seed", range(10))
def test_a_search_leaves_a_dead_end_that_has_points_and_drops_the_steps_that_nothing_needed(seed):
    way = search(Kitchen(), Case(inputs={}), tries=60, steps=2, seed=seed)
    assert [action.name for _, action in way] == ["cut", "prepare"]


def test_a_search_that_finds_nothing_says_so(scripted_environment):
    assert search(Corridor(), Case(inputs={"pits": [3]}), tries=20, steps=8) is None
    (case,) = cases(1)
    assert search(scripted_environment(options=()), case, tries=3, steps=3) is None
    assert search(scripted_environment(scored=False), case, tries=3, steps=3) is None
