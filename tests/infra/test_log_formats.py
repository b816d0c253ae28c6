"""Every format of log files: told by what its records hold, read whole, and what was not read is said."""

import contextlib
import json
import random
import re
import shutil
from functools import reduce
from pathlib import Path

import pytest

from ratchet.agent.environment import Action
from ratchet.agent.errors import BadInput
from ratchet.infra.traces.feedback import FeedbackNames
from ratchet.infra.traces.formats.detect import FORMATS
from ratchet.infra.traces.log_file import read_log_file

LOGS = Path(__file__).parent / "logs"
ASKED, FOUND, SAID = "Is a cargo bike free on Friday?", '{"cargo": 2}', "Yes, two are free on Friday."
COLUMNS = ("messages", "tool calls", "results", "usage", "session", "feedback")
NONE = "n/a"
"""The format has no field for it."""
TABLE = {
    "openai_chat.jsonl": ("openai-chat", 1, 1, 1, (140, 22), "shop-1", "reward 1, expected"),
    "openai_fine_tuning.jsonl": ("openai-chat", 2, 1, 1, NONE, NONE, "1 label"),
    "openai_preference.jsonl": ("openai-preference", 2, 2, 2, NONE, NONE, "3 labels"),
    "anthropic.jsonl": ("anthropic", 1, 1, 1, (150, 12), "shop-1", "reward 1"),
    "claude_code.jsonl": ("claude-code", 2, 2, 2, (210, 39), "5e5510-1", NONE),
    "sharegpt.json": ("sharegpt", 1, 1, 1, NONE, NONE, "reward 1"),
    "tau_bench.json": ("tau-bench", 1, 1, 1, NONE, "3", "reward 1, expected"),
    "tau2_bench.json": ("tau2-bench", 2, 1, 1, (140, 22), "friday", "reward 1, expected"),
    "swe_agent.traj": ("swe-agent", 0, 2, 2, (900, 60), "bell-1", "submitted"),
    "mini_swe_agent.traj.json": ("mini-swe-agent", 0, 2, 1, (900, 35), "bell-1", "Submitted"),
    "mlflow.json": ("mlflow", 1, 1, 1, (140, 22), "shop-1", "2 labels"),
    "otlp.jsonl": ("otlp", 1, 1, 1, (140, 22), "shop-1", "1 label"),
    "langfuse.json": ("langfuse", 1, 1, 1, (140, 22), "shop-1", "2 labels"),
    "langfuse_blob.jsonl": ("langfuse", 1, 1, 1, (140, 22), "shop-1", "1 label"),
    "langsmith.jsonl": ("langsmith", 1, 1, 1, (140, 22), "shop-1", "1 label"),
    "atif.json": ("atif", 1, 1, 1, (140, 22), "shop-1", NONE),
}


def found_in(path):
    """A row of the table, from what was read."""
    log = read_log_file(path)
    trace, held = log.traces[0], log.counts
    usage = trace.usage.input_tokens, trace.usage.output_tokens
    said = [f"reward {trace.score:g}"] if trace.score is not None else []
    said += ["expected"] if trace.case.expected is not None else []
    said += [f"{len(log.labels)} label{'s' if len(log.labels) > 1 else ''}"] if log.labels else []
    said += [trace.attempts[-1].outcome.feedback] if trace.attempts[-1].outcome.feedback else []
    return (
        log.format,
        *(held[name] for name in ("messages of the agent", "tool calls", "results")),
        usage if any(usage) else NONE,
        trace.session_id or NONE,
        ", ".join(said) or NONE,
    )


def test_each_format_is_told_by_its_records_and_all_that_it_holds_is_found():
    rows = {name: found_in(LOGS / name) for name in TABLE}
    print(f"\n{'file':26}{'format':19}" + "".join(f"{name:12}" for name in COLUMNS))
    for name, (kind, *cells) in rows.items():
        print(f"{name:26}{kind:19}" + "".join(f"{cell!s:12}" for cell in cells))
    assert rows == TABLE
    assert {kind for kind, *_ in TABLE.values()} == {one.name for one in FORMATS}


@pytest.mark.parametrize("name", [name for name in TABLE if "swe" not in name and "tuning" not in name])
def test_the_same_conversation_has_the_same_steps_in_every_format(name):
    trace = read_log_file(LOGS / name).traces[0]
    looked = next(step for step in trace.attempts[0].steps if step.action.name == "free_bikes")
    assert (looked.action.arguments, looked.result) == ({"day": "Friday"}, FOUND)
    assert (looked.observation, trace.case.inputs["request"], trace.answer) == (ASKED, ASKED, SAID)
    assert ("lend bicycles" in trace.system) == (name != "claude_code.jsonl")


@pytest.mark.parametrize("name", sorted(TABLE))
def test_the_name_of_a_file_does_not_count_and_a_forced_format_reads_the_same(name, tmp_path):
    shutil.copy(LOGS / name, path := tmp_path / "log.txt")
    told = read_log_file(path, agent="a", format_name=TABLE[name][0])
    assert told.traces == read_log_file(path, agent="a").traces
    assert [t.trace_id for t in told.traces] == [t.trace_id for t in read_log_file(LOGS / name).traces]


def test_what_was_imported_by_an_older_version_keeps_its_id():
    """As the version before wrote them, in project `p`."""
    known = {
        "openai_chat.jsonl": "7058a889e121516cc3bd13c89850be52", "openai_fine_tuning.jsonl": "244835b936b663d8d81f1835b4014b6a", "sharegpt.json": "dd9686c7541e9ef2cabd0c85a4ae6949",
        "tau_bench.json": "2ecfa0fe065516586a82bbf88128f283", "tau2_bench.json": "53be34dbd2b6680305d5db1311019106",
    }  # fmt: skip
    assert {name: read_log_file(LOGS / name, project="p").traces[0].trace_id for name in known} == known


def test_of_a_session_of_claude_code_the_branch_that_was_given_up_is_left_out_and_a_subagent_is_apart():
    main, sub = read_log_file(LOGS / "claude_code.jsonl").traces
    first, second, said = main.attempts[0].steps
    assert first.thought == second.thought == "Two lists."
    assert (first.result, second.action.name, second.result) == (FOUND, "Task", "None is in repair.")
    assert said.observation == f"{FOUND}\nNone is in repair."
    assert (sub.case.inputs["request"], sub.answer) == ("Which are in repair?", "None is in repair.")
    assert (main.session_id, sub.session_id) == ("5e5510-1", "5e5510-1")
    notes = read_log_file(LOGS / "claude_code.jsonl").notes
    assert notes["message of a branch that was given up"] == 1
    assert notes["message that neither the user nor the model wrote"] == 1
    assert notes["line of type 'summary', which is no message"] == 1


def test_a_session_goes_on_over_a_compaction_without_its_summary(tmp_path):
    def line(name, parent, kind, text, **more):
        message = {"role": kind, "content": text}
        return {
            "type": kind,
            "uuid": name,
            "parentUuid": parent,
            "sessionId": "s",
            "message": message,
            **more,
        }

    rows = [
        line("a", None, "user", "a bell?"),
        line("b", "a", "assistant", "mended"),
        {"type": "system", "uuid": "c", "parentUuid": None, "logicalParentUuid": "b", "sessionId": "s"},
        line("d", "c", "user", "So far: a bell was mended.", isCompactSummary=True),
        line("e", "d", "user", "a horn?"),
        line("f", "e", "assistant", "mended, too"),
    ]
    (path := tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (trace,) = read_log_file(path).traces
    assert [step.observation for step in trace.attempts[0].steps] == ["a bell?", "a horn?"]


@pytest.mark.parametrize("answer", ["usage_metadata", "usage"])
def test_langsmiths_runs_of_openais_own_client_say_model_and_usage_in_their_values(tmp_path, answer):
    run = {
        "id": "1", "trace_id": "1", "run_type": "llm", "name": "ChatOpenAI", "start_time": "2026-03-02T09:00:00",
        "inputs": {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "go"}]},
        "outputs": {
            "choices": [{"message": {"role": "assistant", "content": "gone"}}],
            answer: {"input_tokens": 3, "output_tokens": 2},
        },
    }  # fmt: skip
    (path := tmp_path / "runs.jsonl").write_text(json.dumps(run))
    (trace,) = read_log_file(path).traces
    used = trace.usage.input_tokens, trace.usage.output_tokens
    assert (trace.answer, trace.candidate_id, used) == ("gone", "imported:gpt-5-mini", (3, 2))


def test_a_session_that_goes_in_rings_or_on_after_its_file_is_read_as_far_as_it_is_there(tmp_path):
    def line(name, parent, kind, text):
        message = {"role": kind, "content": text}
        return {"type": kind, "uuid": name, "parentUuid": parent, "sessionId": "s", "message": message}

    rows = [line("a", "b", "user", "go"), line("b", "a", "assistant", "gone"), line("c", "x", "user", "and?")]
    (tmp_path / "ring.jsonl").write_text("\n".join(map(json.dumps, [*rows[:2], {**rows[1], "uuid": "d"}])))
    (trace,) = read_log_file(tmp_path / "ring.jsonl").traces
    assert trace.answer == "gone"
    (tmp_path / "cut.jsonl").write_text(
        "\n".join(map(json.dumps, [rows[2], line("d", "c", "assistant", "y")]))
    )
    (trace,) = read_log_file(tmp_path / "cut.jsonl").traces
    assert (trace.case.inputs["request"], trace.answer) == ("and?", "y")


def test_tools_of_the_simulated_user_are_not_the_agents_and_are_counted():
    log = read_log_file(LOGS / "tau2_bench.json")
    names = [step.action.name for step in log.traces[0].attempts[0].steps]
    assert names == ["respond", "free_bikes", "respond"]
    assert "The app is open." not in log.traces[0].to_json()
    assert log.notes["message of the user with its own tools, which the agent does not see"] == 2
    wanted = {"actions": [{"name": "free_bikes", "arguments": {"day": "Friday"}}], "outputs": ["2"]}
    assert log.traces[0].case.expected == wanted
    assert (log.traces[0].latency_s, log.traces[0].usage.cost_usd) == (40, 0.01)


def labels_in(name, **settings):
    log = read_log_file(LOGS / name, **settings)
    assert {label.trace_id for label in log.labels} <= {trace.trace_id for trace in log.traces}
    return [(label.source, label.rater, label.score, label.expected) for label in log.labels], log.notes


EXPECTED = "Two cargo bikes are free on Friday."


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("mlflow.json", [("human", "anna", 1, None), ("human", "anna", None, EXPECTED)]),
        ("langfuse.json", [("human", "anna", 1, None), ("human", "anna", None, EXPECTED)]),
        ("langfuse_blob.jsonl", [("human", "anna", 1, None)]),
        ("langsmith.jsonl", [("environment", "feedback_stats", 1, None)]),
        ("otlp.jsonl", [("judge", "otlp", 1, None)]),
        ("openai_fine_tuning.jsonl", [("human", "fine-tuning file", None, SAID)]),
        (
            "openai_preference.jsonl",
            [
                ("human", "preference file", None, SAID),
                ("human", "preference file", 1, None),
                ("human", "preference file", None, SAID),
            ],
        ),
    ],
)
def test_what_people_judges_and_programs_said_comes_along_with_who_said_it(name, labels):
    assert labels_in(name)[0] == labels


def test_who_asked_is_kept():
    users = {name: {trace.user for trace in read_log_file(LOGS / name).traces} for name in TABLE}
    named = {name for name, found in users.items() if found in ({"rider-7"}, {"rider_7"})}
    vendors = {"mlflow.json", "otlp.jsonl", "langfuse.json", "langfuse_blob.jsonl", "langsmith.jsonl"}
    assert named == {"openai_chat.jsonl", "anthropic.jsonl", "tau_bench.json"} | vendors


def test_feedback_under_another_name_is_counted_until_a_project_names_it():
    told = "feedback 'looked_first' not read: name it under [feedback] in ratchet.toml"
    labels, notes = labels_in("langfuse.json")
    assert notes == {told: 1}
    labels, notes = labels_in("langfuse.json", names=FeedbackNames(scores=("thumbs", "looked_first")))
    assert ("environment", "API", 1, None) in labels
    assert notes == {}


def test_a_shell_agents_action_is_a_call_with_what_it_printed():
    looked, done = read_log_file(LOGS / "swe_agent.traj").traces[0].attempts[0].steps
    assert looked.action == Action(name="bash", arguments={"command": "grep -n ring shop.py"})
    assert (looked.thought, looked.result, done.action.name) == (
        "Where is the bell?",
        "12: ring = None",
        "submit",
    )
    log = read_log_file(LOGS / "mini_swe_agent.traj.json")
    assert log.traces[0].attempts[0].steps[0].action == looked.action
    assert log.notes == {"message of role 'exit', not of the run": 1}


def test_a_command_in_a_fenced_block_is_a_call_and_the_next_message_its_result(tmp_path):
    messages = [
        {"role": "system", "content": "One command a turn."},
        {"role": "user", "content": "Mend it."},
        {"role": "assistant", "content": "THOUGHT: look.\n\n```bash\nls -l\n```"},
        {"role": "user", "content": "shop.py"},
        {"role": "assistant", "content": "```bash\na\n``` or ```bash\nb\n```"},
        {"role": "user", "content": "One command, please."},
    ]
    record = {
        "info": {"exit_status": "Submitted"},
        "messages": messages,
        "trajectory_format": "mini-swe-agent-1",
    }
    (path := tmp_path / "run.traj.json").write_text(json.dumps(record, indent=1))
    looked, said = read_log_file(path).traces[0].attempts[0].steps
    assert (looked.action.name, looked.action.arguments) == ("bash", {"command": "ls -l"})
    assert (looked.thought, looked.result) == ("THOUGHT: look.", "shop.py")
    assert (said.action.name, said.result) == ("respond", "One command, please.")
    as_chat = read_log_file(path, format_name="openai-chat").traces[0]
    assert read_log_file(path).traces[0].trace_id == as_chat.trace_id, "as the version before knew it"


def test_a_response_that_was_logged_beside_its_request_is_the_last_message(tmp_path):
    asked = {"model": "m", "messages": [{"role": "user", "content": "go"}]}
    replies = [
        {"choices": [{"message": {"role": "assistant", "content": "gone"}}], "usage": {"prompt_tokens": 3}},
        "gone",
    ]
    for reply in replies:
        for record in ({"request": asked, "response": reply}, {**asked, "response": reply}):
            (path := tmp_path / "log.jsonl").write_text(json.dumps(record))
            log = read_log_file(path)
            assert (log.traces[0].answer, log.traces[0].candidate_id, log.notes) == (
                "gone",
                "imported:m",
                {},
            )
    whole = {"messages": [*asked["messages"], {"role": "assistant", "content": "gone"}]}
    path.write_text(json.dumps(whole))
    (alone,) = read_log_file(path).traces
    path.write_text(json.dumps({**whole, "response": "gone"}))
    log = read_log_file(path)
    assert (log.traces[0].trace_id, log.traces[0].n_steps) == (alone.trace_id, 1), "said once"
    assert log.notes == {"field 'response' not read": 1}


def test_a_field_that_says_something_else_than_its_name_is_counted_and_stops_nothing(tmp_path):
    messages = [{"role": "user", "content": "go"}, {"role": "assistant", "content": "gone"}]
    odd = {
        "user": {"id": 1},
        "expected": float("nan"),
        "thread_id": ["x"],
        "tools": {"a": 1},
        "usage": {"x": 1},
    }
    (path := tmp_path / "log.jsonl").write_text(json.dumps({"messages": messages, **odd}))
    log = read_log_file(path)
    assert log.malformed == ()
    assert log.notes == {f"field {name!r} not read": 1 for name in odd}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"question": "go", "answer": "gone"}\n', "its first record is an object of question, answer"),
        ("[3, 4]", "its first record is a number"),
        (
            '{"observations": [[0.1]], "actions": [1]}\n{}',
            "its first record is an object of observations, actions",
        ),
        ('{"rows": [{"a": 1}]}', "one JSON object, whose lists are rows"),
        ('{}\n{"text": "go"}\n', "its first record is an empty object"),
    ],
)
def test_a_file_of_no_format_is_one_line_with_what_was_looked_for_and_what_was_found(tmp_path, text, found):
    (path := tmp_path / "log.json").write_text(text)
    with pytest.raises(BadInput) as told:
        read_log_file(path)
    said = str(told.value)
    assert found in said
    assert "\n" not in said
    for one in FORMATS:
        assert f"{one.name} ({one.fields})" in said
    with pytest.raises(BadInput, match=re.escape("format 'csv' is none of otlp, ")):
        read_log_file(path, format_name="csv")


def places(value, above=()):
    """Every place in plain data, as the keys that lead to it."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield (*above, key)
        yield from places(one, (*above, key))


def test_whatever_stands_anywhere_in_a_file_it_is_read_or_named_and_never_breaks_the_import(tmp_path):
    odd = (None, 3, "x", [], {}, [3], True, {"a": [1]}, float("inf"))
    draw = random.Random(7)
    for name, (kind, *_) in TABLE.items():
        text = (LOGS / name).read_text()
        rows = [json.loads(x) for x in text.splitlines()] if name.endswith("jsonl") else json.loads(text)
        for *above, last in draw.sample(found := list(places(rows)), min(40, len(found))):
            changed = json.loads(json.dumps(rows))
            holder = reduce(lambda value, key: value[key], above, changed)
            holder[last] = draw.choice(odd)
            (path := tmp_path / "odd.json").write_text(json.dumps(changed))
            for forced in (kind, None):
                with contextlib.suppress(BadInput):  # one clear line
                    read_log_file(path, format_name=forced)
