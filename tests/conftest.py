"""What tests share: a home of their own, one real MLflow over SQLite, and one real MLflow server."""

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent.environment import Action, Case, Outcome
from agent.trace import Attempt, Step, Trace, Usage
from infra.settings import prepare_environment

prepare_environment()  # MLflow reads some of it when it is imported


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test reads or writes the checkout's own `.ratchet`, `.env` settings or a person's MLflow."""
    for name in [name for name in os.environ if name.startswith("RATCHET_") and name != "RATCHET_CACHE"]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="session")
def mlflow_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One home for all tests: MLflow's tables take seconds to make; projects keep the tests apart."""
    return tmp_path_factory.mktemp("mlflow-home")


@pytest.fixture
def project(mlflow_home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A project that nobody else uses, in a real MLflow over SQLite."""
    monkeypatch.setenv("RATCHET_HOME", str(mlflow_home))
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def make_trace() -> Callable[..., Trace]:
    """Traces that differ in what a test cares about."""

    def make(request: str = "weather in Oslo?", **changes: Any) -> Trace:
        score = changes.pop("score", 1.0)
        action = Action(name=changes.pop("tool", "get_weather"))
        steps = (Step(observation=request, action=action, confidence=0.9),)
        fields: dict[str, Any] = {
            "trace_id": uuid.uuid4().hex,
            "case": Case(inputs={"request": request}, slice="chat"),
            "candidate_id": "c0ffee",
            "session_id": "session-1",
            "started_at": datetime.now(UTC),
            "latency_s": 0.25,
            "usage": Usage(input_tokens=100, output_tokens=5, lm_calls=1),
            "attempts": (Attempt(steps=steps, outcome=Outcome(score=score)),),
        }
        return Trace(**(fields | changes))

    return make


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URI of a real MLflow server (one worker, 13–22 s to start), stopped at the end of the session."""
    folder = tmp_path_factory.mktemp("mlflow-server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
        try:
            _wait_until_healthy(f"http://127.0.0.1:{port}", server, folder / "server.log")
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(timeout=30)


def _wait_until_healthy(uri: str, server: subprocess.Popen[bytes], log: Path, timeout_s: float = 180) -> None:
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        assert server.poll() is None, f"the MLflow server died:\n{log.read_text()[-2000:]}"
        try:
            if httpx.get(f"{uri}/health", timeout=2).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.3)
    raise AssertionError(f"no answer from {uri} in {timeout_s} s:\n{log.read_text()[-2000:]}")
