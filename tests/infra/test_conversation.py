"""Conversations of any origin: one list of messages, the conversations of an agent with several prompts, a trace."""

from datetime import UTC, datetime

import pytest

from ratchet.agent.environment import Action
from ratchet.agent.errors import BadInput
from ratchet.infra.traces.chat_messages import RESPOND
from ratchet.infra.traces.chat_parts import to_message
from ratchet.infra.traces.conversation import Conversation, trace_of
from ratchet.infra.traces.lm_calls import LmCall, threads

NOW = datetime(2026, 11, 25, tzinfo=UTC)


def said(role, text, **more):
    return to_message({"role": role, "content": text, **more})


def call(*given, answer, system="Be kind.", **more):
    return LmCall(system=system, given=given, answer=said("assistant", answer), **more)


def trace(conversation, **given):
    return trace_of(conversation, trace_id="0" * 32, candidate_id="unknown", seen_at=NOW, **given)[0]


def test_a_message_in_opentelemetrys_form_is_read_back_equal_and_keeps_what_it_does_not_know():
    parts = [
        {"type": "reasoning", "content": "hm"},
        {"type": "text", "content": "look"},
        {"type": "tool_call", "id": "7", "name": "search", "arguments": '{"to": "OSL"}'},
        {"type": "server_thing", "payload": [1]},
    ]
    message = to_message({"role": "assistant", "parts": parts})
    assert list(message.parts) == parts
    assert to_message({"role": message.role, "parts": message.parts}) == message
    assert (message.thought, message.calls[0].arguments) == ("hm", '{"to": "OSL"}')
    assert message.text == 'look\n{"type": "server_thing", "payload": [1]}'


def test_calls_that_repeat_the_history_are_one_conversation_and_another_prompt_is_another():
    first = call(said("user", "a"), answer="b")
    second = call(*first.messages, said("user", "c"), answer="d")
    other = call(said("user", "a"), answer="e", system="Summarize.")
    found = threads([first, other, second])
    assert [[m.text for m in one.messages] for one in found] == [["a", "b", "c", "d"], ["a", "e"]]


def test_a_call_whose_history_the_provider_kept_goes_on_with_it():
    first = call(said("user", "a"), answer="b", response_id="r1")
    second = call(said("user", "c"), answer="d", follows="r1", system="")
    (whole,) = threads([first, second])
    assert [m.text for m in whole.messages] == ["a", "b", "c", "d"]
    assert whole.system == "Be kind."


def test_each_prompt_of_an_agent_keeps_its_own_steps_where_its_text_is_known():
    plan = call(said("user", "trip"), answer="Oslo", system="Plan.")
    write = call(said("user", "Oslo"), answer="Dear all", system="Write.")
    conversation = Conversation(messages=write.messages, system="Write.", lm_calls=(plan, write))
    steps = trace(conversation, actor_of={"Plan.": "planner"}.get).attempts[0].steps
    assert [(s.actor, s.observation, s.action.arguments["content"]) for s in steps] == [
        ("planner", "trip", "Oslo"),
        ("agent", "Oslo", "Dear all"),
    ]


def test_what_a_function_gave_back_ends_the_steps_once():
    conversation = Conversation(messages=(said("user", "2+2?"), said("assistant", "4")))
    assert trace(conversation, answer="4").n_steps == 1
    ended = trace(conversation, answer={"sum": 4})
    assert ended.action == Action(name=RESPOND, arguments={"content": {"sum": 4}})
    assert ended.attempts[0].steps[-1].observation == "4"
    silent = trace(Conversation(inputs={"question": "2+2?"}), answer=4)
    assert (silent.attempts[0].steps[0].observation, silent.n_steps) == ("2+2?", 1)


def test_a_conversation_in_which_nobody_acted_is_refused_and_a_failed_one_is_a_failure():
    with pytest.raises(BadInput, match="nobody acted"):
        trace(Conversation(messages=(said("user", "hello?"),)))
    assert trace(Conversation(error="ValueError: no such tool")).error.kind == "agent"
    assert trace(Conversation(error="APIConnectionError: Connection error.")).error.kind == "infrastructure"


def test_a_trace_without_system_and_tools_is_written_as_before(make_trace):
    assert '"system"' not in make_trace().to_json()
    assert '"tools"' not in make_trace().to_json()
    told = trace(Conversation(system="Be kind.", messages=(said("assistant", "hi"),)))
    assert '"system":"Be kind."' in told.to_json()
