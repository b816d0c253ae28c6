"""Our wheel in an environment of its own, used from a repository that has its own `agent`, `tasks` and `flows`."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

import httpx
import pytest

from ratchet.flows.commands.init import AgentKind

pytestmark = [pytest.mark.server, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
PROJECT = """
from agent.support import TEAMS, Tickets
from flows import NIGHTLY
from ratchet import Project
from tasks.wording import TEXT

project = Project(name="theirs", instructions=TEXT, environment=Tickets)
"""
SUPPORT = """
from ratchet import Action, Case, Observation, Option, Outcome

TEAMS = (Option(name="heron"), Option(name="lynx"))


class Tickets:
    def reset(self, case: Case) -> Observation:
        self.expected = case.expected
        return Observation(text=case.inputs["request"], options=TEAMS)

    def step(self, action: Action) -> tuple[Observation, bool]:
        self.chosen = action.name
        return Observation(text=""), True

    def outcome(self) -> Outcome:
        return Outcome(score=float(self.chosen == self.expected))
"""
SCRIPT = """
import agent, flows, tasks
import ratchet, ratchet.agent, ratchet.flows.improve, ratchet.tasks.gate
from agent.support import Tickets
from ratchet import Case

played = Tickets()
played.reset(Case(inputs={"request": "Where is it?"}, expected="lynx"))
print(agent.__file__, flows.__file__, tasks.__file__, ratchet.__file__, ratchet.agent.__file__, sep="\\n")
"""
EVERY_KIND = """
import os, sys
import dspy, openai, ratchet.flows.commands.init  # once for all: each command is a fork
from ratchet.flows.cli import main

for kind in sys.argv[1:]:
    if os.fork() == 0:
        sys.argv = ["ratchet", "init", f"desk-{kind}", "--kind", kind]
        main()
    assert os.wait()[1] == 0, kind
"""
TEST = """
from pathlib import Path

import ratchet.tasks
import tasks.wording
from ratchet.agent.project import load_project


def test_both_are_what_they_say():
    assert "site-packages" in ratchet.tasks.__file__
    assert "site-packages" not in tasks.wording.__file__
    assert load_project(Path(__file__).parent).name == "theirs"
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment: our wheel, and the libraries of this one, but not this checkout."""
    folder = tmp_path_factory.mktemp("installed")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=False, symlinks=True)
    python = folder / "env" / "bin" / "python"
    libraries = folder / "env" / "lib" / Path(sysconfig.get_path("purelib")).parent.name / "site-packages"
    # as a plain line: the .pth files there, of which one names this checkout, are not read
    (libraries / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--force-reinstall", str(wheel)], check=True, capture_output=True)
    return python


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A team's repository, as many are."""
    folder = tmp_path_factory.mktemp("theirs")
    for package in ("agent", "tasks", "flows"):
        (folder / package).mkdir()
        (folder / package / "__init__.py").write_text("NIGHTLY = '0 3 * * *'\n")
    (folder / "agent" / "support.py").write_text(SUPPORT)
    (folder / "tasks" / "wording.py").write_text("TEXT = 'Pick the team for the ticket.'\n")
    (folder / "project.py").write_text(PROJECT)
    (folder / "script.py").write_text(SCRIPT)
    (folder / "test_theirs.py").write_text(TEST)
    return folder


def run(repository: Path, *command: object, **more: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment = {**kept, "RATCHET_HOME": str(repository / ".ratchet"), **more}
    done = subprocess.run(
        [*map(str, command)], cwd=repository, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_script_there_finds_its_own_packages_and_ours(python, repository):
    theirs, ours = list[str](), list[str]()
    for line in run(repository, python, "script.py").splitlines():
        (ours if "site-packages" in line else theirs).append(line)
    assert [Path(path).parent.name for path in theirs] == ["agent", "flows", "tasks"]
    assert [Path(path).parent.name for path in ours] == ["ratchet", "agent"]
    assert all(path.startswith(str(python.parents[1])) for path in ours)


def test_pytest_there_finds_both(python, repository):
    assert "1 passed" in run(repository, python, "-m", "pytest", "-q", "-p", "no:cacheprovider")


def test_the_command_there_loads_their_project(python, repository):
    told = run(repository, python.parent / "ratchet", "history")
    assert "theirs" in told


def test_the_command_there_writes_every_kind_of_project(python, repository):
    kinds = [kind.value for kind in AgentKind]
    run(repository, python, "-c", EVERY_KIND, *kinds)
    for kind in kinds:
        written = {path.name for path in (repository / f"desk-{kind}").iterdir()}
        assert {"ratchet.toml", "README.md", ".gitignore", ".env.example", "scripted_llm.py"} <= written


def test_a_worker_there_runs_our_flow_for_their_project(python, repository, prefect_server):
    with httpx.Client(base_url=prefect_server, timeout=30) as api:
        flow = post(api, "/flows/", name="monitor")["id"]
        post(api, "/work_pools/", name="theirs", type="process")
        deployment = post(
            api,
            "/deployments/",
            name="theirs",
            flow_id=flow,
            work_pool_name="theirs",
            entrypoint="ratchet.flows.monitor.monitor",
            parameters={"project": str(repository)},
            pull_steps=[],
        )["id"]
        due = post(api, f"/deployments/{deployment}/create_flow_run")["id"]
        there = {"PREFECT_API_URL": prefect_server, "PREFECT_HOME": str(repository / ".prefect")}
        run(repository, python, "-m", "prefect", "worker", "start", "--pool", "theirs", "--run-once", **there)
        ended = api.get(f"/flow_runs/{due}").raise_for_status().json()["state"]
    assert ended["type"] == "COMPLETED", ended["message"]


def post(api: httpx.Client, path: str, **body: object) -> dict[str, Any]:
    made: dict[str, Any] = api.post(path, json=body).raise_for_status().json()
    return made
