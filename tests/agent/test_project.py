"""A user's project file: what is wrong with it is said in one line."""

import sys

import pytest

from ratchet.agent.errors import BadInput
from ratchet.agent.project import Project, load_project

GOOD = """
from ratchet.agent.case import Case
from ratchet.agent.environments.tool_calling import ToolCalling
from ratchet.agent.project import Project

project = Project(name="mine", instructions="Pick one.", environment=ToolCalling)
"""


def write(folder, text):
    (folder / "project.py").write_text(text)
    return folder


def test_a_project_is_loaded_from_its_folder(tmp_path):
    project = load_project(write(tmp_path, GOOD))
    assert project.name == "mine"
    assert list(project.traffic()) == []
    assert [proposer.name for proposer in project.proposers] == ["replay", "lora", "prompts"]
    assert project.environment().outcome().score is None


def test_two_folders_are_two_projects(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, GOOD.replace('"mine"', f'"{name}"'))
    assert [load_project(tmp_path / name).name for name in ("one", "two", "one")] == ["one", "two", "one"]


def test_a_changed_file_is_read_again(tmp_path):
    load_project(write(tmp_path, GOOD))
    assert load_project(write(tmp_path, GOOD.replace("mine", "renamed"))).name == "renamed"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 / 0", "does not run: ZeroDivisionError"),
        ("def", "does not run: SyntaxError"),
        ("import no_such_package", "does not run: ModuleNotFoundError.*no_such_package"),
        ("x = 1", r"must define `project = Project\(…\)`; found NoneType"),
        ("project = 'mine'", "found str"),
        (GOOD.replace('"mine"', '"My Agent"'), "project name 'My Agent': use 1–63 lower-case"),
        (GOOD.replace("Pick one.", "  "), "has no instructions"),
    ],
)
def test_a_file_that_is_no_project_is_refused(tmp_path, text, message):
    with pytest.raises(BadInput, match=message):
        load_project(write(tmp_path, text))


def test_a_folder_without_a_project_names_the_command_that_makes_one(tmp_path):
    with pytest.raises(BadInput, match=r"no project.py in .*ratchet init DIR"):
        load_project(tmp_path)


@pytest.mark.parametrize("name", ["", "-a", "ä", "a" * 64, "a/b"])
def test_names_that_mlflow_could_not_use_are_refused(name):
    with pytest.raises(BadInput, match="project name"):
        Project(name=name, instructions="x", environment=object)


@pytest.mark.parametrize("mine", [False, True])
def test_a_project_that_imports_us_by_our_old_names_is_told_the_new_one_in_a_line(
    tmp_path, monkeypatch, mine
):
    monkeypatch.setattr("sys.path", list(sys.path))
    for name in [name for name in sys.modules if name.split(".")[0] == "agent"]:
        monkeypatch.delitem(sys.modules, name)
    if mine:  # their own package of that name has no Project
        (tmp_path / "agent").mkdir()
        (tmp_path / "agent" / "__init__.py").write_text("")
    write(tmp_path, GOOD.replace("ratchet.agent", "agent").replace("agent.case", "agent.project"))
    with pytest.raises(BadInput, match=r"from ratchet import Case, Observation, Project") as refused:
        load_project(tmp_path)
    assert "\n" not in str(refused.value)


def test_a_project_imports_what_lies_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", list(sys.path))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "__init__.py").write_text("")
    (tmp_path / "tasks" / "wording.py").write_text("TEXT = 'Pick the team.'\n")
    (tmp_path / "project.py").write_text(
        "from ratchet import Project\nfrom tasks.wording import TEXT\n"
        "project = Project(name='own', instructions=TEXT, environment=lambda: None)\n"
    )
    assert load_project(tmp_path).instructions == "Pick the team."
