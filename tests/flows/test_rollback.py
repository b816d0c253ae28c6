import json

import pytest

from ratchet.infra.mlflow_client import connect
from ratchet.infra.registry.registry import champion


@pytest.fixture(autouse=True)
def _nobody(monkeypatch):
    monkeypatch.delenv("USER", raising=False)


def test_without_yes_it_says_what_it_would_do_and_moves_nothing(ratchet, past):
    done = ratchet("rollback", "--name", past.project)
    assert done.returncode == 0
    assert f"would put v1 {past.first.candidate_id[:8]} back" in done.stderr
    assert champion(past.project).candidate_id == past.champion.candidate_id


def test_with_yes_the_champion_before_serves_again_and_the_move_is_recorded(ratchet, own_past):
    options = ("--by", "bert", "--reason", "complaints", "--yes", "--json")
    done = ratchet("rollback", "--name", own_past.project, *options)
    assert json.loads(done.stdout)["done"] is True
    back = champion(own_past.project)
    assert back.candidate_id == own_past.first.candidate_id
    assert (back.events[-1].by, back.events[-1].reason) == ("bert", "complaints")
    assert ratchet("rollback", "--name", own_past.project).returncode == 2, (
        "there is nothing before the first"
    )


def test_without_name_or_reason_nothing_moves(ratchet, past):
    for options in (("--by", "bert"), ("--reason", "complaints")):
        done = ratchet("rollback", "--name", past.project, "--yes", *options)
        assert done.returncode == 2
        assert "a name and a reason" in done.stderr
    assert champion(past.project).candidate_id == past.champion.candidate_id


def test_where_the_alias_of_the_champion_is_gone_the_one_that_served_last_comes_back(ratchet, own_past):
    connect(own_past.project).client.delete_registered_model_alias(own_past.project, "champion")
    done = ratchet(
        "approve", own_past.proven.candidate_id, "--name", own_past.project, "--yes", "--by", "anna"
    )
    assert done.returncode == 2
    assert "no champion, its alias was removed: `ratchet rollback --yes" in " ".join(done.stderr.split())
    done = ratchet("rollback", "--name", own_past.project)
    assert (done.returncode, champion(own_past.project)) == (0, None)
    assert "put v2" in done.stderr
    options = ("--by", "bert", "--reason", "the alias was lost", "--yes", "--json")
    done = ratchet("rollback", "--name", own_past.project, *options)
    answer = json.loads(done.stdout)
    assert (answer["from"], answer["to"]) == (None, own_past.champion.candidate_id)
    assert champion(own_past.project).candidate_id == own_past.champion.candidate_id
