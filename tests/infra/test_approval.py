"""A person's yes and no in the log of a real MLflow: who may, how many, until when, and nobody around it."""

from datetime import timedelta

import pytest
from tests.evidence import give_verdict, ledger_events

from ratchet.agent.candidate import Candidate, Predictor, Topology
from ratchet.agent.errors import BadInput
from ratchet.evaluation.gate.approval import ApprovalSettings
from ratchet.evaluation.gate.gate import Pair, decide
from ratchet.infra.registry import approval as approvals
from ratchet.infra.registry.approval import (
    all_waiting,
    approve,
    decline,
    lapse,
    lapsed,
    set_policy,
    waiting_approval,
)
from ratchet.infra.registry.event_log import now
from ratchet.infra.registry.registry import champion, promote, register, roll_back

BETTER = decide(
    [Pair(case_id=str(n), champion=0.0, challenger=float(n % 10 > 0)) for n in range(100)], alpha=0.001
)
FIRST = Candidate(predictors={"act": Predictor(instructions="first")}, base_model="tiny")
PROMPT = FIRST.model_copy(update={"predictors": {"act": Predictor(instructions="second")}})
TEAM = FIRST.model_copy(update={"topology": Topology(attempts=3)})
POLICY = ApprovalSettings(
    memory="auto",
    prompt=("anna", "ben"),
    adapter=("anna",),
    topology=("anna", "ben", "eva"),
    two=("topology",),
)


@pytest.fixture
def proven(project):
    """Two challengers that are proven over the champion: one changes a prompt, one the topology."""
    for one in (FIRST, PROMPT, TEAM):
        register(project, one, files={}, seen_case_ids=[], cost={})
    promote(project, FIRST.candidate_id, approved_by="ratchet", reason="the first")
    for one in (PROMPT, TEAM):
        give_verdict(project, one.candidate_id, FIRST.candidate_id, BETTER)
    return project


def serves(project):
    return champion(project).candidate_id


def test_the_policy_holds_whatever_the_way_in_and_the_name_of_each_is_recorded(proven):
    set_policy(proven, POLICY)
    set_policy(proven, POLICY)
    assert sum(event.kind == "policy" for event in ledger_events(proven)) == 1
    for say in (
        lambda: approve(proven, PROMPT.candidate_id, by="eva", reason="looks fine", via="prefect"),
        lambda: promote(proven, PROMPT.candidate_id, approved_by="eva", reason="looks fine"),
        lambda: decline(proven, PROMPT.candidate_id, by="eva", reason="no", via="terminal"),
    ):
        with pytest.raises(BadInput, match="'eva' may not approve a change of prompt"):
            say()
    with pytest.raises(BadInput, match="1 more must approve a change of topology"):
        promote(proven, TEAM.candidate_id, approved_by="anna", reason="alone")
    assert serves(proven) == FIRST.candidate_id
    for _ in range(2):
        assert approve(proven, TEAM.candidate_id, by="Anna", reason="good", via="terminal") is None
    assert waiting_approval(proven, TEAM.candidate_id).names == ("Anna",)
    assert approve(proven, TEAM.candidate_id, by="eva", reason="good", via="prefect") is not None
    assert champion(proven).events[-1].by == "Anna, eva"
    assert [(e.by, e.via) for e in ledger_events(proven) if e.kind == "approve"] == [
        ("Anna", "terminal"),
        ("eva", "prefect"),
    ]
    roll_back(proven, by="somebody", reason="it broke")
    assert serves(proven) == FIRST.candidate_id, "anybody may go back at once"


def test_a_no_and_an_unanswered_question_stay_a_no_until_it_is_proven_anew(proven, monkeypatch):
    decline(proven, PROMPT.candidate_id, by="anna", reason="reads badly", via="terminal")
    for say in (approve, decline):
        with pytest.raises(BadInput, match="declined by anna: reads badly; it must be proven anew"):
            say(proven, PROMPT.candidate_id, by="ben", reason="but", via="code")
    assert lapsed(proven) == {PROMPT.candidate_id}
    later = now() + timedelta(days=15)
    with monkeypatch.context() as patch:
        patch.setattr(approvals, "now", lambda: later)
        assert lapsed(proven) == {PROMPT.candidate_id, TEAM.candidate_id}
        waiting = next(one for one in all_waiting(proven) if one.candidate_id == TEAM.candidate_id)
        lapse(proven, waiting, waiting.lapsed(later))
    set_policy(proven, ApprovalSettings(expires_days=300))
    with pytest.raises(BadInput, match="nobody approved it in 14 days"):
        promote(proven, TEAM.candidate_id, approved_by="anna", reason="late")
    give_verdict(proven, TEAM.candidate_id, FIRST.candidate_id, BETTER)
    assert lapsed(proven) == {PROMPT.candidate_id}
    assert approve(proven, TEAM.candidate_id, by="anna", reason="proven anew", via="code") is not None


def test_a_yes_to_an_earlier_proof_does_not_count_for_the_next(proven):
    set_policy(proven, ApprovalSettings(two=("prompt",)))
    assert approve(proven, PROMPT.candidate_id, by="anna", reason="yes", via="code") is None
    give_verdict(proven, PROMPT.candidate_id, FIRST.candidate_id, BETTER)
    assert approve(proven, PROMPT.candidate_id, by="ben", reason="yes", via="code") is None
    assert waiting_approval(proven, PROMPT.candidate_id).names == ("ben",)
