"""Approvals that wait: put before people in Prefect's UI, recalled before they lapse, and closed when they did.

Why here and not in a flow that waits: no process sleeps until somebody answers. What waits is in the log; Prefect
holds a suspended run for it, which is only a way in.
"""

from collections.abc import Collection
from typing import Any, Final

from prefect import task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled

from ratchet.evaluation.gate.approval import Waiting
from ratchet.infra.alerts import Alert, send_alert
from ratchet.infra.registry.approval import all_waiting, lapse, remind, waiting_approval
from ratchet.infra.registry.event_log import now

APPROVAL: Final = "approval/approval"
"""Flow and deployment, as `prefect.yaml` names them."""
_TAG: Final = "ratchet-approval"


@task(name="ask for approval")
def ask_for_approval(name: str, candidate_id: str) -> str | None:
    """Start the run in which people answer in Prefect's UI, once for each proof; its name, None if not deployed."""
    waiting = waiting_approval(name, candidate_id)
    if waiting is None or waiting.lapsed(now()):
        return None
    try:
        run = run_deployment(
            APPROVAL,
            parameters={"project": name, "candidate_id": candidate_id},
            timeout=0,
            idempotency_key=f"{name}-{candidate_id}-{waiting.champion}-{waiting.proven_at.isoformat()}",
            tags=[_TAG],
            as_subflow=False,
        )
    except ObjectNotFound:
        return None
    return run.name if isinstance(run, FlowRun) else None


@task(name="approvals")
def settle_approvals(name: str) -> None:
    """Remind people of what is about to lapse, write down what did, and end the runs that nobody needs to answer."""
    at, open_now = now(), set[str]()
    for one in all_waiting(name):
        why = one.lapsed(at)
        if not why:
            open_now.add(one.candidate_id)
        if not why and one.told_at is None and at >= one.remind_at:
            send_alert(
                _alert(name, one, "lapses soon", f"`ratchet approve {one.candidate_id[:8]}`: {one.asked}")
            )
            remind(name, one)
        elif why and not one.declined:
            send_alert(_alert(name, one, "lapsed", f"{why}: it must be proven anew to serve"))
            lapse(name, one, why)
    _end_runs(name, open_now)


def _alert(name: str, one: Waiting, event: str, body: str) -> Alert:
    return Alert(
        kind="approval",
        severity="warning",
        title=f"{name}: approval of {one.candidate_id[:8]} {event}",
        body=body,
        since=one.proven_at,
        key=f"{name}-{one.candidate_id}-{one.proven_at.isoformat()}-{event}",
    )


def _end_runs(name: str, open_now: Collection[str]) -> None:
    """Cancel the project's suspended runs but for these candidates': the others were answered elsewhere."""
    suspended = FlowRunFilter(
        tags=FlowRunFilterTags(all_=[_TAG]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PAUSED])),
    )
    ended: State[Any] = Cancelled(message="Answered elsewhere, or it must be proven anew.")
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(flow_run_filter=suspended):
            about = run.parameters.get("project"), run.parameters.get("candidate_id")
            if about[0] == name and about[1] not in open_now:
                client.set_flow_run_state(run.id, ended, force=True)
