"""Proposers on a real registry: teams and tools beside replay, each role in its turn."""

import pytest

from ratchet.agent.case import Case
from ratchet.agent.optimize.evidence import Evidence
from ratchet.agent.optimize.proposer import made_by
from ratchet.agent.optimize.replay import Replay
from ratchet.agent.optimize.team_search import TeamSearch
from ratchet.agent.optimize.tools import Tools
from ratchet.agent.project import load_project
from ratchet.agent.team.roles import as_team
from ratchet.evaluation.data.cases import LabelledCase
from ratchet.infra.registry.agents import load_agent
from ratchet.infra.registry.registry import fetch_files, register, seen_case_ids
from ratchet.infra.store.collected import keep_traces
from ratchet.tasks import evidence
from ratchet.tasks.curate import TrainingExample
from ratchet.tasks.evidence import as_examples, registered, served_by, work_of
from ratchet.tasks.serve import first_champion


@pytest.fixture
def training():
    texts = [f"{n}: go {name}" for n in range(3) for name in ("left", "right")]
    cases = [Case(inputs={"request": text}, expected=text.split()[-1]) for text in texts]
    return [
        TrainingExample(
            case=LabelledCase(
                case=case, trace_id=f"{n:032x}", candidate_id="c", role="train", propensity=1.0, source="human",
                answer=case.expected,
            ),
            weight=1.0,
        )
        for n, case in enumerate(cases)
    ]  # fmt: skip


def made(proposer, project, parent, training):
    evidence = Evidence(examples=as_examples(project, training))
    return made_by(proposer, registered(project.name, parent), evidence, work_of(project, 0)), evidence


@pytest.mark.slow
def test_a_team_search_and_the_rewriting_of_tools_are_proposers_like_any_other(make_project, training):
    project = load_project(make_project().folder)
    served = first_champion(project)
    for proposer in (TeamSearch(rounds=1, examples=4), Tools()):
        _, evidence = made(proposer, project, served.candidate_id, training)
        assert evidence.seen == {example.case.case_id for example in training}


@pytest.mark.slow
def test_what_improves_one_agent_improves_every_role_of_a_team_and_is_served_from_the_registry(
    make_project, training
):
    project = load_project(make_project().folder)
    team = as_team(first_champion(project).candidate)
    register(project.name, team, files={}, seen_case_ids=["old"], cost={})
    proposal, evidence = made(Replay(recalls=1, tune_on=4), project, team.candidate_id, training)
    assert {"memory.solver", "memory.critic"} <= set(proposal.files)
    register(
        project.name,
        proposal.candidate,
        files=proposal.files,
        seen_case_ids=proposal.seen_case_ids,
        cost=proposal.cost,
    )
    candidate_id = proposal.candidate.candidate_id
    assert set(fetch_files(project.name, candidate_id)) == set(proposal.files)
    assert seen_case_ids(project.name, candidate_id) == {
        "old",
        *(example.case.case_id for example in training),
    }
    views = [example.view for example in evidence.examples]
    (decision, *_) = load_agent(project, candidate_id).decide(views)
    assert [part.actor for part in decision.parts] == ["solver", "critic", "critic", "judge"]


def test_a_rewriter_of_tools_sees_the_newest_of_what_its_candidate_did_or_of_all(
    project, make_trace, monkeypatch
):
    monkeypatch.setattr(evidence, "OWN", 2)
    ours = [make_trace(str(i), candidate_id="ours") for i in range(3)]
    keep_traces(project, [*ours, make_trace("theirs", candidate_id="theirs")])
    assert served_by(project, "ours") == ours[1:]
    assert [trace.candidate_id for trace in served_by(project, "new")] == ["ours", "theirs"]
