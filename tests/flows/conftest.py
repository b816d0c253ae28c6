"""One real stack for all tests of a session that need one: starting it takes half a minute."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from infra.settings import Settings
from infra.stack import Stack, StackPlan, running_stack

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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """MLflow, Prefect and a worker on free ports, with a flow that is due every minute."""
    folder = tmp_path_factory.mktemp("stack")
    (folder / "prefect.yaml").write_text(TINY_DEPLOYMENT)
    plan = StackPlan(
        project=folder,
        mlflow_port=free_port(),
        prefect_port=free_port(),
        prefect_file=folder / "prefect.yaml",
    )
    settings = Settings(home=folder / "home")
    with (
        patch.dict(os.environ, {"PYTHONPATH": str(Path(__file__).parent)}),  # where the worker finds the flow
        running_stack(plan, settings, lambda name, seconds: None) as running,
    ):
        yield running
