import json

import pytest

from ratchet.infra.registry.registry import champion


@pytest.fixture(autouse=True)
def _nobody(monkeypatch):
    monkeypatch.delenv("USER", raising=False)


def test_without_candidate_those_that_wait_are_listed(ratchet, past):
    done = ratchet("approve", "--name", past.project, "--json")
    assert done.returncode == 0
    assert [w["candidate_id"] for w in json.loads(done.stdout)["waiting"]] == [past.proven.candidate_id]
    assert past.proven.candidate_id[:8] in ratchet("approve", "--name", past.project).stderr


def test_what_changes_and_the_evidence_are_shown_and_nothing_moves(ratchet, past):
    done = ratchet("approve", past.proven.candidate_id[:6], "--name", past.project)
    told = " ".join(done.stderr.split())
    assert done.returncode == 0
    for text in ("Choose a tool.", "Pick the tool.", "How warm is Oslo?", "needs 200", "--yes"):
        assert text in told
    assert champion(past.project).candidate_id == past.champion.candidate_id


def test_json_holds_changes_and_verdict(ratchet, past):
    answer = json.loads(ratchet("approve", "v3", "--name", past.project, "--json").stdout)
    assert answer["refusal"] is None
    assert {"what": "choose: instructions", "old": "Choose a tool.", "new": "Pick the tool."} in answer[
        "changes"
    ]
    assert answer["verdict"]["decision"] == "promote"


def test_yes_promotes_in_somebodys_name_with_the_verdict_as_reason(ratchet, own_past):
    proven = own_past.proven.candidate_id
    nameless = ratchet("approve", proven, "--name", own_past.project, "--yes")
    assert nameless.returncode == 2
    done = ratchet("approve", proven, "--name", own_past.project, "--yes", "--by", "bert")
    assert done.returncode == 0
    serving = champion(own_past.project)
    assert serving.candidate_id == proven
    assert serving.events[-1].by == "bert"
    assert serving.events[-1].reason == serving.reason
    assert ratchet("approve", "--name", own_past.project).returncode == 3, "nobody waits any more"


@pytest.mark.parametrize("options", [(), ("--yes", "--by", "bert")])
def test_a_refused_challenger_stays_refused_with_its_sentence(ratchet, past, options):
    done = ratchet("approve", past.refused.candidate_id, "--name", past.project, "--json", *options)
    assert done.returncode == 2
    answer = json.loads(done.stdout)
    assert answer["promoted"] is False
    assert "its verdict says refused" in answer["refusal"]
    assert "its verdict says refused" in done.stderr
    assert champion(past.project).candidate_id == past.champion.candidate_id


def test_an_unknown_candidate_is_one_line(ratchet, past):
    done = ratchet("approve", "nothing", "--name", past.project)
    assert done.returncode == 2
    assert "no candidate is 'nothing'" in done.stderr
