"""What one span says, in the forms of which there is no recording: older conventions, other libraries, garbage."""

import json
import random
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ratchet.agent.errors import BadInput
from ratchet.infra.traces.conversation import trace_of
from ratchet.infra.traces.dialects import mlflow_export, otlp
from ratchet.infra.traces.dialects.library_values import answer_in, lm_call_of
from ratchet.infra.traces.dialects.reading import conversation_of
from ratchet.infra.traces.dialects.span import RawSpan, nested
from ratchet.infra.traces.formats.format import misshapen_told

RECORDINGS = Path(__file__).parent / "traces" / "recordings"
NOW = datetime(2026, 11, 25, tzinfo=UTC)
FUNCTION = {"name": "find", "arguments": '{"n": 1}'}
CALLS = [{"id": "c1", "type": "function", "function": FUNCTION}]


def span(attributes=None, events=(), name="chat", span_id="a", parent=None, start=1, error=None):
    return RawSpan(span_id, parent, name, start, start + 1, attributes or {}, events, error)


def said(conversation):
    return [(m.role, m.text, [c.name for c in m.calls], [a.text for a in m.answers]) for m in conversation]


WHOLE = [
    ("user", "where?", [], []),
    ("assistant", "", ["find"], []),
    ("tool", "", [], ["here"]),
    ("assistant", "Here.", [], []),
]
EVENTS = (
    ("gen_ai.system.message", {"content": "Be kind."}),
    ("gen_ai.user.message", {"content": "where?"}),
    ("gen_ai.assistant.message", {"tool_calls": json.dumps(CALLS)}),
    ("gen_ai.tool.message", {"content": "here", "id": "c1"}),
    ("gen_ai.choice", {"index": 0, "message": json.dumps({"content": "Here."})}),
)
PLAIN = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "where?"},
    {"role": "assistant", "content": None, "tool_calls": CALLS},
    {"role": "tool", "content": "here", "tool_call_id": "c1"},
]
PYDANTIC = [{"event.name": name, **event} for name, event in EVENTS]
PARTS = [
    {"role": "user", "parts": [{"type": "text", "content": "where?"}]},
    {
        "role": "assistant",
        "parts": [{"type": "tool_call", "id": "c1", "name": "find", "arguments": {"n": 1}}],
    },
    {"role": "user", "parts": [{"type": "tool_call_response", "id": "c1", "result": "here"}]},
]
REPLY = [{"role": "assistant", "parts": [{"type": "text", "content": "Here."}], "finish_reason": "stop"}]
TOLD = [{"type": "text", "content": "Be kind."}]
INFERENCE = "gen_ai.client.inference.operation.details"
NEW = {
    "gen_ai.input.messages": json.dumps(PARTS),
    "gen_ai.output.messages": json.dumps(REPLY),
    "gen_ai.system_instructions": json.dumps(TOLD),
}


@pytest.mark.parametrize(
    "one",
    [
        span({"gen_ai.system": "openai"}, EVENTS),
        span({"gen_ai.system": "openai", "events": json.dumps(PYDANTIC)}),
        span({"gen_ai.prompt": json.dumps(PLAIN), "gen_ai.completion": json.dumps([{"content": "Here."}])}),
        span({"gen_ai.operation.name": "chat"}, [(INFERENCE, NEW)]),
        span({name: json.loads(value) for name, value in NEW.items()}),
        span({"pydantic_ai.all_messages": json.dumps([{"role": "system", "parts": TOLD}, *PARTS, *REPLY])}),
    ],
    ids=[
        "events",
        "events in JSON",
        "prompt and completion",
        "log event",
        "plain values",
        "an agent's span alone",
    ],
)
def test_every_age_of_the_genai_conventions_tells_the_same(one):
    told = conversation_of([one])
    roles = [(("tool" if answers else role), *rest, answers) for role, *rest, answers in said(told.messages)]
    assert (told.system, roles) == ("Be kind.", WHOLE)


def test_a_call_whose_content_was_not_captured_is_said_with_the_remedy():
    told = conversation_of([span({"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"})])
    assert told.lm_calls == ()
    (note,) = told.notes
    assert "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT" in note


USER = {"role": "user", "content": "where?"}
BY_LIBRARY = {
    "anthropic": (
        {"system": "Be kind.", "messages": [USER], "model": "m"},
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "c1", "name": "find", "input": {"n": 1}}],
        },
    ),
    "gemini": (
        {
            "contents": [{"role": "user", "parts": [{"text": "where?"}]}],
            "config": {"system_instruction": "Be kind."},
        },
        {
            "candidates": [
                {"content": {"role": "model", "parts": [{"function_call": {"name": "find", "args": {}}}]}}
            ]
        },
    ),
    "langchain": (
        {
            "messages": [
                [
                    {"lc": 1, "id": ["x", "SystemMessage"], "kwargs": {"content": "Be kind."}},
                    {"lc": 1, "id": ["x", "HumanMessage"], "kwargs": {"content": "where?", "type": "human"}},
                ]
            ]
        },
        {
            "generations": [
                [
                    {
                        "text": "",
                        "message": {
                            "lc": 1,
                            "id": ["x", "AIMessage"],
                            "kwargs": {
                                "content": "",
                                "tool_calls": [{"name": "find", "args": {}, "id": "c1"}],
                            },
                        },
                    }
                ]
            ]
        },
    ),
    "responses": (
        {"model": "m", "instructions": "Be kind.", "input": "where?"},
        {"output": [{"type": "function_call", "call_id": "c1", "name": "find", "arguments": "{}"}]},
    ),
    "openai": (
        {"messages": [{"role": "system", "content": "Be kind."}, USER]},
        {"choices": [{"message": {"role": "assistant", "content": None, "tool_calls": CALLS}}]},
    ),
}


@pytest.mark.parametrize("name", BY_LIBRARY)
def test_a_librarys_own_request_and_reply_are_read(name):
    asked, answered = BY_LIBRARY[name]
    call = lm_call_of(json.dumps(asked), answered, notes := Counter())
    assert (call.system, said(call.messages), dict(notes)) == ("Be kind.", WHOLE[:2], {})


def test_results_are_joined_by_name_and_arguments_and_never_by_place():
    calls = [{"id": None, "function": {"name": "find", "arguments": f'{{"n": {n}}}'}} for n in (1, 2)]
    asked = {"messages": [USER]}
    answer = {"choices": [{"message": {"role": "assistant", "content": None, "tool_calls": calls}}]}
    lm = span({"mlflow.spanType": "LLM", "mlflow.spanInputs": asked, "mlflow.spanOutputs": answer})
    runs = [
        span(
            {"mlflow.spanType": "TOOL", "mlflow.spanInputs": {"n": n}, "mlflow.spanOutputs": f"of {n}"},
            (),
            "find",
            str(n),
            None,
            5 - n,
        )
        for n in (2, 1)
    ]
    told = conversation_of([lm, *runs])
    trace, _ = trace_of(told, trace_id="0" * 32, candidate_id="x", seen_at=NOW)
    results = [(step.action.arguments, step.result) for step in trace.attempts[0].steps]
    assert results == [({"n": 1}, "of 1"), ({"n": 2}, "of 2")]


def test_flattened_attributes_become_what_they_were():
    flat = {
        "x.0.role": "user",
        "x.0.calls.0.name": "f",
        "x.1": "text",
        "x.10.role": "z",
        "x.2.role": "y",
        "other": 1,
    }
    assert nested(flat, "x.") == [
        {"role": "user", "calls": [{"name": "f"}]},
        "text",
        {"role": "y"},
        {"role": "z"},
    ]
    assert nested({"x.a": 1, "x.a.b": 2}, "x.") == {"a": {"": 1, "b": 2}}


def test_a_reply_that_a_function_gave_back_is_its_text_and_other_values_stay():
    assert answer_in({"type": "ai", "content": "Here.", "id": "1"}) == "Here."
    assert answer_in({"messages": [USER, {"type": "ai", "content": "Here."}]}) == "Here."
    assert answer_in({"answer": "Here."}) == {"answer": "Here."}
    assert answer_in("Here.") == "Here."


JUNK = [
    None,
    "",
    0,
    -1,
    True,
    [],
    {},
    [[]],
    [None],
    "{",
    "[1]",
    '{"role": 3}',
    [{"role": None}],
    "\ud83d",
    10**40,
    float("nan"),
]


def spoiled(value, rng, share):
    if rng.random() < share:
        return rng.choice(JUNK)
    if isinstance(value, dict):
        return {key: spoiled(one, rng, share) for key, one in value.items()}
    return [spoiled(one, rng, share) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", sorted(path.stem for path in RECORDINGS.glob("*.json")))
def test_whatever_stands_in_a_span_it_is_read_or_refused_in_one_line(name):
    whole, rng = json.loads((RECORDINGS / f"{name}.json").read_text()), random.Random(7)
    dialect, records = (mlflow_export, whole) if isinstance(whole, list) else (otlp, [whole])
    for share in (0.003, 0.003, 0.02, 0.02, 0.1):
        kept = [one for one in spoiled(records, rng, share) or [] if dialect.looks_like(one)]
        try:
            with misshapen_told():
                for told in dialect.conversations(kept):
                    trace_of(told, trace_id="0" * 32, candidate_id="x", seen_at=NOW)
        except BadInput:
            continue
