import pytest

from ratchet.agent.candidate import Candidate, Predictor, Role, Topology
from ratchet.agent.errors import BadInput
from ratchet.agent.project import load_project
from ratchet.tasks.other_model import moved, require_address, unused_model
from ratchet.tasks.serve import first_champion

PROMPTS = {"choose": Predictor(instructions="Choose.")}


def test_all_but_weights_and_address_is_kept():
    team = Topology(roles=(Role(name="solver", duty="solve", adapter="ad0", memory="me1"),))
    before = Candidate(predictors=PROMPTS, base_model="small", adapter="ad1", memory="me0", topology=team)
    after = moved(before, "c0ffee", "openai/big", "https://lm.example/v1")
    assert (after.base_model, after.api_base, after.adapter) == ("openai/big", "https://lm.example/v1", None)
    assert (after.memory, after.predictors) == (before.memory, before.predictors)
    assert [(role.adapter, role.memory) for role in after.topology.roles] == [(None, "me1")]
    assert (after.parent, after.origin.proposer) == ("c0ffee", "model")


def test_the_same_lm_is_the_same_candidate():
    before = Candidate(predictors=PROMPTS, base_model="small", adapter="ad1")
    assert moved(before, before.candidate_id, "small", None) is before


def test_an_lm_without_an_address_is_refused():
    with pytest.raises(BadInput, match="openai/big has no address"):
        require_address("openai/big", None)
    assert require_address("openai/big", "https://lm.example/v1") == "https://lm.example/v1"


def test_a_setting_that_does_not_replace_the_champions_lm_says_how_to_try_it(make_project, monkeypatch):
    ours = make_project()
    project = load_project(ours.folder)
    first = first_champion(project)
    assert unused_model(project, first.candidate_id) == ()
    monkeypatch.setenv("RATCHET_LM", "openai/big")
    (line,) = unused_model(project, first.candidate_id)
    assert "RATCHET_LM says openai/big" in line
    assert line.endswith("`ratchet improve --model openai/big` tries it")
