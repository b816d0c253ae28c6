"""Parts of `ratchet serve` without a process: who answers a session, what a stream says, what a full disk does."""

import asyncio
import errno
import os
import time
from pathlib import Path

import pytest

from ratchet.agent.errors import BadInput, ServiceUnavailable
from ratchet.infra.serve.backlog import count_left_behind, left_behind, own
from ratchet.infra.serve.deployments import Deployed, Deployments
from ratchet.infra.serve.exchange import Exchange, as_trace
from ratchet.infra.serve.guard import check_bind
from ratchet.infra.serve.http import Refused
from ratchet.infra.serve.journal import Journal


def exchange(**changes) -> Exchange:
    fields = {
        "trace_id": "0" * 32,
        "at": time.time(),
        "latency_s": 0.1,
        "candidate_id": "c0ffee",
        "memory_id": None,
        "session_id": "s",
        "recalled": (),
        "request": '{"messages": [{"role": "user", "content": "where?"}]}',
        "answer": "{}",
        "is_stream": False,
        "status": 200,
    }
    return Exchange(**(fields | changes))


def test_a_session_stays_with_its_version_and_the_canary_gets_its_share():
    deployments = Deployments("p", canary_share=0.25)
    with pytest.raises(Refused, match="no version loaded"):
        deployments.pick("ratchet/p", "s")
    one, two = (Deployed(number, None, f"id{number}", None) for number in (1, 2))
    deployments.switch({"champion": one, "canary": two}, [1, 2])
    picked = [deployments.pick("ratchet/p", f"session {number}") for number in range(1000)]
    assert picked == [deployments.pick("ratchet/p", f"session {number}") for number in range(1000)]
    assert 200 < picked.count(two) < 300
    assert deployments.pick("ratchet/p", None) is one
    three, began = Deployed(3, None, "id3", None), f"session {picked.index(one)}"
    deployments.switch({"champion": three}, [3, 1])  # 1 is `previous`, 2 was withdrawn
    assert deployments.pick("ratchet/p", began) is one
    assert {
        deployments.pick("ratchet/p", name) for name in (None, "new", f"session {picked.index(two)}")
    } == {three}
    deployments.switch({"champion": two, "canary": two}, [2])
    assert deployments.pick("ratchet/p", began) is two, "what was rolled back loses its sessions at once"
    assert {deployments.pick(f"ratchet/p@{name}", "s") for name in ("canary", "id2", "2", "v2")} == {two}
    for unknown in ("gpt-5", "ratchet/q", "ratchet/p@3", None, 7):
        with pytest.raises(Refused, match="is not served here"):
            deployments.pick(unknown, "s")


def test_a_stream_of_tool_calls_is_put_together_and_what_is_no_chat_is_kept_as_text():
    events = """data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"look_up","arguments":"{\\"or"}}]}}]}

data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"der\\": 1}"}}]}}]}

data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}

data: [DONE]
"""
    called = as_trace(exchange(answer=events, is_stream=True))
    assert called.answer == {"tool_calls": [{"name": "look_up", "arguments": {"order": 1}}]}
    assert (called.usage.input_tokens, called.usage.output_tokens) == (3, 2)
    odd = as_trace(exchange(request="[]", answer="<html>"))
    assert (odd.case.inputs, odd.error.kind, odd.attempts) == ({"request": "[]"}, "infrastructure", ())
    cut = as_trace(exchange(answer=events[:160], is_stream=True, status=499, error="the caller left"))
    assert cut.error.message == "the caller left"


def test_what_the_disk_does_not_take_is_not_acknowledged_and_what_it_took_is_read_once(tmp_path, monkeypatch):
    full = False
    written = os.fdatasync

    def fdatasync(descriptor: int) -> None:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        written(descriptor)

    monkeypatch.setattr(os, "fdatasync", fdatasync)

    async def write() -> Path:
        nonlocal full
        journal = Journal(tmp_path)
        await asyncio.gather(*(journal.commit(b"%d\n" % number) for number in range(100)))
        full = True
        with pytest.raises(ServiceUnavailable, match="NOT saved"):
            await journal.commit(b"lost\n")
        full = False
        await journal.commit(b"last\n")
        assert not list(left_behind(tmp_path, tmp_path)), "its writer lives"
        await journal.close()
        return journal.folder

    folder = asyncio.run(write())
    with (folder / "000000000101-000009.jsonl").open("wb") as torn:
        torn.write(b"whole\ntor")
    assert count_left_behind(tmp_path) == 102
    [backlog] = left_behind(tmp_path, tmp_path)
    lines = [line for batch in backlog.batches(30) for line in batch]
    assert lines == [*(b"%d\n" % number for number in range(100)), b"last\n", b"whole\n"]
    backlog.finish()
    assert not list(tmp_path.iterdir())


def test_other_machines_are_refused_without_a_key():
    check_bind("127.0.0.1", ())
    check_bind("::1", ())
    check_bind("0.0.0.0", ("key",))
    for host in ("0.0.0.0", "::", "example.org", "127.0.0.1.example.org"):
        with pytest.raises(BadInput, match="RATCHET_SERVE_KEYS is empty"):
            check_bind(host, ())


def test_one_sender_at_a_time(tmp_path):
    async def write() -> None:
        journal = Journal(tmp_path)
        mine = own(journal.folder)
        await journal.close()
        assert not list(left_behind(tmp_path, tmp_path)), "its sender lives"
        mine.finish_if_left()

    asyncio.run(write())
    assert not list(tmp_path.iterdir())
