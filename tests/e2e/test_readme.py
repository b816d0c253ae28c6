"""The READMEs' examples run as they are printed, and what they name is there."""

import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.bench.exploration import Explorer

import ratchet
from ratchet.agent.case import Case
from ratchet.agent.environment import Observation, Option
from ratchet.agent.errors import NothingToPropose
from ratchet.agent.kinds.program import Program, View, base_candidate
from ratchet.agent.optimize.evidence import Evidence, Example
from ratchet.agent.optimize.proposer import Registered, made_by
from ratchet.agent.optimize.work import Work
from ratchet.agent.project import load_project
from ratchet.agent.rollout.loop import run
from ratchet.flows.cli import COMMANDS
from ratchet.flows.commands.init import AgentKind, copy_template

ROOT = Path(__file__).parents[2]
ROOMS = ("agent", "evaluation", "infra", "tasks", "flows")
READMES = [ROOT / "README.md", *(ROOT / room / "README.md" for room in ROOMS), ROOT / "flows/demo/README.md"]
TEXTS = {path: path.read_text(encoding="utf-8") for path in READMES}


def block(language: str, containing: str) -> str:
    blocks = [
        text for page in TEXTS.values() for text in re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)
    ]
    found = [text for text in blocks if containing in text]
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


@pytest.mark.parametrize(
    ("kind", "containing"), [("callable", "ratchet.prompt("), ("dspy", "ratchet.module(")]
)
def test_your_agent_after_is_what_init_writes(tmp_path, kind, containing):
    copy_template(tmp_path, AgentKind(kind), "support")
    written = (tmp_path / "support.py").read_text().replace(": list[Any] = ", " = ")
    lines = block("diff", containing).splitlines()
    after = [line[1:] for line in lines if not line.startswith("-") and line[1:].strip()]
    assert [line for line in after if line not in written] == []
    assert any(line.startswith("-") for line in lines)


def test_your_own_proposer_takes_15_lines_and_makes_a_candidate(tmp_path):
    code = block("python", "def propose(")
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    space: dict[str, Any] = {}
    exec(code, space)  # the README is ours
    shown = Observation(text="Where?", options=(Option(name="left"), Option(name="right")))
    example = Example(view=View(case_id="c1", observation=shown), answer="left", trace_id="t")
    work = Work(folder=tmp_path)
    parent = Registered(base_candidate("Go."))
    made = made_by(space["Frequent"](), parent, Evidence(examples=[example]), work)
    assert made is not None
    assert made.candidate.predictors["choose"].instructions == "Go. Most often right: left."
    assert made.seen_case_ids == ("c1",)
    with pytest.raises(NothingToPropose):
        made_by(space["Frequent"](), parent, Evidence(), work)


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(ROOT)))
class TestEachPage:
    def test_what_it_links_to_is_there_and_pictures_are_small(self, path):
        for picture, target in re.findall(r"(!?)\[[^\]]*\]\(([^)]+)\)", TEXTS[path]):
            there = path.parent / target
            assert there.is_file(), target
            assert not picture or there.stat().st_size < 300_000, target

    def test_no_path_of_a_machine_stands_in_it(self, path):
        assert not re.search(r"/(home|tmp|root|work|Users)/", TEXTS[path])

    def test_the_commands_files_and_names_that_it_gives_exist(self, path):
        named = set(re.findall(r"ratchet ([a-z]+)", " ".join(re.findall(r"`([^`\n]+)`", TEXTS[path]))))
        assert named <= COMMANDS.keys()
        for file in re.findall(r"tests/[\w/]+\.py", TEXTS[path]):
            assert (ROOT / file).is_file(), file
        for code in re.findall(r"```python\n(.*?)```", TEXTS[path], re.DOTALL):
            for names in re.findall(r"from ratchet import (.*)", code):
                assert set(names.split(", ")) <= set(ratchet.__all__)


@pytest.mark.parametrize("room", ROOMS)
def test_a_rooms_page_lists_its_sub_packages_and_names_no_file_that_is_gone(room):
    folder, text = ROOT / room, TEXTS[ROOT / room / "README.md"]
    rows = [cell for line in text.splitlines() if line.startswith("| `") for cell in line.split("|")[1:2]]
    listed = {name for row in rows for name in re.findall(r"`([\w/]+(?:/|\.py))`", row)}
    assert [name for name in listed if not (folder / name).exists()] == []
    packages = {one.parent.relative_to(folder).as_posix() + "/" for one in folder.glob("*/**/__init__.py")}
    assert packages <= listed


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
