"""Logs in OpenAI's chat format: every conversation becomes the trace that it was, every fault names its record."""

import json

import pytest

from agent.environment import Action
from agent.errors import BadInput
from infra.chat_log import read_chat_log
from infra.chat_messages import RESPOND


def call(name, arguments, call_id="1"):
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def assistant(content=None, *calls):
    return {"role": "assistant", "content": content} | ({"tool_calls": list(calls)} if calls else {})


def user(text):
    return {"role": "user", "content": text}


def tool(text, call_id="1"):
    return {"role": "tool", "tool_call_id": call_id, "content": text}


BOOKING = {
    "task_id": 7,
    "reward": 1.0,
    "messages": [
        {"role": "system", "content": "Be kind."},
        user("Fly me to Oslo"),
        assistant("Let me look.", call("search", '{"to": "OSL"}')),
        tool("two flights"),
        assistant("There are two."),
        user("Thanks"),
    ],
}


def write(path, records, *, array=False):
    path.write_text(json.dumps(records) if array else "".join(json.dumps(r) + "\n" for r in records))
    return path


def steps_of(tmp_path, *messages):
    log = read_chat_log(write(tmp_path / "log.jsonl", [{"messages": list(messages)}]))
    assert log.malformed == ()
    return log.traces[0].attempts[0].steps


def test_tool_calls_and_answers_become_steps_with_what_was_seen_and_what_came_of_them(tmp_path):
    (trace,) = read_chat_log(write(tmp_path / "log.jsonl", [BOOKING])).traces
    looked, said = trace.attempts[0].steps
    assert (looked.observation, looked.thought, looked.result) == (
        "Fly me to Oslo",
        "Let me look.",
        "two flights",
    )
    assert looked.action == Action(name="search", arguments={"to": "OSL"})
    assert (said.observation, said.result) == ("two flights", "Thanks")
    assert said.action == Action(name=RESPOND, arguments={"content": "There are two."})
    assert (trace.score, trace.session_id, trace.case.inputs["request"]) == (1.0, "7", "Fly me to Oslo")
    assert (trace.candidate_id, trace.is_imported) == ("imported:log", True)


def test_an_array_and_lines_hold_the_same_traces_whatever_the_file_is_called(tmp_path):
    lines = read_chat_log(write(tmp_path / "a.jsonl", [BOOKING]))
    array = read_chat_log(write(tmp_path / "b.json", [BOOKING], array=True))
    assert [t.trace_id for t in lines.traces] == [t.trace_id for t in array.traces]
    assert (lines.unit, array.unit) == ("line", "record")


def test_several_calls_of_one_message_get_each_its_own_result(tmp_path):
    calls = assistant(None, call("a", "{}", "1"), call("b", "{}", "2"))
    first, second = steps_of(tmp_path, user("go"), calls, tool("of b", "2"), tool("of a", "1"))
    assert (first.result, second.result) == ("of a", "of b")
    assert first.observation == second.observation == "go"


def test_an_id_that_is_used_twice_in_a_conversation_answers_the_call_before_it(tmp_path):
    one, two = assistant(None, call("a", "{}")), assistant(None, call("b", "{}"))
    first, second = steps_of(tmp_path, user("go"), one, tool("of a"), two, tool("of b"))
    assert (first.result, second.result) == ("of a", "of b")


def test_what_the_agent_wrote_as_arguments_is_kept_even_where_it_is_no_json(tmp_path):
    messages = (user("go"), assistant(None, call("a", '{"x": ')), assistant(None, call("b", "[1]")))
    broken, listed = steps_of(tmp_path, *messages)
    assert broken.action.arguments == {"unparsed": '{"x": '}
    assert listed.action.arguments == {"unparsed": "[1]"}


def test_a_thinking_tool_is_the_steps_reasoning(tmp_path):
    (step,) = steps_of(tmp_path, user("go"), assistant(None, call("think", '{"thought": "they want two"}')))
    assert step.thought == "they want two"


def test_parts_of_a_message_and_the_older_function_call_are_read(tmp_path):
    parts = {"role": "user", "content": [{"type": "text", "text": "what is this?"}, {"type": "image_url"}]}
    older = {"role": "assistant", "content": None, "function_call": {"name": "look", "arguments": "{}"}}
    (step,) = steps_of(tmp_path, parts, older, {"role": "function", "name": "look", "content": "a cat"})
    assert (step.observation, step.action.name, step.result) == (
        "what is this?\n[image_url]",
        "look",
        "a cat",
    )


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{not json", "not JSON in UTF-8"),
        ("[1]", "list instead of an object"),
        ("{}", "no list of messages; looked for messages, traj"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "no message of the assistant"),
        ('{"messages": [{"role": "robot"}]}', "message 1: role 'robot' is none of system"),
        ('{"messages": [{"role": "user", "content": 3}]}', "message 1: content is int, not text"),
        ('{"messages": [3]}', "message 1: int instead of an object"),
        ('{"messages": [{"role": "assistant", "tool_calls": [{"id": "1"}]}]}', "a tool call without function.name"),
        ('{"messages": [{"role": "assistant", "tool_calls": 5}]}', "tool_calls is int, not a list"),
        ('{"messages": [{"role": "assistant", "content": "x"}], "reward": 7}', "reward 7 is not a number in [0, 1]"),
        ('{"messages": [{"role": "assistant", "content": "x"}], "reward": NaN}', "reward nan is not a number"),
        ('{"messages": [{"role": "assistant", "content": "x"}], "created_at": "soon"}', "time 'soon' is neither ISO"),
        ('{"messages": [{"role": "assistant", "content": "\\ud800"}]}', "JSON cannot hold"),
    ],
)  # fmt: skip
def test_a_malformed_line_is_named_with_its_number_and_hides_no_other(tmp_path, line, reason):
    path = tmp_path / "log.jsonl"
    path.write_text(f"{json.dumps(BOOKING)}\n\n{line}\n{json.dumps(BOOKING)}\n")
    log = read_chat_log(path)
    (fault,) = log.malformed
    assert fault.number == 3
    assert reason in fault.reason
    assert len(log.traces) == 2


def test_a_malformed_record_of_an_array_is_named_with_its_place(tmp_path):
    log = read_chat_log(write(tmp_path / "log.json", [BOOKING, {"messages": "x"}], array=True))
    assert [fault.number for fault in log.malformed] == [2]


@pytest.mark.parametrize(
    ("text", "message"), [("", "nothing in it"), ("[]", "nothing in it"), ("[{", "not one JSON array")]
)
def test_a_file_without_conversations_is_refused(tmp_path, text, message):
    path = tmp_path / "log.json"
    path.write_text(text)
    with pytest.raises(BadInput, match=message):
        read_chat_log(path)
    with pytest.raises(BadInput, match="no such file"):
        read_chat_log(tmp_path / "absent.json")


def test_the_time_and_the_model_of_a_record_are_kept(tmp_path):
    path = write(
        tmp_path / "log.jsonl", [BOOKING | {"created_at": 1767571200, "model": "gpt-4o", "reward": None}]
    )
    (trace,) = read_chat_log(path).traces
    assert (trace.started_at.isoformat(), trace.candidate_id, trace.score) == (
        "2026-01-05T00:00:00+00:00", "imported:gpt-4o", None,
    )  # fmt: skip
    (named,) = read_chat_log(path, agent="old agent").traces
    assert named.candidate_id == "imported:old agent"
