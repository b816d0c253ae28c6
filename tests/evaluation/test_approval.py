"""Who may approve what, by a policy that reads as it is meant, and until when."""

from datetime import UTC, datetime, timedelta

import pytest

from ratchet.agent.errors import BadInput
from ratchet.evaluation.gate.approval import Approval, ApprovalSettings, Waiting, one_each

NOON = datetime(2026, 11, 2, 12, tzinfo=UTC)
POLICY = ApprovalSettings(
    memory="auto",
    prompt=("anna",),
    adapter=("Anna", "ben"),
    topology=("anna", "ben", "eva"),
    two=("topology",),
)


def waiting(risk="prompt", policy=POLICY, **changes):
    return Waiting(candidate_id="new", champion="old", risk=risk, policy=policy, proven_at=NOON, **changes)


def test_without_a_policy_anyone_with_a_name_may_approve_anything():
    free = ApprovalSettings()
    assert all(free.may(risk, "anybody") for risk in ("memory", "prompt", "adapter", "topology"))
    assert not free.may("memory", "  ")
    assert free.who("topology") == "anyone"


def test_the_policy_names_who_and_how_many():
    assert [POLICY.who(risk) for risk in ("memory", "prompt", "adapter", "topology")] == [
        "nobody needs to", "anna", "one of Anna, ben", "two of anna, ben, eva",
    ]  # fmt: skip
    assert POLICY.may("adapter", " BEN ")
    assert not POLICY.may("prompt", "ben")
    with pytest.raises(
        BadInput, match=r"'ben' may not approve a change of prompt: approval\.prompt names anna"
    ):
        waiting().require("ben", NOON)


def test_two_are_two_different_people():
    said = one_each(Approval(by=name, at=NOON) for name in ("anna", "Anna ", "anna"))
    one = waiting("topology", approvals=said)
    assert (one.names, one.missing(), one.missing("ANNA"), one.missing("eva")) == (("anna",), 1, 1, 0)


def test_nobody_needs_to_be_asked_only_where_the_policy_says_so():
    free, two = ApprovalSettings(), ApprovalSettings(two=("prompt",))
    assert waiting("memory").served_by(None) == "approval.memory = auto"
    assert waiting("memory").served_by("nightly") == "nightly"
    assert [waiting(policy=one).served_by(None) for one in (free, two, POLICY)] == [None, None, None]
    assert [waiting(policy=one).served_by("nightly") for one in (free, two, POLICY)] == [
        "nightly",
        None,
        None,
    ]
    assert waiting(policy=ApprovalSettings(prompt="anyone")).served_by("nightly") is None


def test_an_unanswered_approval_lapses_and_people_are_told_before():
    one = waiting()
    assert one.remind_at == NOON + timedelta(days=11)
    assert not one.lapsed(NOON + timedelta(days=13.9))
    assert "nobody approved it in 14 days (until 2026-11-16 12:00 UTC)" in one.lapsed(
        NOON + timedelta(days=14)
    )
    with pytest.raises(BadInput, match="must be proven anew"):
        one.require("anna", NOON + timedelta(days=15))
    short = waiting(policy=ApprovalSettings(expires_days=1))
    assert short.remind_at == NOON + timedelta(hours=12)
    assert waiting(declined="anna: not now").lapsed(NOON) == "declined by anna: not now"
