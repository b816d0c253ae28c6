"""Retries with a written reflection, for agents in the user's code: scripted endpoint, real clients."""

import asyncio
from datetime import UTC, datetime

import dspy
import pytest
from openai import AsyncOpenAI

import ratchet
from ratchet.agent.bounded_call import event_loop
from ratchet.agent.build import first_candidate, make_agent
from ratchet.agent.case import Case
from ratchet.agent.project import Project
from ratchet.agent.rollout.loop import run
from ratchet.flows.template.desk.scripted_llm import TOPICS, running, topics

NOW = datetime(2026, 11, 25, tzinfo=UTC)
SYSTEM = ratchet.prompt("desk-system", default="Name the team that solves it.")


@pytest.fixture
def llm():
    with running() as scripted:
        scripted.client = AsyncOpenAI(base_url=scripted.address, api_key="x")
        yield scripted
        asyncio.run_coroutine_threadsafe(scripted.client.close(), event_loop()).result(10)


def solved(case, answer):
    """Known afterwards, as from a ticket that closes."""
    return float(answer == TOPICS[topics()[case.inputs["request"].lower()]])


def a_callable(llm):
    async def desk(request: str) -> object:
        told = [{"role": "system", "content": SYSTEM()}, {"role": "user", "content": request}]
        return await llm.client.chat.completions.create(model="scripted", messages=told)

    return Project(name="desk", agent=desk, parts=[SYSTEM], effects="none", score=solved, scores_itself=True)


def a_module(llm):
    module = dspy.Predict(dspy.Signature("request -> team", "Name the team that solves it."))
    return Project(name="desk", agent=module, effects="none", score=solved, scores_itself=True)


@pytest.mark.parametrize("kind", [a_callable, a_module])
def test_a_retry_reads_what_the_lm_wrote_about_its_failure_and_gains_by_it(kind, llm):
    project = kind(llm)
    cases = [Case(inputs={"request": text}) for text in list(topics())[:24]]
    first = first_candidate(project, "openai/scripted", llm.address)
    accuracy = {}
    for attempts, reflections in ((1, 3), (2, 0), (2, 3)):
        topology = first.topology.model_copy(update={"attempts": attempts, "reflections": reflections})
        candidate = first.model_copy(update={"topology": topology})
        agent = make_agent(project, candidate, {}, endpoint={"api_key": "x"})
        traces = run(agent, cases, project.environment, at=lambda _: NOW)
        assert not [trace.error for trace in traces if trace.error]
        accuracy[attempts, reflections] = sum(trace.score for trace in traces) / len(traces)
    retried = next(trace for trace in traces if len(trace.attempts) == 2)
    assert "was wrong: this is about" in retried.attempts[0].reflection  # the LM's words, not the template's
    assert accuracy[1, 3] == accuracy[2, 0] < 0.6  # a retry that reads nothing says the same again
    assert accuracy[2, 3] > accuracy[1, 3] + 0.4
