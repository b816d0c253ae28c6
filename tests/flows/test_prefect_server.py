"""The schedule on a real Prefect server: deployed, due, executed by a worker, and freed after a crash."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import httpx
import psutil
import pytest
from tests.flows.conftest import free_port

from ratchet.flows.commands.init import copy_template
from ratchet.infra.settings import Settings
from ratchet.infra.stack.scheduler import crash_abandoned_runs
from ratchet.infra.stack.stack import PREFECT_FILE, Stack, StackPlan, apply_deployments, running_stack

pytestmark = [pytest.mark.server, pytest.mark.slow]

LIMIT_S: Final = 150.0
Run = dict[str, Any]


TINY_DEPLOYMENT = """
pull: []
deployments:
  - name: every-minute
    entrypoint: tiny_flows.touch
    work_pool:
      name: ratchet
    parameters:
      project: "{{ $RATCHET_PROJECT }}"
    schedules:
      - cron: "* * * * *"
        timezone: UTC
"""


class AgainWhenBusy(httpx.HTTPTransport):
    """Asks again after a 503: SQLite is locked for a moment on a loaded machine, and Prefect says so."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = super().handle_request(request)
        deadline = time.monotonic() + 60
        while response.status_code == 503 and time.monotonic() < deadline:
            response.close()
            time.sleep(1)
            response = super().handle_request(request)
        return response


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """MLflow, Prefect and a worker on free ports, with a flow that is due every minute: half a minute to start.

    For this file alone: every minute's run takes seconds of processor time from whatever is tested then.
    """
    folder = tmp_path_factory.mktemp("stack")
    copy_template(folder)
    (folder / "prefect.yaml").write_text(TINY_DEPLOYMENT)
    plan = StackPlan(
        project=folder,
        mlflow_port=free_port(),
        prefect_port=free_port(),
        prefect_file=folder / "prefect.yaml",
    )
    settings = Settings(home=folder / "home")
    here = Path(__file__)  # where the worker finds the flow, and this checkout's code before an installed one
    with (
        patch.dict(os.environ, {"PYTHONPATH": f"{here.parent}{os.pathsep}{here.parents[2] / '.src'}"}),
        running_stack(plan, settings, lambda name, seconds: None) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def api(stack: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack.prefect_api, timeout=30, transport=AgainWhenBusy()) as client:
        yield client


@pytest.fixture(scope="module")
def shipped(stack: Stack) -> None:
    """The deployments of the `prefect.yaml` that ships."""
    apply_deployments(Stack(replace(stack.plan, prefect_file=PREFECT_FILE), stack.settings))


def test_a_run_that_the_schedule_made_is_executed_for_the_project(api, stack):
    deployment = read(api, "touch/every-minute")
    run = first(lambda: [run for run in runs_of(api, deployment) if run["state_type"] == "COMPLETED"])
    assert run["auto_scheduled"]
    assert run["parameters"] == {"project": str(stack.plan.project)}
    assert (stack.plan.project / "touched").read_text() == "by the worker"


def test_servers_that_the_environment_names_are_used_and_none_is_started(stack, monkeypatch, tmp_path):
    monkeypatch.setenv("PREFECT_API_URL", stack.prefect_api)
    plan = replace(stack.plan, mlflow_port=stack.plan.mlflow_port + 1, prefect_port=stack.plan.prefect_port)
    settings = Settings(home=tmp_path / "home", tracking_uri=stack.mlflow_url)
    with running_stack(plan, settings, lambda name, seconds: None) as second:
        assert [service.name for service in second.services] == ["Worker"]
        assert second.others == {"MLflow": stack.mlflow_url, "Prefect": stack.prefect_url}


@pytest.mark.parametrize("name", ["improve", "monitor"])
def test_the_shipped_schedule_makes_runs_one_at_a_time(api, shipped, name):
    deployment = read(api, f"{name}/{name}")
    assert deployment["global_concurrency_limit"]["limit"] == 1
    run = first(lambda: runs_of(api, deployment))
    assert run["auto_scheduled"]
    assert run["state_type"] == "SCHEDULED"


def test_the_shipped_monitor_runs_on_a_project_without_traces(api, shipped, stack):
    deployment = read(api, "monitor/monitor")
    made = api.post(f"/deployments/{deployment['id']}/create_flow_run", json={}).raise_for_status().json()
    ended = first(lambda: [run for run in [flow_run(api, made["id"])] if run["end_time"]])
    assert ended["state_type"] == "COMPLETED", stack.services[-1].log_tail()


def test_a_run_that_a_killed_worker_left_is_closed_and_another_workers_is_not(api):
    deployment = read(api, "touch/every-minute")
    ours, other = (running(api, deployment, worker) for worker in ("worker of this", "worker of that"))
    assert crash_abandoned_runs(str(api.base_url), "worker of this") == [ours["name"]]
    assert flow_run(api, ours["id"])["state_type"] == "CRASHED"
    assert flow_run(api, other["id"])["state_type"] == "RUNNING"


def test_mlflow_of_the_stack_answers(stack):
    assert httpx.get(f"{stack.mlflow_url}/version", timeout=30).text.startswith("3.")


def test_no_command_line_of_the_stack_names_the_database_which_may_hold_a_password(stack):
    running = [psutil.Process(service.process.pid) for service in stack.services]
    running += [child for one in running for child in one.children(recursive=True)]
    lines = [" ".join(process.cmdline()) for process in running]
    assert any("uvicorn" in line for line in lines)
    assert not [line for line in lines if stack.settings.tracking_uri in line or "mlflow.db" in line]
    environment = running[0].environ()
    assert environment["MLFLOW_BACKEND_STORE_URI"] == stack.settings.tracking_uri


def read(api: httpx.Client, name: str) -> dict[str, Any]:
    found: dict[str, Any] = api.get(f"/deployments/name/{name}").raise_for_status().json()
    return found


def runs_of(api: httpx.Client, deployment: dict[str, Any]) -> list[Run]:
    chosen = {"deployments": {"id": {"any_": [deployment["id"]]}}, "sort": "EXPECTED_START_TIME_ASC"}
    found: list[Run] = api.post("/flow_runs/filter", json=chosen).raise_for_status().json()
    return found


def flow_run(api: httpx.Client, run_id: str) -> Run:
    found: Run = api.get(f"/flow_runs/{run_id}").raise_for_status().json()
    return found


def running(api: httpx.Client, deployment: dict[str, Any], worker: str) -> Run:
    """A run that counts as running on that worker, though no process has it."""
    fields = {
        "flow_id": deployment["flow_id"],
        "state": {"type": "RUNNING", "name": "Running"},
        "labels": {"prefect.worker.name": worker},
    }
    made: Run = api.post("/flow_runs/", json=fields).raise_for_status().json()
    return made


def first(find: Callable[[], list[Run]]) -> Run:
    deadline = time.monotonic() + LIMIT_S
    while not (found := find()):
        assert time.monotonic() < deadline, f"nothing in {LIMIT_S:.0f} s"
        time.sleep(0.5)
    return found[0]
