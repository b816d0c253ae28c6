"""What we ask Prefect's server over REST: is the worker there, and which runs did a dead one leave behind.

Why runs are crashed here: one that was killed together with its worker stays "Running" for ever, holds the
deployment's only slot, and so every later run would be cancelled.
"""

import base64
import os
from datetime import datetime
from typing import Any, Final

import httpx

from ratchet.agent.errors import ServiceUnavailable, said

_PAGE: Final = 200
_UNFINISHED: Final = ["PENDING", "RUNNING", "CANCELLING"]


def answers(url: str) -> bool:
    """Whether a GET succeeds within 5 s."""
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.TransportError:
        return False


def worker_reports(api: str, pool: str, worker: str, since: float) -> bool:
    """Whether it sent a heartbeat after `since`, in epoch seconds: an earlier one may still look alive."""
    try:
        found = httpx.post(f"{api}/work_pools/{pool}/workers/filter", json={}, timeout=5, headers=_identity())
    except httpx.TransportError:
        return False
    workers: list[dict[str, Any]] = found.json() if found.is_success else []
    return any(
        one["name"] == worker and datetime.fromisoformat(one["last_heartbeat_time"]).timestamp() >= since
        for one in workers
    )


def crash_abandoned_runs(api: str, worker: str) -> list[str]:
    """Set the runs that this worker left unfinished to "Crashed"; their names. Call while it is not running.

    Raises:
        ServiceUnavailable: Prefect did not take it.
    """
    try:
        with httpx.Client(base_url=api, timeout=30, headers=_identity()) as client:
            return [_crash(client, run) for run in _unfinished(client) if _ran_on(run, worker)]
    except httpx.HTTPError as error:
        raise ServiceUnavailable(f"Prefect did not let abandoned runs be closed: {said(error)}") from error


def _identity() -> dict[str, str]:
    """What Prefect's own clients send to a server that somebody else runs, by the same variables."""
    key, login = os.environ.get("PREFECT_API_KEY"), os.environ.get("PREFECT_API_AUTH_STRING")
    if key:
        return {"Authorization": f"Bearer {key}"}
    return {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"} if login else {}


def _unfinished(client: httpx.Client) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = []
    chosen = {"flow_runs": {"state": {"type": {"any_": _UNFINISHED}}}, "limit": _PAGE}
    while True:
        page = client.post("/flow_runs/filter", json=chosen | {"offset": len(runs)}).raise_for_status().json()
        runs += page
        if len(page) < _PAGE:
            return runs


def _ran_on(run: dict[str, Any], worker: str) -> bool:
    return bool(run["labels"].get("prefect.worker.name") == worker)


def _crash(client: httpx.Client, run: dict[str, Any]) -> str:
    state = {"type": "CRASHED", "name": "Crashed", "message": "Its worker was stopped while it was at work."}
    client.post(f"/flow_runs/{run['id']}/set_state", json={"state": state, "force": True}).raise_for_status()
    return str(run["name"])
