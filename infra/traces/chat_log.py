"""Real logs in: conversations, one a line, in one JSON array or object, or in Parquet, as traces.

Why every fault names its record and nothing is guessed: a log that is half read looks like a worse agent. What
the agent itself did wrong (arguments that are no JSON, a call that failed) is data and is kept as it was; what was
not read, or not whole, is counted and said.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from pydantic import Field

from ratchet.agent.case import Case
from ratchet.agent.environment import Outcome
from ratchet.agent.errors import BadInput
from ratchet.agent.record import Record, as_json, content_hash
from ratchet.agent.trace import IMPORTED, Attempt, Trace
from ratchet.infra.files import cells
from ratchet.infra.files.table import TableFile
from ratchet.infra.traces.chat_messages import to_steps
from ratchet.infra.traces.chat_parts import ChatMessage, to_message

_MESSAGES: Final = ("messages", "traj", "trajectory", "conversation", "conversations")
_SCORES: Final = ("reward", "score", "outcome", "success")
_SCORED_IN: Final = "reward_info"
"""Where tau2 keeps the reward."""
_TASKS: Final = ("task_id", "task", "session_id", "conversation_id")
_TIMES: Final = ("created_at", "timestamp", "created", "started_at")
_OTHERS: Final = ("model", "trial", "id")


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
    """What the numbers count: `line`, `record` or `row`."""
    notes: dict[str, int] = Field(default_factory=dict)
    """What was not read or not kept whole, in words, with how often."""

    @property
    def n_records(self) -> int:
        """Readable or not."""
        return len(self.traces) + len(self.malformed)


def read_chat_log(path: Path, *, project: str = "", agent: str | None = None) -> ChatLog:
    """The file's conversations as traces; the same conversation has the same id in every file, one in each project.

    A record is an object with `messages` (or `traj`, `trajectory`, `conversation`, ShareGPT's `conversations`), and,
    where known, `reward` (or `score`, `outcome`, `success`, or tau2's `reward_info.reward`) in [0, 1], `task_id` (or
    `task`, `session_id`), which groups the trials of one task as a session, `trial`, `model` and `created_at`.
    Records that differ in the reward alone are trials of their own, in whatever order they stand.

    Args:
        path: JSON lines, a JSON array, one object that holds a list of records, an array of messages (then it is one
            conversation), or Parquet.
        project: whose traces they become; MLflow's trace ids are shared by all projects.
        agent: who acted; None = the record's `model`, or the file's name.

    Raises:
        BadInput: no such file, or nothing in it.
    """
    table = TableFile(path, is_record=_is_conversation, otherwise=".jsonl")
    seen_at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    traces: list[Trace] = []
    malformed: list[Malformed] = []
    notes: Counter[str] = Counter()

    def fault(number: int, reason: str) -> None:
        malformed.append(Malformed(number=number, reason=reason))

    for number, record in _conversations(table.records(fault), table):
        try:
            trace, told = to_trace(
                record,
                agent=agent or path.stem,
                named=agent is not None,
                seen_at=seen_at,
                decimal_comma=table.decimal_comma,
            )
        except BadInput as error:
            fault(number, str(error))
            continue
        traces.append(trace)
        notes += told
    if not traces and not malformed:
        raise BadInput(f"{path}: nothing in it; give a JSON array or JSON lines of conversations")
    if table.container is not None:
        notes[f"JSON object of which only the list {table.container!r} was read"] = 1
    if table.mended:
        notes["record with half a character in it, replaced by \ufffd"] = table.mended
    named = [
        trace.model_copy(update={"trace_id": content_hash([project, trace.trace_id], length=32)})
        for trace in _told_apart(traces, notes)
    ]
    malformed.sort(key=lambda one: one.number)
    return ChatLog(traces=tuple(named), malformed=tuple(malformed), unit=table.unit, notes=dict(notes))


def _conversations(records: Iterator[tuple[int, Any]], table: TableFile) -> Iterator[tuple[int, Any]]:
    """The records; an array of messages is one."""
    first = next(records, None)
    if first is None:
        return
    if table.unit == "record" and table.container is None and _is_message(first[1]):
        yield 1, [first[1], *(record for _, record in records)]
        return
    yield first
    yield from records


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and "role" in value and _first(value, _MESSAGES) is None


def _is_conversation(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and _is_message(value[0])
    return isinstance(value, dict) and any(isinstance(value.get(name), list) for name in _MESSAGES)


def _told_apart(traces: Sequence[Trace], notes: Counter[str]) -> list[Trace]:
    """Trials alike but for their reward get ids of their own, the best first; repeats and later labels do not."""
    alike: dict[str, list[Trace]] = {}
    for trace in traces:
        alike.setdefault(trace.trace_id, []).append(trace)
    found = []
    for trace_id, group in alike.items():
        scores = {trace.score for trace in group if trace.score is not None}
        ordered = sorted(group, key=lambda trace: -1.0 if trace.score is None else trace.score, reverse=True)
        if len(scores) < 2:
            found += [ordered[0]] * len(group)
            continue
        notes["record like another but for its reward, kept as a trial of its own"] += len(group) - 1
        for place, trace in enumerate(ordered):
            name = content_hash([trace_id, "trial", place], length=32) if place else trace_id
            found.append(trace.model_copy(update={"trace_id": name}))
    return found


def to_trace(
    record: Any, *, agent: str, named: bool, seen_at: datetime, decimal_comma: bool = False
) -> tuple[Trace, Counter[str]]:
    """One conversation as a trace with one attempt, and what of it was not read.

    Raises:
        BadInput: it is not a conversation with at least one message of the assistant; says what is missing.
    """
    if isinstance(record, list) and _is_conversation(record):
        record = {"messages": record}
    if not isinstance(record, dict):
        raise BadInput(f"{cells.kind(record)} instead of an object with `messages`")
    given, messages = _messages(record)
    steps, notes = to_steps(messages)
    if not steps:
        raise BadInput("no message of the assistant: nobody acted")
    task = _of_cell("task", cells.identifier, _first(record, _TASKS))
    request = next((m.text for m in messages if m.role == "user" and (m.text or not m.answers)), "")
    inputs = {"request": request} | ({} if task is None else {"task": task})
    notes.update(f"field {name!r} not read" for name in _unread(record))
    trace = Trace(
        trace_id=content_hash(["imported", given, inputs, record.get("trial")], length=32),
        case=Case(inputs=inputs),
        candidate_id=_actor(record, agent, named=named),
        session_id=task,
        started_at=_of_cell("time", cells.parse_time, _first(record, _TIMES)) or seen_at,
        latency_s=0,
        attempts=(Attempt(steps=tuple(steps), outcome=Outcome(score=_score(record, decimal_comma))),),
    )
    return trace, notes


def _messages(record: Mapping[str, Any]) -> tuple[list[Any], list[ChatMessage]]:
    given = _first(record, _MESSAGES)
    if isinstance(given, str) and given.lstrip().startswith("["):  # a table's cell
        given = _parsed(given)
    if not isinstance(given, list):
        if _is_message(record):
            raise BadInput(
                'a message, not a conversation; put the messages of a conversation together: {"messages": […]}'
            )
        raise BadInput(f"no list of messages; looked for {', '.join(_MESSAGES)} among {sorted(record)[:8]}")
    messages = []
    for place, message in enumerate(given, 1):
        try:
            messages.append(to_message(message))
        except ValueError as error:
            raise BadInput(f"message {place}: {error}") from None
    try:
        as_json(given)
    except ValueError as error:
        raise BadInput(str(error)) from None
    return given, messages


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise BadInput(f"its messages are not JSON ({error})") from None


def _score(record: Mapping[str, Any], decimal_comma: bool = False) -> float | None:
    given = _first(record, _SCORES)
    if given is None and isinstance(record.get(_SCORED_IN), dict):
        given = _first(record[_SCORED_IN], _SCORES)
    try:
        score = cells.number(given, decimal_comma=decimal_comma)
    except ValueError:
        score = -1.0
    if score is None or 0 <= score <= 1:
        return score
    raise BadInput(
        f"reward {given!r:.40} is not a number in [0, 1]; scale it, or leave it out if it is not known"
    )


def _of_cell(what: str, read: Any, given: Any) -> Any:
    try:
        return read(given)
    except ValueError as error:
        raise BadInput(f"{what} {error}") from None


def _unread(record: Mapping[str, Any]) -> list[str]:
    """Fields with something in them that nothing was taken from."""
    chosen = {_chosen(record, names) for names in (_MESSAGES, _SCORES, _TASKS, _TIMES)}
    inside = record.get(_SCORED_IN)
    if _first(record, _SCORES) is None and isinstance(inside, dict) and _chosen(inside, _SCORES):
        chosen.add(_SCORED_IN)
    return [
        name for name, v in record.items() if name not in {*chosen, *_OTHERS} and v not in (None, "", [], {})
    ]


def _actor(record: Mapping[str, Any], agent: str, *, named: bool) -> str:
    model = record.get("model")
    return f"{IMPORTED}{model if isinstance(model, str) and not named else agent}"


def _first(record: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    chosen = _chosen(record, names)
    return None if chosen is None else record[chosen]


def _chosen(record: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if record.get(name) is not None), None)
