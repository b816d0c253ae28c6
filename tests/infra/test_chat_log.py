"""Logs in OpenAI's chat format: every conversation becomes the trace that it was, every fault names its record."""

import json

import pytest

from ratchet.agent.environment import RESPOND, Action
from ratchet.agent.errors import BadInput
from ratchet.infra.traces.log_file import read_log_file


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
    log = read_log_file(write(tmp_path / "log.jsonl", [{"messages": list(messages)}]))
    assert log.malformed == ()
    return log.traces[0].attempts[0].steps


def test_tool_calls_and_answers_become_steps_with_what_was_seen_and_what_came_of_them(tmp_path):
    (trace,) = read_log_file(write(tmp_path / "log.jsonl", [BOOKING])).traces
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
    lines = read_log_file(write(tmp_path / "a.jsonl", [BOOKING]))
    array = read_log_file(write(tmp_path / "b.json", [BOOKING], array=True))
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
        ("{not json", "not JSON"),
        ("[1]", "list instead of an object"),
        ("{}", "no list of messages; looked for messages, traj"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "no message of the assistant"),
        ('{"messages": [{"role": "robot"}]}', "message 1: role 'robot' is none of system"),
        ('{"messages": [{"role": "user", "content": 3}]}', "message 1: content is a number, not text"),
        ('{"messages": [3]}', "message 1: a number instead of an object"),
        ('{"messages": [{"role": "assistant", "tool_calls": [{"id": "1"}]}]}', "a tool call without function.name"),
        ('{"messages": [{"role": "assistant", "tool_calls": 5}]}', "tool_calls is a number, not a list"),
        ('{"messages": [{"role": "assistant", "content": "x"}], "reward": 7}', "reward 7 is not a number in [0, 1]"),
        ('{"messages": [{"role": "assistant", "content": "x"}], "reward": NaN}', "reward nan is not a number"),
        ('{"messages": [{"role": "assistant", "content": "x"}], "created_at": "soon"}', "time = 'soon' is neither"),
        ('{"messages": [{"role": "assistant", "content": [3]}]}', "message 1: a part is a number, not text"),
        ('{"role": "user", "content": "x"}', "a message, not a conversation; put the messages of a conversation together"),
        ('{"messages": [{"role": "assistant", "content": "x"}], "reward": "good"}', "reward 'good' is not a number"),
        ('{"messages": [{"role": "assistant", "content": "x"}], "task_id": [1]}', "task is a list, not text"),
        ('{"conversations": [{"from": "function_call", "value": "look"}]}', "message 1: function_call 'look' is not JSON"),
        ('{"messages": [{"role": "assistant", "content": "x"}], "reward": 1, "reward": 0}', "'reward' stands twice"),
    ],
)  # fmt: skip
def test_a_malformed_line_is_named_with_its_number_and_hides_no_other(tmp_path, line, reason):
    path = tmp_path / "log.jsonl"
    path.write_text(f"{json.dumps(BOOKING)}\n\n{line}\n{json.dumps(BOOKING)}\n")
    log = read_log_file(path)
    (fault,) = log.malformed
    assert fault.number == 3
    assert reason in fault.reason
    assert len(log.traces) == 2


def test_a_malformed_record_of_an_array_is_named_with_its_place(tmp_path):
    log = read_log_file(write(tmp_path / "log.json", [BOOKING, {"messages": "x"}], array=True))
    assert [fault.number for fault in log.malformed] == [2]


@pytest.mark.parametrize(
    ("text", "message"), [("", "nothing in it"), ("[]", "nothing in it"), ("[{", "not one JSON array")]
)
def test_a_file_without_conversations_is_refused(tmp_path, text, message):
    path = tmp_path / "log.json"
    path.write_text(text)
    with pytest.raises(BadInput, match=message):
        read_log_file(path)
    with pytest.raises(BadInput, match="no such file"):
        read_log_file(tmp_path / "absent.json")


def test_the_time_and_the_model_of_a_record_are_kept(tmp_path):
    path = write(
        tmp_path / "log.jsonl", [BOOKING | {"created_at": 1767571200, "model": "gpt-4o", "reward": None}]
    )
    (trace,) = read_log_file(path).traces
    assert (trace.started_at.isoformat(), trace.candidate_id, trace.score) == (
        "2026-01-05T00:00:00+00:00", "imported:gpt-4o", None,
    )  # fmt: skip
    (named,) = read_log_file(path, agent="old agent").traces
    assert named.candidate_id == "imported:old agent"


def read_one(path, *messages, **fields):
    log = read_log_file(write(path / "log.jsonl", [{"messages": list(messages), **fields}]))
    assert log.malformed == ()
    return log


def test_results_without_ids_are_joined_by_name_and_never_by_place(tmp_path):
    calls = {"role": "assistant", "content": None, "tool_calls": [
        {"function": {"name": "stock", "arguments": "{}"}}, {"function": {"name": "price", "arguments": "{}"}}]}  # fmt: skip
    named = [{"role": "tool", "name": name, "content": f"of {name}"} for name in ("price", "stock")]
    first, second = steps_of(tmp_path, user("go"), calls, *named)
    assert (first.result, second.result) == ("of stock", "of price")
    log = read_one(tmp_path, user("go"), calls, {"role": "tool", "content": "17"}, assistant("done"))
    *called, said = log.traces[0].attempts[0].steps
    assert [step.result for step in called] == [None, None]
    assert said.observation == "17"
    assert list(log.notes) == ["result that does not say which call it answers, kept as what was seen next"]


def test_a_result_of_another_call_is_not_taken_for_the_one_that_waits(tmp_path):
    log = read_one(
        tmp_path, user("go"), assistant(None, call("a", "{}", "1")), tool("stray", "2"), tool("of a", "1")
    )
    assert [step.result for step in log.traces[0].attempts[0].steps] == ["of a"]
    assert sum(log.notes.values()) == 1


def test_content_blocks_keep_thoughts_calls_results_and_what_the_user_said_beside_them(tmp_path):
    asks = {"role": "assistant", "content": [
        {"type": "thinking", "thinking": "two places"}, {"type": "tool_use", "id": "1", "name": "warm", "input": {"at": "lake"}},
        {"type": "tool_use", "id": "2", "name": "warm", "input": {"at": "sea"}}]}  # fmt: skip
    answers = {"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": "2", "content": "21"},
        {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "19"}]},
        {"type": "text", "text": "in Celsius, please"}]}  # fmt: skip
    lake, sea, said = steps_of(tmp_path, user("how warm?"), asks, answers, assistant("19 and 21"))
    assert (lake.action.arguments, lake.result, lake.thought) == ({"at": "lake"}, "19", "two places")
    assert (sea.action.arguments, sea.result) == ({"at": "sea"}, "21")
    assert said.observation == "21\n19\nin Celsius, please"


def test_parts_of_opentelemetry_are_read(tmp_path):
    asks = {"role": "assistant", "parts": [
        {"type": "reasoning", "content": "hm"}, {"type": "tool_call", "id": "1", "name": "look", "arguments": {"x": 1}}]}  # fmt: skip
    answers = {"role": "user", "parts": [{"type": "tool_call_response", "id": "1", "response": {"found": 2}}]}
    (step,) = steps_of(
        tmp_path, {"role": "user", "parts": [{"type": "text", "content": "go"}]}, asks, answers
    )
    assert (step.observation, step.thought, step.action.name, step.result) == (
        "go",
        "hm",
        "look",
        '{"found": 2}',
    )


def test_a_part_of_an_unknown_type_is_kept_as_data_and_counted(tmp_path):
    log = read_one(tmp_path, user("go"), {"role": "assistant", "content": [{"type": "chart", "of": "sales"}]})
    (step,) = log.traces[0].attempts[0].steps
    assert json.loads(step.action.arguments["content"]) == {"type": "chart", "of": "sales"}
    assert log.notes == {"part of type 'chart' kept as JSON": 1}


def test_what_was_not_read_is_counted(tmp_path):
    said = {"role": "assistant", "content": "x", "weight": 0, "usage": {"tokens": 3}}
    log = read_one(tmp_path, said, said, reward=1, success=True, info={"a": 1}, tools=[], model="m", trial=0)
    assert log.notes == {
        "field 'weight' of messages not read": 2, "field 'usage' of messages not read": 2,
        "field 'success' not read": 1, "field 'info' not read": 1,
    }  # fmt: skip


def test_sharegpt_with_a_call_and_roles_of_other_houses_are_read(tmp_path):
    turns = [("human", "go"), ("function_call", '{"name": "look", "arguments": {"x": 1}}'), ("observation", "a cat"),
             ("gpt", "A cat.")]  # fmt: skip
    path = write(
        tmp_path / "log.json", [{"conversations": [{"from": a, "value": b} for a, b in turns]}], array=True
    )
    looked, said = read_log_file(path).traces[0].attempts[0].steps
    assert (looked.action, looked.result) == (Action(name="look", arguments={"x": 1}), "a cat")
    assert said.action.arguments == {"content": "A cat."}
    (step,) = steps_of(tmp_path, {"role": "human", "content": "go"}, {"role": "ai", "content": "gone"})
    assert (step.observation, step.action.arguments) == ("go", {"content": "gone"})


@pytest.mark.parametrize(("given", "score"), [("1.0", 1), (True, 1), ("fail", 0), (None, None), ("", None)])
def test_a_reward_is_read_as_in_every_other_file(tmp_path, given, score):
    assert read_one(tmp_path, assistant("x"), reward=given).traces[0].score == score


def with_rewards(path, *rewards):
    return read_log_file(write(path, [{**BOOKING, "reward": reward} for reward in rewards]))


def test_trials_alike_get_the_same_ids_whatever_their_order(tmp_path):
    one = with_rewards(tmp_path / "a.jsonl", 1, 0, 0)
    other = with_rewards(tmp_path / "b.jsonl", 0, 1, 0)
    assert {t.trace_id: t.score for t in one.traces} == {t.trace_id: t.score for t in other.traces}
    assert sorted(t.score for t in one.traces) == [0, 0, 1]
    assert len({t.trace_id for t in one.traces}) == 3
    (alone,) = with_rewards(tmp_path / "c.jsonl", 1).traces
    assert {t.trace_id: t.score for t in one.traces}[alone.trace_id] == 1


def test_a_repeat_or_a_label_that_came_later_in_the_file_is_no_trial(tmp_path):
    for rewards in ((1, 1), (None, 1), (1, None)):
        log = with_rewards(tmp_path / "a.jsonl", *rewards)
        assert {t.score for t in log.traces} == {1}
        assert len({t.trace_id for t in log.traces}) == 1


def test_conversations_are_read_from_parquet_and_from_lists_of_messages(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    messages = [user("go"), assistant("gone")]
    pq.write_table(pa.Table.from_pylist([{"messages": messages, "reward": 1.0}]), tmp_path / "a.parquet")
    write(tmp_path / "a.json", [messages, [*messages[:1], assistant("no")]], array=True)
    (trace,) = read_log_file(tmp_path / "a.parquet").traces
    assert (trace.score, trace.attempts[0].steps[0].action.arguments) == (1, {"content": "gone"})
    assert len(read_log_file(tmp_path / "a.json").traces) == 2


def test_half_a_character_is_replaced_and_said(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"messages": [{"role": "assistant", "content": "cut \\ud83d"}]}\n')
    log = read_log_file(path)
    assert log.traces[0].attempts[0].steps[0].action.arguments == {"content": "cut \ufffd"}
    assert log.notes == {"record with half a character in it, replaced by \ufffd": 1}


def test_messages_in_a_tables_cell_are_read(tmp_path):
    path = tmp_path / "log.csv"
    cell = json.dumps([user("go"), assistant("gone")]).replace('"', '""')
    path.write_text(f'messages;reward\n"{cell}";0,5\n')
    (trace,) = read_log_file(path).traces
    assert (trace.score, trace.attempts[0].steps[0].observation) == (0.5, "go")


def test_a_picture_in_a_tools_result_is_counted(tmp_path):
    result = {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "image", "source": {}}]}
    log = read_one(tmp_path, {"role": "user", "content": [result]}, assistant("seen"))
    assert log.notes == {"image part named only": 1}


def test_of_an_object_that_holds_several_lists_the_one_that_is_read_is_named(tmp_path):
    path = tmp_path / "log.json"
    path.write_text(json.dumps({"tasks": [{"id": 1}], "runs": [BOOKING], "about": {"n": 1}}))
    log = read_log_file(path)
    assert (len(log.traces), log.unit) == (1, "record")
    assert log.notes == {"JSON object of which only the list 'runs' was read": 1}
