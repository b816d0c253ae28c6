"""`ratchet.toml` alone as a project: what it makes, and what is wrong with it in one line."""

from typing import get_args

import pytest

import ratchet
from ratchet.agent.case import Case
from ratchet.agent.environment import respond
from ratchet.agent.errors import BadInput
from ratchet.agent.kinds.chat_endpoint import Chat, ChatProject, ScorerName
from ratchet.agent.optimize.replay import Replay
from ratchet.agent.project import Project, has_project, load_project
from ratchet.agent.settings_table import SETTINGS_FILE
from ratchet.flows.project_settings import ImproveSettings, ProjectSettings, read_settings

TABLE = """
[agent]
name = "desk"
upstream = "http://localhost:8000/v1"
model = "small"
"""


def write(folder, text=TABLE):
    (folder / SETTINGS_FILE).write_text(text)
    return folder


def test_the_table_alone_is_a_project_and_the_settings_beside_it_count(tmp_path):
    write(
        tmp_path,
        f'seed = 3\n{TABLE}system = "Name the team."\nscore = "contains"\nrecalls = 2\n[gate]\nalpha = 0.1',
    )
    project = load_project(tmp_path)
    assert has_project(tmp_path)
    assert project.name == "desk"
    assert project.agent == Chat(upstream="http://localhost:8000/v1", model="small", system="Name the team.")
    assert list(project.proposers) == [Replay(recalls=2)]
    world = project.environment()
    world.reset(Case(inputs={"messages": []}, expected="heron"))
    world.step(respond("That is for heron."))
    assert world.outcome().score == 1
    rules = read_settings(tmp_path, ImproveSettings)
    assert (rules.seed, rules.gate.alpha) == (3, 0.1)
    assert read_settings(tmp_path, ProjectSettings).agent.recalls == 2


def test_every_scorer_of_ours_can_be_named(tmp_path):
    for name in get_args(ScorerName):
        assert load_project(write(tmp_path, f'{TABLE}score = "{name}"')).score is getattr(ratchet, name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TABLE + 'sistem = "x"', r"there is no agent.sistem here; did you mean agent.system\?"),
        (
            TABLE + 'q_q_q_q = "x"',
            "there is no agent.q_q_q_q here; there is name, upstream, model, system, score, recalls",
        ),
        (
            TABLE + 'score = "vibes"',
            "agent.score = \"vibes\": it must be 'exact', 'contains'.*leave it out: None",
        ),
        (
            TABLE + "recalls = 99",
            r"agent.recalls = 99: it must .* \(≥ 0 and ≤ 20\); correct it, or leave it out: 4",
        ),
        (TABLE + 'recalls = "2"', 'agent.recalls = "2": it must be a valid integer'),
        (TABLE.replace('"small"', '""'), 'agent.model = "": .* at least 1 character; correct it$'),
        (TABLE.replace('model = "small"', ""), "agent.model is missing: What the endpoint calls the LM"),
        (
            TABLE.replace("http://localhost", "localhost"),
            "agent.upstream: the address is not http.*RATCHET_LM_API_KEY",
        ),
        (TABLE.replace('"desk"', '"My Desk"'), "project name 'My Desk': use 1–63"),
        ("agent = 3", "agent = 3: it must be a table; correct it"),
        ("agent = ", "cannot be read as TOML"),
    ],
)
def test_what_is_wrong_with_the_table_is_said_in_a_line(tmp_path, text, message):
    with pytest.raises(BadInput, match=message) as refused:
        load_project(write(tmp_path, text))
    assert "\n" not in str(refused.value)


def test_an_address_with_a_key_in_it_is_refused_and_not_shown(tmp_path):
    write(tmp_path, TABLE.replace("localhost", "user:s3cret@localhost"))
    for read in (load_project, lambda folder: read_settings(folder, ProjectSettings)):
        with pytest.raises(BadInput) as refused:
            read(tmp_path)
        assert "s3cret" not in str(refused.value)


def test_an_agent_that_is_said_twice_or_nowhere_is_refused(tmp_path):
    assert not has_project(tmp_path)
    with pytest.raises(BadInput, match="and no table `agent` in a ratchet"):
        load_project(write(tmp_path, "seed = 1"))
    (tmp_path / "project.py").write_text("")
    with pytest.raises(BadInput, match="both say who the agent is: remove one"):
        load_project(write(tmp_path))


def test_an_endpoint_answers_a_request_once():
    chat = ChatProject(name="desk", upstream="http://localhost:8000/v1", model="small").chat
    with pytest.raises(BadInput, match="attempts = 2: a chat endpoint answers a request once"):
        Project(name="desk", agent=chat, attempts=2)
