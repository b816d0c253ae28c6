import pytest

from ratchet.agent.errors import BadInput
from ratchet.agent.project import load_project
from ratchet.tasks.other_model import require_address, unused_model
from ratchet.tasks.serve import first_champion


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
