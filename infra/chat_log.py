"""Real logs in: conversations in OpenAI's chat format, one a line or in one JSON array, as traces.

Why every fault names its record and nothing is guessed: a log that is half read looks like a worse agent. What
the agent itself did wrong (arguments that are no JSON, a call that failed) is data and is kept as it was.
"""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from agent.environment import Case, Outcome
from agent.errors import BadInput
from agent.record import Record, as_json, content_hash
from agent.trace import IMPORTED, Attempt, Trace
from infra.chat_messages import fault_of, text_of, to_steps

_MESSAGES: Final = ("messages", "traj", "trajectory", "conversation")
_SCORES: Final = ("reward", "score", "outcome", "success")
_TASKS: Final = ("task_id", "task", "session_id", "conversation_id")
_TIMES: Final = ("created_at", "timestamp", "created", "started_at")


class Malformed(Record):
    """A record that cannot be read."""

    number: int
    """Its line, or in a JSON array its place, from 1."""
    reason: str


class ChatLog(Record):
    """What a file holds."""

    traces: tuple[Trace, ...]
    malformed: tuple[Malformed, ...]
    unit: str
    """What the numbers count: `line` or `record`."""

    @property
    def n_records(self) -> int:
        """Readable or not."""
        return len(self.traces) + len(self.malformed)


def read_chat_log(path: Path, *, project: str = "", agent: str | None = None) -> ChatLog:
    """The file's conversations as traces; the same conversation has the same id in every file, one in each project.

    A record is an object with `messages` (or `traj`, `trajectory`, `conversation`), and, where known, `reward`
    (or `score`, `outcome`, `success`) in [0, 1], `task_id` (or `task`, `session_id`), which groups the trials of one
    task as a session, `trial`, `model` and `created_at`.

    Args:
        path: a JSON array, or JSON lines.
        project: whose traces they become; MLflow's trace ids are shared by all projects.
        agent: who acted; None = the record's `model`, or the file's name.

    Raises:
        BadInput: no such file, or nothing in it.
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    seen_at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    traces: list[Trace] = []
    malformed: list[Malformed] = []
    unit = "record" if _is_array(path) else "line"
    for number, raw in _array(path) if unit == "record" else _lines(path):
        try:
            record = _parsed(raw) if isinstance(raw, bytes) else raw
            trace = to_trace(record, agent=agent or path.stem, named=agent is not None, seen_at=seen_at)
            traces.append(
                trace.model_copy(update={"trace_id": content_hash([project, trace.trace_id], length=32)})
            )
        except BadInput as error:
            malformed.append(Malformed(number=number, reason=str(error)))
    if not traces and not malformed:
        raise BadInput(f"{path}: nothing in it; give a JSON array or JSON lines of conversations")
    return ChatLog(traces=tuple(traces), malformed=tuple(malformed), unit=unit)


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise BadInput(f"not JSON in UTF-8 ({error})") from None


def to_trace(record: Any, *, agent: str, named: bool, seen_at: datetime) -> Trace:
    """One conversation as a trace with one attempt.

    Raises:
        BadInput: it is not a conversation with at least one message of the assistant; says what is missing.
    """
    if not isinstance(record, dict):
        raise BadInput(f"{type(record).__name__} instead of an object with `messages`")
    messages = _messages(record)
    try:
        as_json(messages)
    except ValueError as error:
        raise BadInput(str(error)) from None
    steps = to_steps(messages)
    if not steps:
        raise BadInput("no message of the assistant: nobody acted")
    task = _first(record, _TASKS)
    request = next((text_of(m) for m in messages if m["role"] == "user"), "")
    inputs = {"request": request} | ({} if task is None else {"task": str(task)})
    origin = [messages, inputs, record.get("trial")]
    return Trace(
        trace_id=content_hash(["imported", *origin], length=32),
        case=Case(inputs=inputs),
        candidate_id=_actor(record, agent, named=named),
        session_id=None if task is None else str(task),
        started_at=_time(record) or seen_at,
        latency_s=0,
        attempts=(Attempt(steps=tuple(steps), outcome=Outcome(score=_score(record))),),
    )


def _messages(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    messages = _first(record, _MESSAGES)
    if not isinstance(messages, list):
        raise BadInput(f"no list of messages; looked for {', '.join(_MESSAGES)} among {sorted(record)[:8]}")
    for place, message in enumerate(messages, 1):
        problem = fault_of(message)
        if problem:
            raise BadInput(f"message {place}: {problem}")
    return messages


def _score(record: Mapping[str, Any]) -> float | None:
    given = _first(record, _SCORES)
    if given is None:
        return None
    if not isinstance(given, int | float) or not 0 <= given <= 1:
        raise BadInput(
            f"reward {given!r:.40} is not a number in [0, 1]; scale it, or leave it out if it is not known"
        )
    return float(given)


def _time(record: Mapping[str, Any]) -> datetime | None:
    given = _first(record, _TIMES)
    if given is None:
        return None
    try:
        moment = (
            datetime.fromtimestamp(given, UTC)
            if isinstance(given, int | float)
            else datetime.fromisoformat(given)
        )
    except (TypeError, ValueError, OverflowError, OSError):
        raise BadInput(f"time {given!r:.40} is neither ISO 8601 nor seconds since 1970") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _actor(record: Mapping[str, Any], agent: str, *, named: bool) -> str:
    model = record.get("model")
    return f"{IMPORTED}{model if isinstance(model, str) and not named else agent}"


def _first(record: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((record[name] for name in names if record.get(name) is not None), None)


def _is_array(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")


def _array(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        yield from enumerate(json.loads(path.read_text(encoding="utf-8-sig")), 1)
    except ValueError as error:
        raise BadInput(
            f"{path}: not one JSON array in UTF-8 ({error}); mend it, or write one record a line"
        ) from None


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, line.removeprefix(b"\xef\xbb\xbf")
