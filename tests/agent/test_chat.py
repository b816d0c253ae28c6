"""A chat endpoint as the agent: what goes up for each client and each version, and what comes back."""

import copy
import time

import pytest

from ratchet.agent.build import first_candidate, make_agent
from ratchet.agent.candidate import Candidate, Demo, Predictor, ToolOverride
from ratchet.agent.errors import BadInput
from ratchet.agent.kinds.chat import answer_of, request_of
from ratchet.agent.kinds.chat_endpoint import Chat
from ratchet.agent.kinds.chat_request import case_inputs, screens
from ratchet.agent.memory.snapshot import Memory
from ratchet.agent.memory.steps import Experience
from ratchet.agent.optimize.code_edits import with_edits
from ratchet.agent.project import Project

DEFAULT, OTHER, VERSION = "You are a support agent.", "You are Bob.", "Name the team."
USER = {"role": "user", "content": "My parcel is late."}
LOOKUP = {
    "type": "function",
    "function": {
        "name": "lookup",
        "description": "Find.",
        "parameters": {"properties": {"id": {}}},
        "strict": True,
    },
}


def project(system: str = DEFAULT) -> Project:
    return Project(name="desk", agent=Chat(upstream="http://127.0.0.1:9/v1", model="small", system=system))


def agent(system: str = DEFAULT, *, files=None, **changes):
    first = first_candidate(project(system), None, None)
    return make_agent(project(system), first.model_copy(update=changes), files or {})


def saying(text: str, **more) -> dict:
    return {"predictors": {"system": Predictor(instructions=text, **more)}}


def body(*messages, **more) -> dict:
    return {
        "model": "ratchet/desk",
        "messages": [*messages, USER],
        "temperature": 0.2,
        "stream": True,
        "x": [1],
    } | more


def told(text: str, role: str = "system") -> dict:
    return {"role": role, "content": text}


def up(agent, *messages, **more) -> list[dict]:
    given = body(*messages, **more)
    before = copy.deepcopy(given)
    sent, _ = agent.rendered(given)
    assert given == before
    assert {name: sent[name] for name in ("temperature", "stream", "x")} == {
        "temperature": 0.2,
        "stream": True,
        "x": [1],
    }
    return sent["messages"]


@pytest.mark.parametrize(
    ("default", "version", "client", "sent"),
    [
        ("", "", None, None),
        ("", "", OTHER, OTHER),
        ("", VERSION, None, VERSION),
        ("", VERSION, OTHER, f"{VERSION}\n\n{OTHER}"),
        (DEFAULT, DEFAULT, None, DEFAULT),
        (DEFAULT, DEFAULT, DEFAULT, DEFAULT),
        (DEFAULT, DEFAULT, OTHER, OTHER),
        (DEFAULT, VERSION, None, VERSION),
        (DEFAULT, VERSION, DEFAULT, VERSION),
        (DEFAULT, VERSION, f"\n{DEFAULT} ", VERSION),
        (DEFAULT, VERSION, OTHER, f"{VERSION}\n\n{OTHER}"),
        (DEFAULT, VERSION, VERSION, VERSION),
        (DEFAULT, VERSION, f"{VERSION}\n\nToday is Monday.", f"{VERSION}\n\nToday is Monday."),
        (DEFAULT, "", DEFAULT, None),
    ],
)
def test_a_version_always_applies_and_the_first_one_changes_nothing(default, version, client, sent):
    messages = up(agent(default, **saying(version)), *([told(client)] if client else []))
    assert messages == [*([told(sent)] if sent else []), USER]


@pytest.mark.parametrize("client", [None, DEFAULT, OTHER])
def test_an_edited_default_is_a_version_that_reaches_those_who_still_send_the_old_one(client):
    edited = "You are the desk's new agent."
    first = first_candidate(project(), None, None)
    own = [told(client)] if client else []
    for version, sent in (
        (DEFAULT, client or DEFAULT),
        (edited, f"{edited}\n\n{OTHER}" if client == OTHER else edited),
    ):
        candidate = first.model_copy(update=saying(version))
        assert up(make_agent(project(edited), candidate, {}), *own) == [told(sent), USER]
    champion = make_agent(project(edited), first.model_copy(update=saying(VERSION)), {})
    assert up(champion, told(edited)) == [told(VERSION), USER]


def test_an_edit_in_the_settings_is_a_challenger_that_still_knows_what_clients_sent_first():
    first = first_candidate(project(), None, None)
    edited = with_edits(first, first_candidate(project("New."), None, None), [])
    assert edited.predictors["system"].instructions == "New."
    assert edited.replaces == DEFAULT
    assert edited.candidate_id != first.candidate_id


def test_the_client_s_role_and_parts_stay_and_a_later_system_message_is_left_alone():
    changed = agent(**saying(VERSION))
    assert up(changed, told(DEFAULT, "developer"))[0] == told(VERSION, "developer")
    parts = [{"type": "text", "text": OTHER, "cache_control": {"type": "ephemeral"}}]
    assert up(changed, {"role": "system", "content": parts, "name": "n"})[0] == {
        "role": "system",
        "content": [{"type": "text", "text": VERSION}, *parts],
        "name": "n",
    }
    late = [USER, told("Be brief.")]
    assert up(changed, *late) == [told(VERSION), *late, USER]


def test_worked_examples_and_notes_stand_in_the_system_message():
    changed = agent(**saying(VERSION, demos=(Demo(inputs="a", output="b"),)))
    sent, _ = changed.rendered(body(told(OTHER)), notes=("heron was\nwrong",))
    assert sent["messages"][0]["content"] == (
        f"{VERSION}\n\n### Example 1\na\n→ b\n\n{OTHER}\n\nNotes from earlier attempts at this request:\n- heron was wrong"
    )
    alone, _ = agent("").rendered(body(), notes=("no",))
    assert alone["messages"][0] == told("Notes from earlier attempts at this request:\n- no")


def remembering(tmp_path, *answers):
    memory = Memory(
        Experience(
            observation=f"My parcel is late {n}",
            action="respond",
            arguments={"content": answer},
            trace_id=f"t{n}",
            case_id=f"c{n}",
            source="own",
        )
        for n, answer in enumerate(answers)
    )
    memory.save(path := tmp_path / "memory.jsonl")
    first = first_candidate(project(), None, None)
    return agent(
        files={"memory": path},
        memory=memory.memory_id,
        topology=first.topology.model_copy(update={"recalls": 2}),
    )


def test_recalled_answers_stand_before_the_last_question_and_a_case_does_not_see_its_own(tmp_path):
    changed = remembering(tmp_path, "lynx", "otter")
    history = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hello."}]
    image = {
        "role": "user",
        "content": [{"type": "text", "text": "My parcel is late 0"}, {"type": "image_url"}],
    }
    asked = {"messages": [told(OTHER), *history, image, told("…", "tool")]}
    sent, recalled = changed.rendered(asked)
    assert [m.get("content") for m in sent["messages"][:7]] == [
        OTHER, "Hello.", "Hello.", "My parcel is late 1", "otter", "My parcel is late 0", "lynx",
    ]  # fmt: skip
    assert sent["messages"][7:] == [image, told("…", "tool")]
    assert recalled == ("t0", "t1")
    assert changed.rendered(asked, exclude_case="c0")[1] == ("t1",)
    assert changed.rendered({"messages": [told(OTHER)]}) == (
        {"messages": [told(OTHER)], "model": "small"},
        (),
    )


def test_a_recalled_call_of_a_tool_is_shown_as_a_worked_example(tmp_path):
    call = {"tool_calls": [{"name": "lookup", "arguments": {"id": 7}}]}
    sent, recalled = remembering(tmp_path, call).rendered(body())
    assert recalled == ("t0",)
    assert sent["messages"][0]["content"].startswith(DEFAULT)
    assert '→ {"tool_calls": [{"name": "lookup", "arguments": {"id": 7}}]}' in sent["messages"][0]["content"]
    assert sent["messages"][1:] == [USER]


def test_tools_are_described_as_the_version_says_and_stay_otherwise():
    wide = ToolOverride(description="Look up.", parameters={"properties": {"id": {"type": "integer"}}})
    changed = agent(tools={"lookup": wide, "other": "Not sent.", "old": "Older."}, models={"model": "large"})
    sent, _ = changed.rendered(body(tools=[LOOKUP, {"type": "web_search"}], functions=[{"name": "old"}]))
    assert sent["tools"][0]["function"] == {
        "name": "lookup", "description": "Look up.", "parameters": {"properties": {"id": {"type": "integer"}}},
        "strict": True,
    }  # fmt: skip
    assert sent["tools"][1] == {"type": "web_search"}
    assert sent["functions"] == [{"name": "old", "description": "Older."}]
    assert sent["model"] == "large"
    assert agent().rendered(body(tools=[LOOKUP]))[0]["tools"] == [LOOKUP]


def test_a_version_that_renames_a_tool_is_refused():
    with pytest.raises(BadInput, match="renames tool 'lookup'"):
        agent(tools={"lookup": ToolOverride(name="find")})


@pytest.mark.parametrize("given", [{}, {"messages": "hi"}, {"messages": ["hi"]}])
def test_a_request_without_messages_is_refused_in_a_line(given):
    with pytest.raises(BadInput, match="messages: give a list"):
        agent().rendered(given)


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        ({"content": "lynx"}, "lynx"),
        ({"content": [{"type": "text", "text": "lynx"}]}, "lynx"),
        ({"content": None, "refusal": "No."}, "No."),
        ({"content": None}, ""),
        (
            {"content": "", "tool_calls": [{"function": {"name": "f", "arguments": '{"a": 1}'}}]},
            {"tool_calls": [{"name": "f", "arguments": {"a": 1}}]},
        ),
        (
            {"function_call": {"name": "f", "arguments": "{"}},
            {"tool_calls": [{"name": "f", "arguments": "{"}]},
        ),
    ],
)
def test_an_assistant_s_message_is_an_answer(message, answer):
    assert answer_of(message) == answer


def test_a_case_is_what_is_asked_and_not_who_asks_or_how_it_is_delivered():
    asked = case_inputs(
        body(tools=[LOOKUP], user="u7", stream_options={}, response_format={"type": "json_object"})
    )
    assert set(asked) == {"messages", "temperature", "x", "tools", "response_format"}
    assert request_of(asked) == asked
    assert request_of({"request": "Hi"}) == {"messages": [{"role": "user", "content": "Hi"}]}


@pytest.mark.parametrize(
    ("messages", "more", "words"),
    [
        ([told("s"), USER], {}, ""),
        ([told("s"), USER, told("Be brief.")], {"tools": []}, ""),
        ([USER], {"tools": [LOOKUP], "tool_choice": "none"}, ""),
        ([USER], {"tools": [LOOKUP]}, "tools that were not called"),
        ([USER, told("", "assistant"), told("x", "tool")], {}, "results of tools, earlier answers"),
        ([USER, USER], {}, "several messages of the user"),
        ([USER, told("Hi", "assistant"), USER], {}, "earlier answers, several messages of the user"),
    ],
)
def test_a_request_of_one_message_is_a_whole_test_and_any_other_is_screening(messages, more, words):
    assert screens({"messages": messages, **more}) == words


@pytest.mark.parametrize(
    "upstream", ["localhost:8000", "http://user:key@host/v1", "https://host/v1?key=1", "vendor"]
)
def test_an_upstream_is_an_address_that_holds_no_key(upstream):
    with pytest.raises(ValueError, match="upstream"):
        Chat(upstream=upstream, model="small")


def test_a_version_is_applied_in_well_under_a_millisecond():
    changed = agent(**saying(VERSION), tools={"lookup": "Look up."})
    asked = body(told(OTHER), *[USER, told("Hi", "assistant")] * 20, tools=[LOOKUP] * 5)
    took = []
    for _ in range(200):
        began = time.perf_counter()
        changed.rendered(asked)
        took.append(time.perf_counter() - began)
    assert sorted(took)[100] < 0.3e-3


def test_the_first_version_is_the_endpoint_as_it_is():
    first = first_candidate(project(), None, None)
    assert (first.kind, first.base_model, first.models, first.tools) == ("chat", "openai/small", {}, {})
    assert Candidate.from_json(first.to_json()) == first
