"""Which requests to a chat endpoint were the last of their conversation, so far: those are an agent's cases.

Decision: a request is an earlier call where another of its session begins with the same messages and goes on. What is
asked of an agent in one conversation is asked once; of several conversations in one session each has its last call.
The system's messages are not compared: they may tell the time.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator

from ratchet.agent.record import Json
from ratchet.agent.trace import Trace

_TOLD = ("system", "developer")


def earlier_calls(traces: Iterable[Trace]) -> set[str]:
    """Ids of the traces from which another one of the same session went on; without a session none is told."""
    whole: dict[str, tuple[str | None, str]] = {}
    begun: set[tuple[str | None, str]] = set()
    for trace in traces:
        messages = trace.case.inputs.get("messages")
        if trace.session_id is None or not isinstance(messages, list):
            continue
        *before, last = _beginnings(messages)
        begun |= {(trace.session_id, one) for one in before}
        whole[trace.trace_id] = (trace.session_id, last)
    return {trace_id for trace_id, place in whole.items() if place in begun}


def _beginnings(messages: list[Json]) -> Iterator[str]:
    """A hash of the conversation up to each of its messages; the last is that of all."""
    told = hashlib.sha256()
    yield ""
    for message in messages:
        if isinstance(message, dict) and message.get("role") in _TOLD:
            continue
        told.update(json.dumps(message, sort_keys=True, ensure_ascii=False).encode() + b"\n")
        yield told.hexdigest()
