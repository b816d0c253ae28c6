"""A `dspy.Module` in the user's own process, and what plays of an agent leave in MLflow: nothing."""

import asyncio

import dspy
import mlflow
import pytest
from dspy.utils import DummyLM
from tests.evidence import give_verdict

import ratchet
from ratchet.agent import parts
from ratchet.agent.candidate import Candidate, Predictor
from ratchet.agent.kinds.decision import View
from ratchet.agent.kinds.module import module_candidate
from ratchet.evaluation.gate.gate import Pair, decide
from ratchet.infra.parts.source import ServedParts
from ratchet.infra.registry.agents import build
from ratchet.infra.registry.promotion import promote
from ratchet.infra.registry.registry import register

BETTER = decide(
    [Pair(case_id=str(n), champion=0.0, challenger=float(n % 10 > 0)) for n in range(100)], alpha=0.001
)


class Support(dspy.Module):
    def __init__(self):
        super().__init__()
        self.solve = dspy.Predict(dspy.Signature("request -> team", "As in the code."))

    def forward(self, request):
        return self.solve(request=request)

    async def aforward(self, request):
        return await self.solve.acall(request=request)


def serve(project, made):
    version = register(project, made, files={}, seen_case_ids=[], cost={})
    if made.parent:
        give_verdict(project, version.candidate_id, made.parent, BETTER)
    promote(project, version.candidate_id, approved_by="anna", reason="proven")


@pytest.fixture
def lm():
    """A scripted LM; it keeps what it was asked."""
    made = DummyLM([{"team": "heron"}] * 20)
    with dspy.context(lm=made):
        yield made


def test_a_module_answers_as_the_version_that_serves_and_its_trace_says_so(project, lm, monkeypatch):
    monkeypatch.setenv("RATCHET_PARTS_TTL_S", "0")
    monkeypatch.setattr(parts, "_declared", set())
    own = Support()
    support = ratchet.module(project, own)
    parts.read_from(ServedParts())
    try:
        first = module_candidate(own)
        serve(project, first)
        assert (support(request="a").team, _told(lm)) == ("heron", "As in the code.")
        said = {"solve": Predictor(instructions="Cards go to heron.")}
        second = first.model_copy(update={"predictors": said, "parent": first.candidate_id})
        serve(project, second)
        with mlflow.start_span("answer") as span:
            assert support(request="b").team == "heron"
        assert _told(lm) == "Cards go to heron."
        assert asyncio.run(support.acall(request="c")).team == "heron"
        assert _told(lm) == "Cards go to heron."
        assert own.solve.signature.instructions == "As in the code."
    finally:
        parts.read_from(None)
    mlflow.flush_trace_async_logging()
    assert mlflow.get_trace(span.trace_id).info.tags["candidate_id"] == second.candidate_id


def _told(lm):
    """The instructions that the LM read last."""
    system = lm.history[-1]["messages"][0]["content"]
    return system.rpartition("objective is:")[2].strip()


def test_a_served_module_is_the_project_s_agent_as_the_module_that_it_wraps(project):
    own = Support()
    made = ratchet.Project(name=project, agent=ratchet.module(project, own), effects="none")
    assert made.agent is own


def test_what_an_agent_s_own_code_traces_while_it_is_played_is_not_kept(project):
    seen = []

    def agent(request):
        with mlflow.start_span("of the user's code") as span:
            seen.append(span.trace_id)
        return request

    made = ratchet.Project(name=project, agent=agent, effects="none")
    candidate = Candidate(kind="callable", predictors={}, base_model="in the agent's code")
    played = build(made, candidate, {})
    for one in (played, played.serving()):
        one.act(View(case_id="c", observation=ratchet.Observation(text="a"), inputs={"request": "a"}))
    agent(request="by the user")
    mlflow.flush_trace_async_logging()
    assert [one.startswith("tr-") for one in seen] == [False, False, True]
