"""Budgets are hard stops, and a call that was paid is not paid again."""

from dataclasses import replace
from pathlib import Path

import pytest

from ratchet.agent.build import first_candidate, make_agent
from ratchet.agent.case import Case
from ratchet.agent.optimize.budget import Budget, BudgetSpent, Meter
from ratchet.agent.optimize.calls import Calls
from ratchet.agent.optimize.proposer import Work
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
