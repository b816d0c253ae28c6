"""Claude Code's session files: one line a message, joined by `parentUuid` to a tree.

Why not the lines in their order: who goes back and asks anew leaves a branch that was given up, parallel calls fork,
and subagents (`isSidechain`) write in between. A conversation is the way from the newest message to its root, with
the results that answer a call on that way; each subagent's is a conversation of its own, in the same session.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ratchet.agent.errors import BadInput
from ratchet.infra.files import cells
from ratchet.infra.files.json_records import Fault
from ratchet.infra.traces.conversation import Conversation
from ratchet.infra.traces.formats.chat import read_chat
from ratchet.infra.traces.formats.format import Format, Numbered, misshapen_told, object_in, of_cell, usage_of

_SPEAKERS: Final = ("user", "assistant")
_BY_THE_PROGRAM: Final = ("isMeta", "isApiErrorMessage", "isCompactSummary")
"""Marks of what stands in the place of a message; a summary repeats what the way to the root holds already."""


@dataclass(frozen=True)
class _Line:
    number: int
    given: dict[str, Any]

    @property
    def message(self) -> dict[str, Any]:
        return object_in(self.given.get("message"))

    @property
    def speaks(self) -> bool:
        return self.given.get("type") in _SPEAKERS and self.message.get("role") in _SPEAKERS

    @property
    def parent(self) -> str:
        """Over a compaction, too, before which the history is not repeated."""
        return _text(self.given.get("parentUuid")) or _text(self.given.get("logicalParentUuid"))

    @property
    def answer_id(self) -> str:
        """Of the model's answer that the line is a part of."""
        return _text(self.message.get("id")) if self.given["type"] == "assistant" else ""

    @property
    def blocks(self) -> list[Any]:
        content = self.message.get("content")
        return content if isinstance(content, list) else [{"type": "text", "text": content or ""}]

    def ids(self, kind: str, name: str) -> set[Any]:
        found = (one.get(name) for one in self.blocks if isinstance(one, dict) and one.get("type") == kind)
        return {one for one in found if isinstance(one, str)}


def _looks_like(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("uuid"), str)
        and "sessionId" in value
        and isinstance(value.get("message"), dict)
    )


def _conversations(records: Numbered, fault: Fault) -> Iterator[tuple[int, Conversation]]:
    tree: dict[str, _Line] = {}
    notes: Counter[str] = Counter()
    for number, record in records:
        if not isinstance(record, dict):
            fault(number, f"{cells.kind(record)} instead of an object")
            continue
        line = _Line(number, record)
        if not line.speaks:
            notes[f"line of type {cells.excerpt(record.get('type'))}, which is no message"] += 1
        if isinstance(record.get("uuid"), str):
            tree[record["uuid"]] = line
    groups: dict[tuple[Any, ...], list[_Line]] = {}
    for line in tree.values():
        if line.speaks:
            groups.setdefault(_group(tree, line), []).append(line)
    for group in groups.values():
        kept = _on_the_way(tree, group)
        notes["message of a branch that was given up"] += len(group) - len(kept)
        said = [one for one in kept if not any(one.given.get(name) for name in _BY_THE_PROGRAM)]
        notes["message that neither the user nor the model wrote"] += len(kept) - len(said)
        if not any(one.given["type"] == "assistant" for one in said):
            notes["conversation in which nobody answered"] += 1
            continue
        try:
            with misshapen_told():
                found = _conversation(said, notes)
            yield said[0].number, found
        except BadInput as error:
            fault(said[0].number, str(error))
            continue
        notes = Counter()


def _group(tree: dict[str, _Line], line: _Line) -> tuple[Any, ...]:
    """Of a session its main conversation; of a subagent, its own."""
    session = _text(line.given.get("sessionId"))
    if not line.given.get("isSidechain"):
        return (session,)
    return session, _text(line.given.get("agentId")) or _way(tree, line)[-1].given["uuid"]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _way(tree: dict[str, _Line], line: _Line) -> list[_Line]:
    """From the line to its root; a parent that is not in the file ends it, so does a ring."""
    way, seen = [line], {line.given["uuid"]}
    while (parent := tree.get(way[-1].parent)) is not None and parent.given["uuid"] not in seen:
        seen.add(parent.given["uuid"])
        way.append(parent)
    return way


def _on_the_way(tree: dict[str, _Line], group: Sequence[_Line]) -> list[_Line]:
    way = {one.given["uuid"] for one in _way(tree, group[-1])}
    answers = {one.answer_id for one in group if one.given["uuid"] in way} - {""}
    split = [one for one in group if one.given["uuid"] in way or one.answer_id in answers]
    calls = {name for one in split for name in one.ids("tool_use", "id")}
    kept = {one.given["uuid"] for one in split}
    return [
        one for one in group if one.given["uuid"] in kept or one.ids("tool_result", "tool_use_id") & calls
    ]


def _conversation(lines: Sequence[_Line], notes: Counter[str]) -> Conversation:
    messages: list[dict[str, Any]] = []
    places: dict[Any, int] = {}
    usage: dict[Any, Any] = {}
    for line in lines:
        name = line.answer_id
        if name and name in places:  # one answer of the model is several lines
            messages[places[name]]["content"] += line.blocks
        else:
            places[name] = len(messages)
            messages.append({"role": line.message["role"], "content": list(line.blocks)})
        if line.given["type"] == "assistant":
            usage[name or line.number] = line.message.get("usage")
    models = [one.message["model"] for one in lines if isinstance(one.message.get("model"), str)]
    times = [
        of_cell("time", cells.parse_time, one.given["timestamp"])
        for one in lines
        if one.given.get("timestamp")
    ]
    found = read_chat({"messages": messages, "model": models[-1] if models else None})
    return found.model_copy(
        update={
            "usage": usage_of(*usage.values()),
            "session_id": of_cell("session", cells.identifier, lines[0].given.get("sessionId")),
            "started_at": times[0] if times else None,
            "latency_s": max((times[-1] - times[0]).total_seconds(), 0.0) if times else 0.0,
            "identity": ["imported", "claude-code", [one.given["uuid"] for one in lines], found.inputs],
            "notes": found.notes + notes,
        }
    )


CLAUDE_CODE: Final = Format(
    "claude-code", "uuid, parentUuid, sessionId, message{}", _looks_like, _conversations
)
