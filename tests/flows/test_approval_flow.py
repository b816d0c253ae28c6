"""Approving in Prefect: a suspended run on a real server that no process waits for, with the same checks."""

from datetime import timedelta

import pytest
from prefect.client.orchestration import get_client
from prefect.exceptions import Pause
from prefect.flow_engine import run_flow
from prefect.server.schemas.responses import SetStateStatus

from ratchet.evaluation.gate.approval import ApprovalSettings
from ratchet.flows.approval import approval
from ratchet.infra.registry import approval as approvals
from ratchet.infra.registry.approval import approve, set_policy, waiting_approval
from ratchet.infra.registry.event_log import now
from ratchet.infra.registry.registry import champion
from ratchet.tasks import approval as task
from ratchet.tasks.approval import ask_for_approval, settle_approvals

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("prefect_server")]


@pytest.fixture
def client():
    approval.to_deployment("approval").apply()
    with get_client(sync_client=True) as found:
        yield found


def asked(client, past):
    """The run that was started for the proven challenger."""
    name = ask_for_approval.fn(past.project, past.proven.candidate_id)
    assert ask_for_approval.fn(past.project, past.proven.candidate_id) == name, "one run for one proof"
    (run,) = [run for run in client.read_flow_runs() if run.name == name]
    return run.id


def worked(client, run_id):
    """A worker takes the run and lets go of it where it is suspended; its state then, and what it returned."""
    try:
        report = run_flow(approval, flow_run=client.read_flow_run(run_id))
    except Pause:
        report = None
    return client.read_flow_run(run_id).state, report


def answered(client, run_id, **form):
    taken = client.resume_flow_run(run_id, run_input=form)
    return taken.status == SetStateStatus.ACCEPT


def test_two_people_approve_in_prefect_and_whoever_is_not_named_is_asked_again(client, own_past):
    name, proven = own_past.project, own_past.proven.candidate_id
    set_policy(name, ApprovalSettings(memory=("anna",), prompt=("anna", "ben", "eva"), two=("prompt",)))
    run_id = asked(client, own_past)
    state, _ = worked(client, run_id)
    assert (state.name, state.state_details.pause_timeout is not None) == ("Suspended", True)
    assert not answered(client, run_id, decision="approve", by=""), "the form refuses what it cannot take"
    for by, said in (
        ("eve", "**Not taken**: 'eve' may not approve a change of prompt"),
        ("anna", "anna did"),
    ):
        assert answered(client, run_id, decision="approve", by=by)
        state, report = worked(client, run_id)
        assert (state.name, report) == ("Suspended", None)
        shown = client.read_flow_run_input(run_id, state.state_details.run_input_keyset["description"])
        for text in (said, "- then: Pick the tool.", "### Cases"):
            assert text in shown
        assert champion(name).candidate_id == own_past.champion.candidate_id
    assert answered(client, run_id, decision="approve", by="Eva", reason="read it")
    state, report = worked(client, run_id)
    assert (state.name, report.promoted) == ("Completed", True)
    serving = champion(name)
    assert (serving.candidate_id, serving.events[-1].by) == (proven, "anna, Eva")


def test_what_was_answered_elsewhere_or_lapsed_ends_its_run_and_people_are_told_before(
    client, own_past, monkeypatch, capsys
):
    name, proven = own_past.project, own_past.proven.candidate_id
    run_id = asked(client, own_past)
    worked(client, run_id)
    settle_approvals.fn(name)
    assert client.read_flow_run(run_id).state.name == "Suspended"
    assert "lapses soon" not in capsys.readouterr().err
    for days, told in ((11.5, "lapses soon"), (12, ""), (14.5, "lapsed")):
        later = now() + timedelta(days=days)
        with monkeypatch.context() as patch:
            patch.setattr(task, "now", lambda moment=later: moment)
            settle_approvals.fn(name)
        said = " ".join(capsys.readouterr().err.split())
        assert ("approval of" in said) == bool(told)
        assert told in said
    assert waiting_approval(name, proven).declined.startswith("ratchet: nobody approved it in 14 days")
    settle_approvals.fn(name)
    assert client.read_flow_run(run_id).state.name == "Cancelled"
    assert ask_for_approval.fn(name, proven) is None
    assert champion(name).candidate_id == own_past.champion.candidate_id


def test_a_run_that_comes_late_changes_nothing(client, own_past):
    run_id = asked(client, own_past)
    worked(client, run_id)
    approve(
        own_past.project, own_past.proven.candidate_id, by="anna", reason="in the terminal", via="terminal"
    )
    assert answered(client, run_id, decision="decline", by="ben", reason="too late")
    state, report = worked(client, run_id)
    assert (state.name, report.outcome) == ("Completed", "it serves")
    assert champion(own_past.project).events[-1].by == "anna"
    assert approvals.all_waiting(own_past.project) == []
