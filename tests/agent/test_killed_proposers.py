"""Every proposer that pays an endpoint, killed in the middle: the second start pays no call twice, and ends alike."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ratchet.agent.candidate import Candidate
from ratchet.agent.case import Case
from ratchet.agent.environment import Action, Observation, Option, Outcome
from ratchet.agent.kinds.decision import View
from ratchet.agent.kinds.program import base_candidate
from ratchet.agent.lm.endpoint import _Patient
from ratchet.agent.lm.of_candidate import lm_for
from ratchet.agent.optimize.budget import Budget, BudgetSpent
from ratchet.agent.optimize.calls import Calls
from ratchet.agent.optimize.evidence import Evidence, Example
from ratchet.agent.optimize.prompts.prompts import Prompts
from ratchet.agent.optimize.proposer import Proposer, Registered, made_by
from ratchet.agent.optimize.team_search import TeamSearch
from ratchet.agent.optimize.tools import Tools
from ratchet.agent.optimize.trajectories import Trajectories
from ratchet.agent.optimize.work import Work
from ratchet.agent.rollout.loop import run
from ratchet.agent.team.team import make_program
from ratchet.agent.trace import Trace

OPTIONS = (Option(name="svc.A1", description="Things."), Option(name="svc.B2", description="Stuff."))
TEXTS = [f"{n}: {what}" for n in range(6) for what in ("fly to Oslo by plane", "sleep in a hotel at night")]
CASES = [Case(inputs={"request": text}) for text in TEXTS]
AT = datetime(2026, 1, 1, tzinfo=UTC)
RIGHT = {text: OPTIONS["hotel" in text].name for text in TEXTS}
PROPOSERS: dict[str, Proposer] = {
    "prompts": Prompts(optimizer="few-shot", validation=2, programs=1, lead=0, instructions=("Pick well.",)),
    "tools": Tools(),
    "trajectories": Trajectories(repairs=4),
    "team": TeamSearch(rounds=1, examples=4),
}


class World:
    """Scripted: the right option is the case's expected one."""

    def reset(self, case: Case) -> Observation:
        self.case, self.said = case, ""
        return Observation(text=case.inputs["request"], options=OPTIONS)

    def step(self, action: Action) -> tuple[Observation, bool]:
        self.said = action.name
        return Observation(text="over"), True

    def outcome(self) -> Outcome:
        return Outcome(
            score=float(self.said == RIGHT[self.case.inputs["request"]]), feedback="Try the other one."
        )


def work_at(folder: Path, url: str) -> Work:
    where = {"api_base": url, "api_key": "x", "num_retries": 0, "concurrency": 1}
    return Work(
        folder=folder,
        environment=World,
        agent=lambda one, files: make_program(one, files, endpoint=where),
        writer=partial(lm_for, endpoint=where),
        calls=Calls(folder / "calls.db", "one"),
    )


def proposed(
    name: str, folder: Path, url: str, traces: Sequence[Trace] = (), calls: int = 120
) -> Candidate | None:
    """What the proposer makes of six requests of each kind, of which the agent gets all of one kind wrong."""
    parent = base_candidate("Pick one.", model="openai/scripted")
    examples = [
        Example(
            view=View(case_id=case.case_id, observation=World().reset(case), inputs=case.inputs),
            answer=RIGHT[text],
            trace_id=f"{n:032x}",
        )
        for n, (case, text) in enumerate(zip(CASES, TEXTS, strict=True))
    ]
    evidence = Evidence(examples=examples, served=traces, rollouts=traces)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="litellm|pydantic|openai|aiohttp|httpx")
        made = made_by(
            PROPOSERS[name],
            Registered(parent),
            evidence,
            replace(work_at(folder, url), budget=Budget(calls=calls)),
        )
    return made and made.candidate


class Killed(BaseException):
    """What kill -9 is to the rest of the program: nothing after it runs."""


def answer(prompt: str) -> str:
    """Scripted: wrong about hotels, unless it is told of its mistake or reads a good description."""
    if "Describe the tool" in prompt:
        return (
            "Finds a hotel to sleep in at night." if "tool: svc.B2" in prompt else "Books a flight by plane."
        )
    if "Say in one sentence" in prompt:
        return "Take the other one."
    knows = "hotel" in prompt.rpartition("Request:")[2] and ("Finds a hotel" in prompt or "Note" in prompt)
    names = [line.split(":")[0][2:] for line in prompt.splitlines() if line.startswith("- ")]
    return names[-1] if knows and names else names[0] if names else "fine"


@pytest.mark.parametrize("name", PROPOSERS)
def test_a_second_start_pays_no_call_twice_and_comes_to_the_same(
    name: str, scripted_endpoint: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted_endpoint.answer = answer
    folders = {how: tmp_path / how for how in ("whole", "killed")}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="litellm|pydantic|openai|aiohttp|httpx")
        where = {"api_base": scripted_endpoint.url, "api_key": "x"}
        agent = make_program(base_candidate("Pick one.", model="openai/scripted"), {}, endpoint=where)
        traces = run(agent, CASES, World, at=lambda i: AT.replace(minute=i))
    for folder in folders.values():
        folder.mkdir()
    scripted_endpoint.prompts.clear()
    whole = proposed(name, folders["whole"], scripted_endpoint.url, traces)
    n = len(scripted_endpoint.prompts)
    assert whole is not None
    assert n >= 4

    scripted_endpoint.prompts.clear()
    ask = _Patient._once

    def dies(self: Any, *given: Any, **named: Any) -> Any:
        if len(scripted_endpoint.prompts) == n // 2:
            raise Killed
        return ask(self, *given, **named)

    with monkeypatch.context() as patched:
        patched.setattr(_Patient, "_once", dies)
        with pytest.raises(Killed):
            proposed(name, folders["killed"], scripted_endpoint.url, traces)
    assert proposed(name, folders["killed"], scripted_endpoint.url, traces) == whole
    assert len(scripted_endpoint.prompts) == n, "what was paid before the kill is not paid after it"


@pytest.mark.parametrize("name", ["prompts", "team"])
def test_what_does_not_fit_into_the_budget_is_not_asked_and_that_is_said(
    name: str, scripted_endpoint: Any, tmp_path: Path
) -> None:
    scripted_endpoint.answer = answer
    with pytest.raises(BudgetSpent, match=r"the budget of 3 calls is spent .*: raise budget.calls for more"):
        proposed(name, tmp_path, scripted_endpoint.url, calls=3)
    asked = {"prompts": 3, "team": 2}[name]  # a team keeps the calls back that check what it found
    assert len(scripted_endpoint.prompts) == asked
