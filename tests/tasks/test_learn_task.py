"""Proposers as the flow calls them, on a real registry: teams and tools beside experience, each role in its turn."""

import pytest

from ratchet.agent.case import Case
from ratchet.agent.optimize.replay import ExperienceSettings
from ratchet.agent.optimize.team_search import TeamSettings
from ratchet.agent.project import load_project
from ratchet.agent.team.roles import as_team
from ratchet.evaluation.data.cases import LabelledCase
from ratchet.infra.registry.programs import load_program
from ratchet.infra.registry.registry import fetch_files, register, seen_case_ids
from ratchet.infra.store.collected import keep_traces
from ratchet.infra.store.dataset_store import write_dataset
from ratchet.tasks import propose as learn
from ratchet.tasks.propose import ProposeSettings, TrainingExample, as_examples, make
from ratchet.tasks.serve import first_champion

SETTINGS = ProposeSettings(
    experience=ExperienceSettings(recalls=1, tune_on=4), team=TeamSettings(rounds=1, examples=4)
)


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


@pytest.mark.slow
def test_a_team_search_and_the_rewriting_of_tools_are_proposers_like_any_other(make_project, training):
    ours = make_project()
    served = first_champion(load_project(ours.folder)).candidate
    examples = as_examples(str(ours.folder), training)
    for proposer in ("team", "tools"):
        proposal = make(ours.name, proposer, served.candidate_id, examples, training, "d", SETTINGS)
        assert set(proposal.seen_case_ids) == {example.case.case_id for example in training}
        assert proposal.candidate == served or proposal.candidate.origin.proposer == proposer


@pytest.mark.slow
def test_what_improves_one_agent_improves_every_role_of_a_team_and_is_served_from_the_registry(
    make_project, training
):
    ours = make_project()
    team = as_team(first_champion(load_project(ours.folder)).candidate)
    register(ours.name, team, files={}, seen_case_ids=["old"], cost={})
    examples = as_examples(str(ours.folder), training)
    proposal = make(ours.name, "experience", team.candidate_id, examples, training, "d", SETTINGS)
    assert {"memory.solver", "memory.critic"} <= set(proposal.files)
    register(
        ours.name,
        proposal.candidate,
        files=proposal.files,
        seen_case_ids=proposal.seen_case_ids,
        cost=proposal.cost,
        dataset=write_dataset("training", training),
    )
    made = proposal.candidate
    assert set(fetch_files(ours.name, made.candidate_id)) == set(proposal.files)
    assert seen_case_ids(ours.name, made.candidate_id) == {
        "old",
        *(example.case.case_id for example in training),
    }
    (decision, *_) = load_program(ours.name, made.candidate_id).decide([example.view for example in examples])
    assert [part.actor for part in decision.parts] == ["solver", "critic", "critic", "judge"]


def test_a_rewriter_of_tools_sees_the_newest_of_what_its_candidate_did_or_of_all(
    project, make_trace, monkeypatch
):
    monkeypatch.setattr(learn, "OWN", 2)
    ours = [make_trace(str(i), candidate_id="ours") for i in range(3)]
    keep_traces(project, [*ours, make_trace("theirs", candidate_id="theirs")])
    assert learn.own_traces(project, "ours") == ours[1:]
    assert [trace.candidate_id for trace in learn.own_traces(project, "new")] == ["ours", "theirs"]
