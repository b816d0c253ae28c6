import json
import sys
from itertools import combinations
from pathlib import Path

import pytest

from ratchet.agent.environment import Action
from ratchet.agent.memory.ranking import Query
from ratchet.agent.memory.snapshot import Memory
from ratchet.agent.memory.steps import Experience
from ratchet.agent.project import load_project
from ratchet.evaluation.data.cases import role_of
from ratchet.evaluation.data.contamination import NEAR
from ratchet.evaluation.data.near_text import SHINGLE
from ratchet.flows.commands.init import AgentKind

TEAMS = {"heron", "lynx", "otter", "wren"}


@pytest.fixture
def made(ratchet, tmp_path):
    done = ratchet("init", tmp_path / "my_agent", "--name", "desk", "--json")
    assert done.returncode == 0, done.stderr
    return load_project(Path(json.loads(done.stdout)["folder"]))


def test_a_new_project_loads_and_has_requests(made):
    assert made.name == "desk"
    assert len(made.traffic()) == 128
    assert {o.name for o in made.environment().reset(made.traffic()[0]).options} == TEAMS


def test_its_environment_scores_every_action_without_the_expected_answer(made):
    for case in made.traffic():
        assert case.expected is None
        scores = []
        for team in TEAMS:
            environment = made.environment()
            environment.reset(case)
            _, done = environment.step(Action(name=team))
            assert done
            scores.append(environment.outcome().score)
        assert sorted(scores) == [0, 0, 0, 1]


def test_no_request_is_nearly_another_so_that_all_may_teach_or_judge(made):
    requests = [case.inputs["request"].lower() for case in made.traffic()]
    assert len(set(requests)) == 128
    shingles = [{text[i : i + SHINGLE] for i in range(len(text) - SHINGLE + 1)} for text in requests]
    for one, other in combinations(shingles, 2):
        assert len(one & other) < NEAR * len(one | other)


def test_experience_tells_the_teams_apart_on_requests_that_it_never_saw(made):
    cases = {c.case_id: c for c in made.traffic()}
    answers = {case_id: _solver(made, c) for case_id, c in cases.items()}
    train = [c for i, c in cases.items() if role_of(i, gate_share=0.4, salt=made.name) == "train"]
    memory = Memory(
        Experience(
            observation=c.inputs["request"],
            action=answers[c.case_id],
            trace_id="0" * 32,
            case_id=c.case_id,
            source="own",
        )
        for c in train
    )
    fresh = [c for i, c in cases.items() if role_of(i, gate_share=0.4, salt=made.name) == "gate"][:40]
    teams = sorted(TEAMS)
    votes = [memory.vote(memory.recall(Query(observation=c.inputs["request"]), k=10), teams) for c in fresh]
    right = [teams[int(v.argmax())] == answers[c.case_id] for v, c in zip(votes, fresh, strict=True)]
    assert sum(right) / len(right) > 0.7


@pytest.mark.parametrize("kind", [kind.value for kind in AgentKind])
def test_every_kind_loads_under_its_name_and_takes_forty_lines(ratchet, tmp_path, monkeypatch, kind):
    for module in ("support", "tickets"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    done = ratchet("init", tmp_path / "p", "--kind", kind, "--name", f"the-{kind}", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kind"] == kind
    assert load_project(tmp_path / "p").name == f"the-{kind}"
    own = [path for name in ("support.py", "project.py") if (path := tmp_path / "p" / name).exists()]
    lines = [line for path in own for line in path.read_text().splitlines() if line.strip()]
    assert len(lines) <= 40
    texts = [
        path.read_text() for path in (tmp_path / "p").iterdir() if path.suffix in {".py", ".toml", ".md"}
    ]
    assert not any("my_agent" in text for text in texts)


def test_the_folders_name_is_the_projects_unless_given(ratchet, tmp_path):
    assert ratchet("init", tmp_path / "My Agent!").returncode == 0
    assert load_project(tmp_path / "My Agent!").name == "my-agent"


def test_everything_that_a_project_needs_is_there(ratchet, tmp_path):
    ratchet("init", tmp_path / "p")
    names = {path.name for path in (tmp_path / "p").iterdir()} - {"__pycache__"}
    files = {
        "project.py",
        "ratchet.toml",
        "requests.jsonl",
        "solved.jsonl",
        "scripted_llm.py",
        "tickets.py",
        "README.md",
        ".gitignore",
        ".env.example",
    }
    assert names == files
    assert ".env" in (tmp_path / "p" / ".gitignore").read_text()


def test_a_folder_that_holds_something_is_left_alone(ratchet, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    done = ratchet("init", tmp_path)
    assert done.returncode == 2
    assert "is not empty" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_bad_name_is_refused_before_anything_is_written(ratchet, tmp_path):
    for options in ((tmp_path / "new", "--name", "No Name"), (tmp_path / "…",)):
        assert ratchet("init", *options).returncode == 2
        assert not options[0].exists()


def _solver(project, case):
    for team in TEAMS:
        environment = project.environment()
        environment.reset(case)
        environment.step(Action(name=team))
        if environment.outcome().score == 1:
            return team
    raise AssertionError(f"nobody solved {case}")
