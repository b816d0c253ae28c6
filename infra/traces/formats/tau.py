"""tau-bench and tau2-bench: trials of a task between an agent and a simulated user, with the task's own reward.

Why the user's tool calls are left out of tau2's steps: the user has tools of its own (a phone, an app), and neither
the call nor its result is seen by the agent; what the user says of them is.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from ratchet.agent.record import as_json
from ratchet.infra.files import cells
from ratchet.infra.traces.conversation import Conversation
from ratchet.infra.traces.formats.chat import read_chat
from ratchet.infra.traces.formats.format import Format, object_in, of_cell, one_by_one, usage_of

_OF_SIMULATION: Final = ("seed", "start_time", "end_time", "duration", "agent_cost", "task_id", "reward_info")
_OF_MESSAGES: Final = ("turn_idx", "timestamp", "cost", "usage", "raw_data", "error")
"""Where a message stands, when it came and what it cost: summed up or not needed."""


def _looks_like_tau(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("traj"), list) and "reward" in value


def _read_tau(record: dict[str, Any]) -> Iterator[Conversation]:
    task = object_in(object_in(record.get("info")).get("task"))
    found = read_chat(record, read_elsewhere=("info",) if task else ())
    wanted = {
        "actions": [
            {"name": one["name"], "arguments": one.get("kwargs", {})}
            for one in task.get("actions") or ()
            if isinstance(one, dict) and isinstance(one.get("name"), str)
        ],
        "outputs": task.get("outputs") or [],
    }
    yield found.model_copy(
        update={
            "expected": _expected(wanted) if found.expected is None else found.expected,
            "user": found.user or of_cell("user", cells.identifier, task.get("user_id")),
        }
    )


def _looks_like_tau2(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    if isinstance(value.get("simulations"), list):
        return any(map(_is_simulation, value["simulations"]))
    return _is_simulation(value)


def _is_simulation(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("messages"), list) and "reward_info" in value


def _read_tau2(record: dict[str, Any]) -> Iterator[Conversation]:
    simulations = record.get("simulations")
    if not isinstance(simulations, list):
        yield _simulation(record, {}, {})
        return
    tasks = {
        str(one.get("id")): one
        for one in (record["tasks"] if isinstance(record.get("tasks"), list) else ())
        if isinstance(one, dict)
    }
    for one in simulations:
        yield _simulation(one, tasks.get(str(one.get("task_id")), {}), object_in(record.get("info")))


def _simulation(given: dict[str, Any], task: Mapping[str, Any], info: Mapping[str, Any]) -> Conversation:
    """One trial; `task` and `info` stand beside it in the file."""
    agents = [one for one in given.get("messages") or () if not _is_the_users(one)]
    world = object_in(info.get("environment_info"))
    definitions = object_in(world.get("tool_defs"))
    about = {"model": object_in(info.get("agent_info")).get("llm"), "tools": list(definitions.values())}
    plain = {**given, **about, "messages": [_without(one) for one in agents]}
    found = read_chat(plain, read_elsewhere=_OF_SIMULATION, system=cells.text(world.get("policy")) or "")
    left_out = len(given["messages"]) - len(agents)
    told = "message of the user with its own tools, which the agent does not see"
    usages = [one.get("usage") for one in agents if isinstance(one, dict) and one.get("role") == "assistant"]
    criteria = object_in(task.get("evaluation_criteria"))
    wanted = {
        "actions": [
            {"name": one["name"], "arguments": one.get("arguments", {})}
            for one in criteria.get("actions") or ()
            if isinstance(one, dict) and one.get("requestor", "assistant") == "assistant" and "name" in one
        ],
        "outputs": criteria.get("communicate_info") or [],
    }
    duration = given.get("duration")
    return found.model_copy(
        update={
            "expected": _expected(wanted),
            "usage": usage_of(*usages, cost_usd=given.get("agent_cost")),
            "started_at": found.started_at or of_cell("time", cells.parse_time, given.get("start_time")),
            "latency_s": float(duration) if isinstance(duration, int | float) and duration >= 0 else 0.0,
            "identity": _identity(given, found, left_out),
            "notes": found.notes + type(found.notes)({told: left_out}),
        }
    )


def _identity(given: dict[str, Any], found: Conversation, left_out: int) -> Any:
    """As `chat` makes it of all messages, by which the same file was known before the user's were left out."""
    if left_out:
        plain = [_without(one) for one in given["messages"]]
        found = read_chat({**given, "messages": plain})
    return ["imported", given["messages"], found.inputs, given.get("trial")]


def _is_the_users(message: Any) -> bool:
    """A call of the user's own tools, or what came of it."""
    if not isinstance(message, dict):
        return False
    calls = message.get("tool_calls")
    calls_its_own = message.get("role") == "user" and bool(calls) and not message.get("content")
    return calls_its_own or (message.get("role") == "tool" and message.get("requestor") == "user")


def _without(message: Any) -> Any:
    if not isinstance(message, dict):
        return message
    return {name: value for name, value in message.items() if name not in _OF_MESSAGES}


def _expected(wanted: dict[str, list[Any]]) -> Any:
    return as_json(wanted) if any(wanted.values()) else None


TAU_BENCH: Final = Format("tau-bench", "traj[], reward", _looks_like_tau, one_by_one(_read_tau))
TAU2_BENCH: Final = Format(
    "tau2-bench", "simulations[{messages[], reward_info}]", _looks_like_tau2, one_by_one(_read_tau2)
)
