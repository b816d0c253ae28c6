"""How far a change reaches, by what is not the same in two candidates."""

import pytest

from ratchet.agent.candidate import NOT_CONTENT, Candidate, Demo, Predictor, Role, ToolOverride, Topology
from ratchet.agent.environment import Option
from ratchet.agent.risk import RISK_OF, RISKS, risk_of

SOLVER = Role(name="solver", duty="solve")
OLD = Candidate(
    predictors={"act": Predictor(instructions="Pick one.")},
    base_model="tiny",
    topology=Topology(roles=(SOLVER,)),
)


def predictor(**changes):
    return {"predictors": {"act": OLD.predictors["act"].model_copy(update=changes)}}


def team(*roles, **changes):
    return {"topology": OLD.topology.model_copy(update={"roles": roles or (SOLVER,), **changes})}


@pytest.mark.parametrize(
    ("changes", "risk"),
    [
        ({}, "memory"),
        ({"memory": "77aa"}, "memory"),
        ({"memories": {"act": "77aa"}}, "memory"),
        (predictor(demos=(Demo(inputs="a", output="b"),)), "memory"),
        (team(recalls=4, retrieval_weight=2.0), "memory"),
        (team(SOLVER.model_copy(update={"memory": "77aa", "recalls": 3})), "memory"),
        (predictor(instructions="Pick the best."), "prompt"),
        (predictor(instructions="Pick.", demos=(Demo(inputs="a", output="b"),)), "prompt"),
        ({"tools": {"find": ToolOverride(description="Finds.")}}, "prompt"),
        ({"replaces": "You are kind."}, "prompt"),
        ({"adapter": "c0ffee"}, "adapter"),
        ({"base_model": "openai/gpt-5"}, "adapter"),
        ({"models": {"support": "openai/gpt-5"}, "memory": "77aa"}, "adapter"),
        ({"api_base": "http://elsewhere:8000/v1"}, "adapter"),
        (team(SOLVER.model_copy(update={"adapter": "c0ffee"})), "adapter"),
        (team(attempts=3), "topology"),
        (team(reflections=0), "topology"),
        (team(SOLVER, Role(name="critic", duty="criticize")), "topology"),
        (team(SOLVER.model_copy(update={"duty": "judge"})), "topology"),
        (team(SOLVER.model_copy(update={"weight": 2.0})), "topology"),
        ({"extra_options": (Option(name="abstain"),)}, "topology"),
        ({"predictors": {**OLD.predictors, "check": Predictor(instructions="Check.")}}, "topology"),
        ({"kind": "chat", **predictor(instructions="Answer.")}, "topology"),
    ],
)
def test_the_riskiest_thing_that_changed_decides(changes, risk):
    assert risk_of(OLD, OLD.model_copy(update=changes)) == risk


def test_who_made_it_and_from_what_is_no_change():
    assert risk_of(OLD, OLD.model_copy(update={"parent": OLD.candidate_id})) == "memory"


def test_every_field_of_a_candidate_has_its_place():
    placed = {*RISK_OF, "predictors", "topology"}
    assert placed == set(Candidate.model_fields) - NOT_CONTENT
    assert RISKS == ("memory", "prompt", "adapter", "topology")
