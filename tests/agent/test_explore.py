"""Rolling out with chance: what is random, what is the agent's own, and that it repeats with its seed."""

from agent.decision import Decision
from agent.environment import Action, Case
from agent.explore import Explorer
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
