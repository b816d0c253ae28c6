"""What tests share: a home of their own, one real MLflow over SQLite, and one real MLflow server."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import tests.no_fsync  # noqa: F401  for MLflow over SQLite in this process
from tests.children import Children

from ratchet.agent.case import Case
from ratchet.agent.environment import Action, Outcome
from ratchet.agent.trace import Attempt, Step, Trace, Usage
from ratchet.infra.settings import prepare_environment

ROOT = Path(__file__).parent
ORDER = ("flows", "e2e", "tasks", "infra", "agent", "evaluation")
KEPT = ("RATCHET_CACHE", "RATCHET_LM_PRECISION")
os.environ.setdefault("RATCHET_LM_PRECISION", "float32")  # the same numbers on every CPU
os.environ.setdefault("OMP_NUM_THREADS", "1")  # a second one spins beside other tests: 7 times the CPU time
prepare_environment()  # MLflow reads some of it when it is imported


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole loops first, pure rooms last: no long file is left for the end, when one of two workers is idle.

    Coverage is that of the pure rooms by their own tests: tracing the others costs them half as much again.
    """
    rooms = {item: item.path.relative_to(ROOT).parts[0] for item in items}
    items.sort(key=lambda item: ORDER.index(rooms[item]) if rooms[item] in ORDER else -1)
    for item in items:
        if rooms[item] in ORDER[:4]:
            item.add_marker("no_cover")


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test reads or writes the checkout's own `.ratchet`, `.env` settings or a person's MLflow."""
    for name in [name for name in os.environ if name.startswith("RATCHET_") and name not in KEPT]:
        monkeypatch.delenv(name)
    for name in (
        "MLFLOW_TRACKING_URI",
        "MLFLOW_EXPERIMENT_ID",
    ):  # `mlflow.set_experiment` leaves the second behind
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "home"))


@pytest.fixture(autouse=True)
def _own_dspy() -> Iterator[None]:
    """A project that configures DSPy does so for the whole process: the next test finds no LM of it."""
    yield
    dspy = sys.modules.get("dspy")
    if dspy is not None and dspy.settings.lm is not None:
        dspy.configure(lm=None)


@pytest.fixture(scope="session")
def mlflow_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One home for all tests: MLflow's tables take seconds to make; projects keep the tests apart."""
    return tmp_path_factory.mktemp("mlflow-home")


@pytest.fixture
def project_name(request: pytest.FixtureRequest) -> str:
    """A name that no other test has and each run has again: it decides which cases judge and which teach."""
    return f"test-{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]}"


@pytest.fixture
def project(project_name: str, mlflow_home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A project that nobody else uses, in a real MLflow over SQLite."""
    monkeypatch.setenv("RATCHET_HOME", str(mlflow_home))
    return project_name


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


SCRIPTED_PROJECT = '''"""Scripted: the right action is known to the environment; requests come from a file beside it."""

import json
import os
from pathlib import Path

from ratchet.agent.case import Case
from ratchet.agent.environment import Observation, Option, Outcome
from ratchet.agent.optimize.replay import Replay
from ratchet.agent.project import Project

HERE = Path(__file__).parent
OPTIONS = (Option(name="left"), Option(name="right"))


class Scripted:
    def reset(self, case):
        self.request = case.inputs["request"]
        if "MLflow goes away" in self.request:
            os.environ["MLFLOW_TRACKING_URI"] = "http://127.0.0.1:9"
        return Observation(text=self.request, options=OPTIONS)

    def step(self, action):
        self.done = action.name
        return Observation(text="done"), True

    def outcome(self):
        return Outcome(score=float(self.done in self.request)) if SCORES else Outcome()


def waiting():
    return [Case(inputs={"request": text}) for text in json.loads((HERE / "requests.json").read_text())]


__BEGIN__
SCORES = __SCORES__
project = Project(
    name="__NAME__", instructions="Pick one.", environment=Scripted, traffic=waiting, attempts=2 if SCORES else 1,
    scores_itself=SCORES, model=os.environ.get("SCRIPTED_MODEL"), proposers=(__PROPOSERS__,),
)
'''


def scripted_project(
    name: str, scores_itself: bool = True, proposers: str = "Replay()", begin: str = ""
) -> str:
    """The text of a scripted `project.py`."""
    text = SCRIPTED_PROJECT.replace("__NAME__", name).replace("__SCORES__", str(scores_itself))
    return text.replace("__PROPOSERS__", proposers).replace("__BEGIN__", begin)


class ScriptedProject(NamedTuple):
    """A folder with a scripted `project.py`, and its name in MLflow."""

    folder: Path
    name: str

    def ask(self, *requests: str) -> None:
        """These requests wait from now on."""
        (self.folder / "requests.json").write_text(json.dumps(requests))


@pytest.fixture
def spawn(monkeypatch: pytest.MonkeyPatch) -> Children:
    """Starts processes; they find a test's function by the name of its module, which begins at the root."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(Path(__file__).parents[1])])
    return Children()


@pytest.fixture
def make_project(project: str, tmp_path: Path) -> Callable[..., ScriptedProject]:
    """A project in a folder, as a user writes it, with a scripted environment and no requests yet.

    Its proposers, and what has to be written before them in `project.py`, are given as text.
    """

    def make(*, scores_itself: bool = True, proposers: str = "Replay()", begin: str = "") -> ScriptedProject:
        folder = tmp_path / project
        folder.mkdir()
        (folder / "project.py").write_text(scripted_project(project, scores_itself, proposers, begin))
        made = ScriptedProject(folder, project)
        made.ask()
        return made

    return make


class ScriptedLM(BaseHTTPRequestHandler):
    """OpenAI's protocol in front of a script: the word in the request, and for one request garbage."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][-1]["content"]
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": self.said(asked)},
            "finish_reason": "stop",
        }
        body = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        sent = json.dumps(body | {"usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}})
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent.encode())

    def said(self, asked: str) -> str:
        """What it makes of the prompt."""
        request = asked.rpartition("Request:")[2].partition("\n")[0]
        word = "right" if "right" in request else "left"
        return "I would rather not say." if "garbage" in request else word

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture
def scripted_lm(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Scripted projects are answered by `ScriptedLM` behind an endpoint instead of by the embedded LM."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), ScriptedLM)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setenv("SCRIPTED_MODEL", "openai/scripted")
    monkeypatch.setenv("RATCHET_LM_API_BASE", f"http://127.0.0.1:{server.server_port}/v1")
    monkeypatch.setenv("RATCHET_LM_API_KEY", "x")
    yield
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def log_corrupt(make_trace: Callable[..., Trace]) -> Callable[[str], str]:
    """Write a trace whose record was cut off into MLflow; returns its id."""

    from ratchet.infra.mlflow_client import connect
    from ratchet.infra.traces.spans import RECORD_ATTRIBUTE, export_request
    from ratchet.infra.traces.write import write_spans

    def log(name: str) -> str:
        trace, connection = make_trace(), connect(name)
        request = export_request([trace], datetime.now(UTC))
        root = request.resource_spans[0].scope_spans[0].spans[0]
        next(
            a for a in root.attributes if a.key == RECORD_ATTRIBUTE
        ).value.string_value = '{"schema_version": 1'
        write_spans(connection, request)
        return trace.trace_id

    return log


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
