"""One chat request and its answer as they went over the wire, and the trace that they are.

Decision: the journal keeps the bytes, and another process makes the trace of them: whoever waits for an answer does
not wait for that, and what cannot be read as a chat is kept, and told, as the text that it was.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from pydantic import TypeAdapter

from ratchet.agent.case import Case
from ratchet.agent.environment import respond
from ratchet.agent.kinds.answering import asked
from ratchet.agent.kinds.chat import answer_of
from ratchet.agent.kinds.chat_request import case_inputs
from ratchet.agent.trace import Attempt, RunError, Step, Trace, Usage


@dataclass(slots=True)
class Exchange:
    """A request as the caller sent it, and what the upstream answered."""

    trace_id: str
    at: float
    """When it came, in seconds since 1970."""
    latency_s: float
    candidate_id: str
    memory_id: str | None
    session_id: str | None
    recalled: tuple[str, ...]
    request: str
    answer: str
    """The body of the answer; of a stream its events."""
    is_stream: bool
    status: int
    error: str | None = None
    """Why there is no whole answer; None = there is."""

    def line(self) -> bytes:
        """As the journal keeps it."""
        return orjson.dumps({"exchange": self}, option=orjson.OPT_APPEND_NEWLINE)


EXCHANGE: Final = TypeAdapter(Exchange)


def as_trace(exchange: Exchange) -> Trace:
    """The exchange as a trace like any other."""
    sent = _json(exchange.request)
    inputs = case_inputs(sent) or {"request": exchange.request}
    answer = _from_events(exchange.answer) if exchange.is_stream else _json(exchange.answer)
    message = _message(answer)
    steps = () if message is None else (Step(observation=asked(inputs), action=respond(answer_of(message))),)
    usage = answer.get("usage")
    used = usage if isinstance(usage, dict) else {}
    return Trace(
        trace_id=exchange.trace_id,
        case=Case(inputs=inputs),
        candidate_id=exchange.candidate_id,
        memory_id=exchange.memory_id,
        session_id=exchange.session_id,
        started_at=datetime.fromtimestamp(exchange.at, UTC),
        latency_s=exchange.latency_s,
        usage=Usage(
            input_tokens=_count(used, "prompt_tokens"),
            output_tokens=_count(used, "completion_tokens"),
            lm_calls=1,
        ),
        attempts=(Attempt(steps=steps, recalled=exchange.recalled),) if steps else (),
        error=_error(exchange, bool(steps)),
    )


def _error(exchange: Exchange, has_answer: bool) -> RunError | None:
    """The upstream's and the network's failures are nobody's answer: they are excluded, not counted as wrong."""
    if exchange.error is not None:
        return RunError(kind="infrastructure", message=exchange.error)
    if exchange.status >= 400:
        said = f"the upstream answered {exchange.status}: {exchange.answer[:500]}"
        return RunError(kind="infrastructure", message=said)
    if not has_answer:
        said = f"the upstream's answer holds no message: {exchange.answer[:500]}"
        return RunError(kind="infrastructure", message=said)
    return None


def _message(answer: Mapping[str, Any]) -> dict[str, Any] | None:
    """That of the first choice."""
    choices = answer.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    return message if isinstance(message, dict) else None


def _from_events(text: str) -> dict[str, Any]:
    """The answer that a stream's events add up to."""
    content: list[str] = []
    calls: dict[int, dict[str, Any]] = {}
    usage: Any = None
    spoke = False
    for line in text.split("\n"):
        event = _json(line.removeprefix("data:")) if line.startswith("data:") else {}
        usage = event.get("usage") or usage
        for choice in event.get("choices") or ():
            if not isinstance(choice, dict) or choice.get("index", 0) != 0:
                continue
            delta = choice.get("delta") or {}
            spoke = True
            if isinstance(delta.get("content"), str):
                content.append(delta["content"])
            _add_calls(calls, delta.get("tool_calls") or ())
    message = {"content": "".join(content), "tool_calls": [calls[index] for index in sorted(calls)]}
    return {"choices": [{"message": message}] if spoke else [], "usage": usage}


def _add_calls(calls: dict[int, dict[str, Any]], deltas: Any) -> None:
    for delta in deltas:
        function = delta.get("function") or {}
        known = calls.setdefault(int(delta.get("index", 0)), {"function": {"name": "", "arguments": ""}})
        for key in ("name", "arguments"):
            known["function"][key] += function.get(key) or ""


def _json(text: str) -> dict[str, Any]:
    """The object that the text is; an empty one where it is none, or holds what a record cannot."""
    try:
        found = orjson.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _count(used: Mapping[str, Any], name: str) -> int:
    value = used.get(name)
    return value if isinstance(value, int) and value >= 0 else 0
