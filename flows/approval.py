"""Approval: one proven challenger before people in Prefect's UI; the run is suspended until somebody answers.

The form is behind `Resume` on the run's page (in Prefect's V2 pages: in its menu). Why suspended and not paused: no
process waits; after the answer the flow runs again from its top, and what it does is the same however often. Who
answers is who they say they are: Prefect's open server knows no people.
"""

from itertools import count
from math import ceil
from typing import Literal

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from pydantic import Field

from ratchet.agent.errors import BadInput
from ratchet.agent.record import Record
from ratchet.evaluation.gate.approval import Waiting
from ratchet.flows.approval_evidence import approval_evidence, as_markdown
from ratchet.infra.registry.approval import approve, decline, waiting_approval
from ratchet.infra.registry.event_log import now
from ratchet.infra.registry.registry import champion, version_of

_CLAIM = "Your name is recorded for good; Prefect does not check it, the project's policy does."


class Answer(RunInput):
    """What the form asks."""

    decision: Literal["approve", "decline"] = Field(
        description="approve: it serves; decline: it must be proven anew"
    )
    by: str = Field(min_length=1, description=_CLAIM)
    reason: str = Field(default="", description="Why; to decline, needed")


class ApprovalReport(Record):
    """What the question came to."""

    candidate_id: str
    promoted: bool = False
    outcome: str


@flow(name="approval", persist_result=False)
def approval(project: str, candidate_id: str) -> ApprovalReport:
    """Show what is proven, wait for people without a process, and do what they say."""
    refused = ""
    for turn in count(1):
        waiting = waiting_approval(project, candidate_id)
        serving = champion(project)
        if waiting is None or serving is None or waiting.lapsed(now()):
            return _ended(project, candidate_id, waiting)
        page = as_markdown(approval_evidence(project, version_of(project, candidate_id), serving))
        create_markdown_artifact(page, key=f"approval-{candidate_id[:8]}", description=waiting.asked)
        shown = f"**Not taken**: {refused}\n\n{page}" if refused else page
        left = max(ceil((waiting.expires_at - now()).total_seconds()), 1)
        form = Answer.with_initial_data(description=shown)
        said = suspend_flow_run(wait_for_input=form, timeout=left, key=f"answer-{turn}")
        try:
            ended = _act(project, candidate_id, said)
        except BadInput as error:
            refused = str(error)
            continue
        if ended is not None:
            return ended
        refused = ""
    raise AssertionError("the loop ends by its returns")


def _act(project: str, candidate_id: str, said: Answer) -> ApprovalReport | None:
    """Do what one person said; None while another's word is missing."""
    if said.decision == "decline":
        decline(project, candidate_id, by=said.by, reason=said.reason, via="prefect")
        return ApprovalReport(candidate_id=candidate_id, outcome=f"declined by {said.by}: {said.reason}")
    reason = said.reason or version_of(project, candidate_id).reason
    served = approve(project, candidate_id, by=said.by, reason=reason, via="prefect")
    if served is None:
        return None
    return ApprovalReport(candidate_id=candidate_id, promoted=True, outcome=f"serves, approved by {said.by}")


def _ended(project: str, candidate_id: str, waiting: Waiting | None) -> ApprovalReport:
    """Somebody answered elsewhere, or time is over."""
    serving = champion(project)
    if serving is not None and serving.candidate_id == candidate_id:
        return ApprovalReport(candidate_id=candidate_id, promoted=True, outcome="it serves")
    why = waiting.lapsed(now()) if waiting else "another champion serves, or nothing proves it"
    return ApprovalReport(candidate_id=candidate_id, outcome=f"not promoted: {why}")
