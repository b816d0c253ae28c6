"""The README's examples run as they are printed."""

import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.bench.exploration import Explorer

from ratchet.agent.case import Case
from ratchet.agent.kinds.program import Program, base_candidate
from ratchet.agent.project import load_project
from ratchet.agent.rollout.loop import run

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language: str, containing: str) -> str:
    found = [
        text for text in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL) if containing in text
    ]
    assert len(found) == 1, f"{len(found)} blocks of {language} hold {containing!r}"
    return str(found[0])


@pytest.mark.parametrize(
    ("containing", "says"),
    [("ratchet gate pairs.jsonl", "proven"), ("ratchet drift reference.csv", "drift, exit 3")],
)
def test_a_shell_example_runs_and_says_what_the_readme_says(tmp_path, containing, says):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-c", block("sh", containing)],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert says in done.stdout + done.stderr


def test_your_own_agent_loads_and_takes_twenty_lines(tmp_path):
    code = block("python", "project = Project(")
    (tmp_path / "project.py").write_text(code)
    project = load_project(tmp_path)
    assert [case.inputs["ticket"] for case in project.traffic()] == ["T1", "T2"]
    environment = project.environment()
    assert len(environment.reset(project.traffic()[0]).options) == 4
    assert len([line for line in code.splitlines() if line.strip()]) <= 23


def test_every_picture_of_the_readme_is_there_and_small():
    for name in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert (ROOT / name).stat().st_size < 300_000, name


def test_no_path_of_a_machine_stands_in_the_readme():
    assert not re.search(r"/(home|tmp|root|work|Users)/", README)


def test_the_environment_of_20_lines_is_played_over_several_steps():
    code = block("python", "class Warehouse")
    assert len(code.strip().splitlines()) <= 27
    space: dict[str, Any] = {}
    exec(code, space)  # the README is ours
    shelves = {"left": ["lamp"], "right": ["rope", "saw"]}
    cases = [Case(inputs={"wanted": thing, "shelves": shelves}) for thing in ("lamp", "saw")]
    explorer = Explorer(Program(base_candidate("Fetch it.", attempts=10)))
    traces = run(explorer, cases, space["Warehouse"], at=lambda _: datetime(2026, 1, 1, tzinfo=UTC))
    assert [trace.error for trace in traces] == [None, None]
    assert [trace.score for trace in traces] == [1.0, 1.0]
    assert all(trace.n_steps >= 2 for trace in traces)
