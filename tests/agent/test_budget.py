"""Budgets are hard stops, and a call that was paid is not paid again."""

import threading
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tenacity
from tests.children import Children

from ratchet.agent.build import first_candidate, make_agent
from ratchet.agent.case import Case
from ratchet.agent.errors import OutOfTime
from ratchet.agent.kinds.chat import ChatAgent
from ratchet.agent.kinds.chat_endpoint import Chat, chat_candidate
from ratchet.agent.kinds.program import Program, base_candidate
from ratchet.agent.lm.endpoint import Endpoint
from ratchet.agent.lm.patience import patience
from ratchet.agent.optimize.budget import Budget, BudgetSpent, Meter
from ratchet.agent.optimize.calls import Calls, forget_all
from ratchet.agent.optimize.work import Work
from ratchet.agent.project import Project
from ratchet.agent.trace import Usage

CASES = [Case(inputs={"text": f"request {n}"}, expected=f"REQUEST {n}") for n in range(6)]


def work_for(calls: Calls, budget: Budget, played: list[str], tmp_path: Path) -> tuple[Work, Project]:
    def shout(text: str) -> str:
        played.append(text)
        return text.upper()

    project = Project(
        name="shout", agent=shout, effects="none", score=lambda case, answer: float(case.expected == answer)
    )
    work = Work(
        folder=tmp_path,
        environment=project.environment,
        agent=lambda candidate, files: make_agent(project, candidate, files, endpoint={"concurrency": 1}),
        calls=calls,
    )
    return replace(work, meter=Meter(budget)), project


def test_a_killed_start_goes_on_without_paying_a_case_twice_and_counts_it_all_the_same(
    tmp_path: Path,
) -> None:
    played: list[str] = []
    first, project = work_for(Calls(tmp_path / "calls.db", "one"), Budget(calls=4), played, tmp_path)
    candidate = first_candidate(project, None, None)
    assert [trace.score for trace in first.play(candidate, {}, CASES[:3])] == [1, 1, 1]

    second, _ = work_for(Calls(tmp_path / "calls.db", "one"), Budget(calls=4), played, tmp_path)
    again = second.play(candidate, {}, CASES[:4])
    assert [trace.answer for trace in again] == [case.expected for case in CASES[:4]]
    assert played == [case.inputs["text"] for case in CASES[:4]]
    assert (second.meter.spent.calls, second.meter.paid) == (4, 1)
    with pytest.raises(BudgetSpent, match=r"budget of 4 calls is spent \(4 used\): raise budget.calls"):
        second.play(candidate, {}, CASES[4:])
    assert len(played) == 4, "what does not fit is not begun"


def test_another_proposal_pays_its_own_calls(tmp_path: Path) -> None:
    played: list[str] = []
    for scope in ("one", "two"):
        work, project = work_for(Calls(tmp_path / "calls.db", scope), Budget(), played, tmp_path)
        work.play(first_candidate(project, None, None), {}, CASES[:1])
    assert len(played) == 2


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (Budget(tokens=10), "budget of 10 tokens is spent"),
        (Budget(usd=0.5), "budget of 0.5 US dollars is spent"),
        (Budget(seconds=5), "budget of 5 seconds is spent"),
    ],
)
def test_tokens_money_and_seconds_stop_before_the_next_call(budget: Budget, said: str) -> None:
    now = iter([0.0, 1.0, 9.0, 9.0])
    meter = Meter(budget, clock=lambda: next(now))
    meter.take()
    meter.charge(Usage(input_tokens=8, output_tokens=4, cost_usd=0.5))
    with pytest.raises(BudgetSpent, match=said):
        meter.take()


def test_of_two_budgets_the_tighter_bound_of_each_counts() -> None:
    assert Budget(calls=5, usd=1).within(Budget(calls=9, seconds=3)) == Budget(calls=5, usd=1, seconds=3)


def test_who_is_busy_for_a_minute_is_waited_for_and_said_once_and_who_is_broken_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Refused(Exception):
        def __init__(self, status: int) -> None:
            self.status_code = status

    def ask(status: int) -> tuple[float, int]:
        slept: list[float] = []

        def answer() -> str:
            if sum(slept) < 60:
                raise Refused(status)
            return "here"

        retrying = tenacity.Retrying(**patience(2), sleep=slept.append)
        if status == 429:
            assert retrying(answer) == "here"
        else:
            with pytest.raises(Refused):
                retrying(answer)
        return sum(slept), len(slept)

    with caplog.at_level("WARNING", "ratchet.agent.lm.patience"):
        waited = [ask(429)[0] for _ in range(3)]
    assert all(60 <= seconds < 130 for seconds in waited)
    assert len(caplog.messages) <= 1, "one line, however many calls wait"
    assert ask(503)[1] == 1


def test_a_busy_server_answers_in_the_end_and_one_that_never_does_is_given_up(
    scripted_endpoint: Any, scripted_environment: Any, tmp_path: Path
) -> None:
    busy = [(429, "slow down", {"Retry-After": "0.05"})] * 7
    scripted_endpoint.answer = lambda _: busy.pop() if busy else "heron"
    lm = Endpoint("openai/scripted", api_base=scripted_endpoint.url, api_key="x", num_retries=2)
    work = Work(folder=tmp_path, meter=Meter(Budget(call_seconds=60)))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="litellm|pydantic|openai|aiohttp|httpx")
        assert work.write(lm, "Which bird?") == "heron"
        assert (len(scripted_endpoint.prompts), work.meter.spent.calls) == (8, 1)

        never = threading.Event()
        scripted_endpoint.answer = lambda _: str(never.wait(20))
        hangs = replace(work, meter=Meter(Budget(call_seconds=0.3)))
        began = time.monotonic()
        with pytest.raises(OutOfTime, match="within"):
            hangs.write(lm, "Which fish?")
        where = {"api_base": scripted_endpoint.url, "api_key": "x", "num_retries": 2}
        project = Project(name="deaf", agent=lambda text: str(never.wait(20)), effects="none")
        chat = Chat(upstream=scripted_endpoint.url, model="small")
        agents = {
            "callable": make_agent(project, first_candidate(project, None, None), {}, endpoint={}),
            "chat": ChatAgent(chat, chat_candidate(chat), endpoint=where),
            "built-in": Program(base_candidate("Pick one.", model="openai/scripted"), endpoint=where),
        }
        for kind, agent in agents.items():
            world = scripted_environment if kind == "built-in" else project.environment
            played = replace(hangs, environment=world, agent=lambda one, files, agent=agent: agent)
            (trace,) = played.play(agent.candidate, {}, [Case(inputs={"request": kind})])
            assert (trace.error and trace.error.kind, trace.stopped) == ("agent", "seconds"), trace.error
        assert time.monotonic() - began < 10, "each is given up after its share of a second"
        never.set()


def _pays(path: Path, scope: str, n: int) -> None:
    calls = Calls(path, scope)
    for number in range(n):
        calls.keep("call", number, value={"said": f"{scope} {number}"}, seconds=0.1)


def test_processes_that_pay_side_by_side_lose_nothing_and_what_is_forgotten_is_not_in_the_file(
    tmp_path: Path, spawn: Children
) -> None:
    path = tmp_path / "calls.db"
    children = [spawn.Process(target=_pays, args=(path, scope, 40)) for scope in ("one", "two", "one")]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0, 0]
    for scope in ("one", "two"):
        kept = [Calls(path, scope).kept("call", number) for number in range(40)]
        assert [one and one.value for one in kept] == [{"said": f"{scope} {n}"} for n in range(40)]
    assert path.stat().st_mode & 0o077 == 0, "it holds what people asked"
    Calls(path, "one").forget()
    assert (b"two 39" in path.read_bytes(), b"one 39" in path.read_bytes()) == (True, False)
    forget_all(path)
    assert b"two 39" not in path.read_bytes()
