"""ATIF, the Agent Trajectory Interchange Format of Harbor (v1.x): steps of system, user and agent, with metrics."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ratchet.agent.errors import BadInput
from ratchet.infra.files import cells
from ratchet.infra.traces.conversation import Conversation
from ratchet.infra.traces.formats.chat import read_chat
from ratchet.infra.traces.formats.format import Format, object_in, of_cell, one_by_one, usage_of

_ROLES: Final = {"system": "system", "user": "user", "agent": "assistant"}
_READ: Final = ("schema_version", "agent", "steps", "final_metrics", "notes", "trajectory_id", "session_id")
_OF_STEPS: Final = (
    "step_id", "timestamp", "source", "message", "reasoning_content", "tool_calls", "observation", "metrics",
    "model_name",
)  # fmt: skip


def _looks_like(value: Any) -> bool:
    version = value.get("schema_version") if isinstance(value, dict) else None
    return isinstance(version, str) and version.startswith("ATIF") and isinstance(value.get("steps"), list)


def _read(record: dict[str, Any]) -> Iterator[Conversation]:
    messages: list[dict[str, Any]] = []
    notes: Counter[str] = Counter()
    steps = record["steps"]
    for place, step in enumerate(steps, 1):
        if not isinstance(step, dict) or step.get("source") not in _ROLES:
            raise BadInput(f"step {place}: its source is none of {', '.join(_ROLES)}")
        messages += _messages(step, notes)
        unread = (name for name in step if name not in _OF_STEPS and step[name] not in (None, [], {}, ""))
        notes.update(f"field {name!r} of steps not read" for name in unread)
    agent, total = object_in(record.get("agent")), object_in(record.get("final_metrics"))
    metrics = [object_in(step.get("metrics")) for step in steps]
    at = next((step["timestamp"] for step in steps if step.get("timestamp")), None)
    around = {name: v for name, v in record.items() if name not in _READ}
    plain = {"tools": agent.get("tool_definitions"), "model": agent.get("model_name"), "created_at": at}
    found = read_chat({**plain, **around, "messages": messages})
    yield found.model_copy(
        update={
            "usage": usage_of(*metrics, cost_usd=_cost(total, metrics)),
            "latency_s": _span(found, steps),
            "session_id": of_cell("session", cells.identifier, record.get("session_id")),
            "identity": ["imported", "atif", steps, found.inputs],
            "notes": found.notes + notes,
        }
    )


def _messages(step: Mapping[str, Any], notes: Counter[str]) -> list[dict[str, Any]]:
    said: dict[str, Any] = {"role": _ROLES[step["source"]], "content": step.get("message")}
    said |= {"reasoning_content": step.get("reasoning_content")}
    calls = [one for one in step.get("tool_calls") or () if isinstance(one, dict)]
    if calls:
        said["tool_calls"] = [
            {
                "id": one.get("tool_call_id"),
                "function": {"name": one.get("function_name"), "arguments": one.get("arguments")},
            }
            for one in calls
        ]
    results = []
    for one in object_in(step.get("observation")).get("results") or ():
        result = object_in(one)
        if result.get("subagent_trajectory_ref"):
            notes["trajectory of a subagent, named in a result and not read"] += 1
        content = result.get("content")
        results.append(
            {
                "role": "tool",
                "tool_call_id": result.get("source_call_id"),
                "content": content if content else "",
            }
        )
    return [said, *results]


def _cost(total: Mapping[str, Any], metrics: list[dict[str, Any]]) -> float:
    if isinstance(total.get("total_cost_usd"), int | float):
        return float(total["total_cost_usd"])
    return sum(float(one["cost_usd"]) for one in metrics if isinstance(one.get("cost_usd"), int | float))


def _span(found: Conversation, steps: list[Any]) -> float:
    """Seconds from the first to the last step that tells its time."""
    try:
        last = cells.parse_time(next((s["timestamp"] for s in reversed(steps) if s.get("timestamp")), None))
    except ValueError as error:
        raise BadInput(f"time {error}") from None
    if last is None or found.started_at is None:
        return 0.0
    return max((last - found.started_at).total_seconds(), 0.0)


ATIF: Final = Format("atif", "schema_version ATIF-…, steps[{source}]", _looks_like, one_by_one(_read))
