"""The local stack: MLflow, the Prefect server, one worker and the scheduled deployments, by one call.

Why as `python -m` children: a service that dies takes no other with it, and this room stays free of Prefect.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from ratchet.agent.errors import ServiceUnavailable
from ratchet.infra.mlflow_client import without_password
from ratchet.infra.settings import Settings, prepare_environment
from ratchet.infra.stack.mlflow_database import ensure_database
from ratchet.infra.stack.scheduler import answers, crash_abandoned_runs, worker_reports
from ratchet.infra.stack.service import Service, require_free_port

PREFECT_FILE: Final = Path(__file__).with_name("prefect.yaml")
_MLFLOW_NAMED_BY: Final = "RATCHET_TRACKING_URI or MLFLOW_TRACKING_URI"
WORK_POOL: Final = "ratchet"
_WORKER: Final = f"worker of {socket.gethostname()}"
"""Named for its machine: on a shared database, each machine answers for its own runs only."""


@dataclass(frozen=True)
class StackPlan:
    """Where the servers listen and what they run."""

    project: Path
    """Folder of the user's project; the flows get it as their `project`."""
    host: str = "127.0.0.1"
    mlflow_port: int = 5001
    """Not MLflow's own 5000: macOS listens there for AirPlay."""
    prefect_port: int = 4200
    prefect_file: Path = PREFECT_FILE
    timeout_s: float = 240.0
    """For each service to answer; a slow machine needs half a minute."""


@dataclass
class Stack:
    """The running services, in the order in which they were started."""

    plan: StackPlan
    settings: Settings
    services: list[Service] = field(default_factory=list)

    @property
    def mlflow_url(self) -> str:
        """Our own server, or the one that the settings name."""
        uri = self.settings.tracking_uri
        return uri if uri.startswith("http") else f"http://{self.plan.host}:{self.plan.mlflow_port}"

    @property
    def prefect_url(self) -> str:
        """The user interface."""
        return self.prefect_api.removesuffix("/api")

    @property
    def prefect_api(self) -> str:
        """What `PREFECT_API_URL` must say, or says: then that server is used, and none is started."""
        given = os.environ.get("PREFECT_API_URL", "").rstrip("/")
        return given or f"http://{self.plan.host}:{self.plan.prefect_port}/api"

    @property
    def others(self) -> dict[str, str]:
        """Servers that the environment names and we do not start, with their addresses."""
        uri = self.settings.tracking_uri
        mlflow = {"MLflow": without_password(uri)} if uri.startswith("http") else {}
        return mlflow | ({"Prefect": self.prefect_url} if os.environ.get("PREFECT_API_URL") else {})

    def stop(self) -> None:
        """Stop all, last started first: the worker still has its server to report to."""
        while self.services:
            self.services[-1].stop()
            self.services.pop()


@contextmanager
def running_stack(
    plan: StackPlan, settings: Settings, report: Callable[[str, float], None]
) -> Iterator[Stack]:
    """Start everything, wait until it serves, apply the deployments; leaving the block stops everything.

    `report` is called with a service's name and the seconds that it took.

    Raises:
        BadInput: a port is taken.
        ServiceUnavailable: a service ended or did not answer in time, with the end of its log; or the
            environment names an MLflow or a Prefect server that does not answer.
    """
    prepare_environment()
    stack = Stack(plan, settings)
    servers = []
    if "MLflow" in stack.others:
        _require_remote("MLflow", f"{stack.mlflow_url.rstrip('/')}/health", _MLFLOW_NAMED_BY)
    else:
        servers.append(_mlflow_server(stack))
        require_free_port("MLflow", plan.host, plan.mlflow_port, "--mlflow-port")
    if "Prefect" in stack.others:
        _require_remote("Prefect", f"{stack.prefect_api}/health", "PREFECT_API_URL")
    else:
        servers.append(_prefect_server(stack))
        require_free_port("Prefect", plan.host, plan.prefect_port, "--prefect-port")
    settings.made_home()
    ensure_database(settings)
    try:
        for server in servers:
            _start(stack, server)
        for server in servers:
            report(server.name, server.wait_until_healthy(plan.timeout_s))
        crash_abandoned_runs(stack.prefect_api, _WORKER)
        worker = _worker(stack)
        _start(stack, worker)
        report(worker.name, worker.wait_until_healthy(plan.timeout_s))
        apply_deployments(stack)
        yield stack
    finally:
        stack.stop()


def apply_deployments(stack: Stack) -> None:
    """Create or update what the plan's `prefect.yaml` describes.

    Raises:
        ServiceUnavailable: Prefect refused it; holds the end of its answer.
    """
    command = ["--no-prompt", "deploy", "--all", "--prefect-file", str(stack.plan.prefect_file.resolve())]
    done = subprocess.run(
        [sys.executable, "-m", "prefect", *command],
        cwd=stack.settings.home,
        env=_environment(stack),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=stack.plan.timeout_s,
        check=False,
    )
    if done.returncode != 0:
        answer = "\n  ".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise ServiceUnavailable(f"Prefect did not take {stack.plan.prefect_file}:\n  {answer}")


def _require_remote(name: str, health: str, variable: str) -> None:
    if not answers(health):
        raise ServiceUnavailable(
            f"the {name} server that {variable} names does not answer: "
            "start it, or unset the variable and `ratchet up` starts one"
        )


def _start(stack: Stack, service: Service) -> None:
    stack.services.append(service)
    service.start(_environment(stack), stack.settings.home)


def _environment(stack: Stack) -> dict[str, str]:
    """What the children see: absolute places, the servers' addresses, and what `.env` held."""
    given = stack.settings.model_dump(exclude_none=True)
    own = given | {
        "home": stack.settings.home,
        "tracking_uri": stack.mlflow_url,
        "project": stack.plan.project.resolve(),
    }
    return {
        "PREFECT_HOME": str(stack.settings.home / "prefect"),
        **os.environ,
        **{f"RATCHET_{name.upper()}": _plain(value) for name, value in own.items()},
        # not on MLflow's command line, which every user of the machine can read: it may hold a password
        "MLFLOW_BACKEND_STORE_URI": stack.settings.tracking_uri,
        "PREFECT_API_URL": stack.prefect_api,
        "PYTHONUNBUFFERED": "1",
    }


def _plain(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def _mlflow_server(stack: Stack) -> Service:
    plan, home = stack.plan, stack.settings.home
    where = ["--host", plan.host, "--port", str(plan.mlflow_port), "--workers", "1"]
    where += ["--artifacts-destination", str(home / "artifacts")]
    return Service(
        name="MLflow",
        command=[sys.executable, "-m", "mlflow", "server", *where],
        is_healthy=lambda: answers(f"{stack.mlflow_url}/health"),
        log=home / "logs" / "mlflow.log",
    )


def _prefect_server(stack: Stack) -> Service:
    plan = stack.plan
    where = ["--host", plan.host, "--port", str(plan.prefect_port)]
    return Service(
        name="Prefect",
        command=[sys.executable, "-m", "prefect", "--no-prompt", "server", "start", *where],
        is_healthy=lambda: answers(f"{stack.prefect_api}/health"),
        log=stack.settings.home / "logs" / "prefect.log",
    )


def _worker(stack: Stack) -> Service:
    """Creates the work pool, too, when the server does not know it yet."""
    options = ["--pool", WORK_POOL, "--type", "process", "--name", _WORKER, "--install-policy", "never"]
    service = Service(
        name="Worker",
        command=[sys.executable, "-m", "prefect", "--no-prompt", "worker", "start", *options],
        is_healthy=lambda: worker_reports(stack.prefect_api, WORK_POOL, _WORKER, service.started_at),
        log=stack.settings.home / "logs" / "worker.log",
    )
    return service
