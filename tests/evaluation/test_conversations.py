"""Calls of one conversation: only the last is an agent's case."""

from datetime import UTC, datetime

from ratchet.agent.case import Case
from ratchet.agent.trace import Trace
from ratchet.evaluation.data.conversations import earlier_calls


def call(number, *said, session="s", system="You are an agent."):
    roles = ["user" if n % 2 == 0 else "assistant" for n in range(len(said))]
    messages = [{"role": role, "content": text} for role, text in zip(roles, said, strict=True)]
    return Trace(
        trace_id=f"{number:032x}",
        case=Case(inputs={"messages": [{"role": "system", "content": system}, *messages]}),
        candidate_id="c",
        session_id=session,
        started_at=datetime.now(UTC),
        latency_s=0.1,
    )


def earlier(*traces):
    return {int(one, 16) for one in earlier_calls(traces)}


def test_of_a_conversation_every_call_but_the_last_is_an_earlier_one():
    turns = ("Hello.", "Hi!", "Where is my parcel?", "In Oslo.", "Thanks.")
    calls = [call(n, *turns[: 2 * n + 1], system=f"It is {n} o'clock.") for n in range(3)]
    assert earlier(*calls[::-1]) == {0, 1}
    assert earlier(*calls[:2]) == {0}


def test_another_conversation_of_the_session_or_of_another_has_its_own_last_call():
    assert earlier(call(1, "Hello."), call(2, "Hello?", "Hi!", "Bye.")) == set()
    assert earlier(call(1, "Hello."), call(2, "Hello.", "Hi!", "Bye.", session="t")) == set()
    assert earlier(call(1, "Hello.", session=None), call(2, "Hello.", "Hi!", "Bye.", session=None)) == set()
    assert earlier(call(1, "Hello."), call(2, "Hello.")) == set()


def test_what_is_no_conversation_is_left_alone(make_trace):
    assert earlier_calls([make_trace(), call(1)]) == set()
