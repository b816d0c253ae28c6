"""SWE-agent's and mini-swe-agent's trajectories: an agent at a shell, one file a run.

Why SWE-agent's steps and not its history: the history that was sent to the LM leaves old observations out. Where the
history has tool calls, their names and arguments are the steps'; else each action is a command of `bash`.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ratchet.agent.errors import BadInput
from ratchet.infra.files import cells
from ratchet.infra.traces.conversation import Conversation
from ratchet.infra.traces.formats.chat import read_chat
from ratchet.infra.traces.formats.format import Format, object_in, of_cell, one_by_one, text_in, usage_of

_MINI: Final = "mini-swe-agent"
_COMMAND: Final = re.compile(r"```(?:bash|mswea_bash_command)\s*\n(.*?)\n?```", re.DOTALL)
_READ: Final = ("info", "history", "environment", "replay_config", "trajectory_format", "instance_id")


def _looks_like_swe_agent(value: Any) -> bool:
    steps = value.get("trajectory") if isinstance(value, dict) else None
    return (
        isinstance(steps, list)
        and bool(steps)
        and isinstance(steps[0], dict)
        and "action" in steps[0]
        and "observation" in steps[0]
    )


def _read_swe_agent(record: dict[str, Any]) -> Iterator[Conversation]:
    history = [one for one in record.get("history") or () if isinstance(one, dict)]
    shown = [one for one in history if one.get("is_demo")]
    history = [one for one in history if not one.get("is_demo")]
    begin = [one for one in history[:2] if one.get("role") in ("system", "user")]
    plain = [{"role": one["role"], "content": text_in(one.get("content"))} for one in begin]
    calls = _calls(history, len(record["trajectory"]))
    for place, step in enumerate(record["trajectory"]):
        if not isinstance(step, dict):
            raise BadInput(f"step {place + 1}: {cells.kind(step)} instead of an object")
        plain += _messages(place, step, calls[place] if calls else None)
    info, settings = object_in(record.get("info")), object_in(_parsed(record.get("replay_config")))
    problem = object_in(settings.get("problem_statement"))
    stats = object_in(info.get("model_stats"))
    around = {name: v for name, v in record.items() if name not in ("trajectory", *_READ)}
    found = read_chat({**around, "messages": plain})
    yield found.model_copy(
        update={
            "usage": usage_of(
                {"input_tokens": stats.get("tokens_sent"), "output_tokens": stats.get("tokens_received")},
                cost_usd=stats.get("instance_cost"),
                lm_calls=_whole(stats.get("api_calls")),
            ),
            "model": found.model or _name(settings),
            "session_id": found.session_id or of_cell("task", cells.identifier, problem.get("id")),
            "feedback": found.feedback or cells.text(info.get("exit_status")) or "",
            "latency_s": sum(map(_seconds, record["trajectory"])),
            "notes": found.notes + Counter({"message of a demonstration, not of the run": len(shown)}),
        }
    )


def _calls(history: list[dict[str, Any]], n_steps: int) -> list[dict[str, Any]] | None:
    """Each step's tool call, where the history has exactly one for each."""
    calls = [one.get("tool_calls") for one in history if one.get("role") == "assistant"]
    found = [one[0] for one in calls if isinstance(one, list) and len(one) == 1 and isinstance(one[0], dict)]
    return found if len(found) == len(calls) == n_steps else None


def _messages(place: int, step: Mapping[str, Any], call: dict[str, Any] | None) -> list[dict[str, Any]]:
    """What was done in a step and what came of it; a step without an action is what it answered."""
    action = cells.text(step.get("action")) or ""
    thought = cells.text(step.get("thought")) or ""
    if not action.strip():
        return [{"role": "assistant", "content": cells.text(step.get("response")) or thought}]
    name = f"step {place}"
    function = (call or {}).get("function") or {"name": "bash", "arguments": {"command": action.strip()}}
    return [
        {"role": "assistant", "content": thought, "tool_calls": [{"id": name, "function": function}]},
        {"role": "tool", "tool_call_id": name, "content": cells.text(step.get("observation")) or ""},
    ]


def _looks_like_mini(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("messages"), list):
        return False
    named = value.get("trajectory_format")
    return (isinstance(named, str) and named.startswith(_MINI)) or "mini_version" in object_in(
        value.get("info")
    )


def _read_mini(record: dict[str, Any]) -> Iterator[Conversation]:
    info, given = object_in(record.get("info")), record["messages"]
    stats, config = object_in(info.get("model_stats")), object_in(info.get("config"))
    kept = [one for one in given if not (isinstance(one, dict) and one.get("role") == "exit")]
    plain = [{k: v for k, v in one.items() if k != "extra"} if isinstance(one, dict) else one for one in kept]
    extras = [object_in(one.get("extra")) for one in given if isinstance(one, dict)]
    usages = [object_in(one.get("response")).get("usage") for one in extras]
    times = [one["timestamp"] for one in extras if isinstance(one.get("timestamp"), int | float)]
    found = read_chat({**record, "messages": _with_calls(plain)}, read_elsewhere=_READ)
    yield found.model_copy(
        update={
            "usage": usage_of(
                *usages, cost_usd=stats.get("instance_cost"), lm_calls=_whole(stats.get("api_calls"))
            ),
            "model": found.model or cells.text(object_in(config.get("model")).get("model_name")),
            "session_id": found.session_id or of_cell("task", cells.identifier, record.get("instance_id")),
            "feedback": found.feedback or cells.text(info.get("exit_status")) or "",
            "started_at": found.started_at
            or of_cell("time", cells.parse_time, min(times) if times else None),
            "latency_s": max(times) - min(times) if times else 0.0,
            "identity": ["imported", given, found.inputs, record.get("trial")],
            "notes": found.notes
            + Counter({"message of role 'exit', not of the run": len(given) - len(kept)}),
        }
    )


def _with_calls(messages: list[Any]) -> list[Any]:
    """In the first version the agent writes its command in a fenced block: a call, and what comes next its result."""
    found: list[Any] = []
    waiting: str | None = None
    for place, message in enumerate(messages):
        one = object_in(message)
        if waiting is not None and one.get("role") == "user":
            message = {"role": "tool", "tool_call_id": waiting, "content": one.get("content")}
        waiting = None
        blocks = _COMMAND.findall(text_in(one.get("content"))) if one.get("role") == "assistant" else []
        if len(blocks) == 1 and not one.get("tool_calls"):
            waiting = f"step {place}"
            call = {"id": waiting, "name": "bash", "arguments": {"command": blocks[0].strip()}}
            said = _COMMAND.sub("", text_in(one.get("content"))).strip()
            message = {**one, "content": said, "tool_calls": [call]}
        found.append(message)
    return found


def _name(settings: Mapping[str, Any]) -> str | None:
    name = object_in(object_in(settings.get("agent")).get("model")).get("name")
    return name if isinstance(name, str) else None


def _seconds(step: Mapping[str, Any]) -> float:
    spent = step.get("execution_time")
    return float(spent) if isinstance(spent, int | float) and spent > 0 else 0.0


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _parsed(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return None


SWE_AGENT: Final = Format(
    "swe-agent", "trajectory[{action, observation}]", _looks_like_swe_agent, one_by_one(_read_swe_agent)
)
MINI_SWE_AGENT: Final = Format(
    "mini-swe-agent", "messages[], trajectory_format", _looks_like_mini, one_by_one(_read_mini)
)
