"""The README's examples run as they are printed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from agent.project import load_project

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
    [("ratchet gate pairs.jsonl", "promote"), ("ratchet drift reference.csv", "drift, exit 3")],
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
