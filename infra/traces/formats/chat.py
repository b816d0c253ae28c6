"""A record that holds a conversation as a list of messages: OpenAI's, Anthropic's, ShareGPT's and all that are alike.

Why one reader for all of them: they differ in what stands around the messages, and logs mix them. Why the identity
is the messages as they were given: the same conversation, imported again, adds nothing, whichever version of Ratchet
read it the first time.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ratchet.agent.errors import BadInput
from ratchet.agent.record import as_json
from ratchet.agent.trace import Usage
from ratchet.infra.files import cells
from ratchet.infra.traces.chat_parts import ChatMessage, to_message
from ratchet.infra.traces.conversation import Assessed, Conversation
from ratchet.infra.traces.formats.chat_request import REQUESTS, RESPONSES, unwrapped
from ratchet.infra.traces.formats.format import (
    Format,
    chosen_of,
    first_of,
    is_usage,
    object_in,
    of_cell,
    one_by_one,
    text_in,
    usage_of,
)

MESSAGES: Final = ("messages", "traj", "trajectory", "conversation", "conversations")
SCORES: Final = ("reward", "score", "outcome", "success")
_SCORED_IN: Final = "reward_info"
"""Where tau2 keeps the reward."""
_TASKS: Final = ("task_id", "task", "session_id", "conversation_id")
_SESSIONS: Final = ("thread_id", "session", "chat_id")
_TIMES: Final = ("created_at", "timestamp", "created", "started_at")
_EXPECTED: Final = ("expected", "expected_answer", "expected_output", "ground_truth", "reference_answer")
_USERS: Final = ("user", "user_id", "userId")
_TOOLS: Final = ("tools", "functions")
_ABOUT: Final = "metadata"
_OTHERS: Final = ("model", "trial", "id", "parallel_tool_calls")


def holds_messages(value: Any) -> bool:
    """Whether it is a conversation: a list of messages, or an object that holds one."""
    if isinstance(value, list):
        return bool(value) and is_message(value[0])
    if not isinstance(value, dict):
        return False
    return any(isinstance(_parsed(value.get(name)), list) for name in MESSAGES) or any(
        isinstance(value.get(name), dict) and holds_messages(value[name]) for name in REQUESTS
    )


def is_message(value: Any) -> bool:
    """Whether it is one message."""
    return isinstance(value, dict) and "role" in value and first_of(value, MESSAGES) is None


def messages_in(record: Any) -> list[Any]:
    """Its messages as they were given; empty where it holds none."""
    if isinstance(record, list):
        return record
    if not isinstance(record, dict):
        return []
    given = _parsed(first_of(record, MESSAGES))
    if isinstance(given, list):
        return given
    inner = first_of(record, REQUESTS)
    return messages_in(inner) if isinstance(inner, dict) else []


def read_chat(record: Any, *, read_elsewhere: Sequence[str] = (), system: str = "") -> Conversation:
    """One conversation.

    Args:
        record: an object with a list of messages, or that list.
        read_elsewhere: fields of the record that the caller reads.
        system: what the agent was told, where the messages do not say it.

    Raises:
        BadInput: it is none, or something in it cannot be read; says what.
    """
    if isinstance(record, list) and holds_messages(record):
        record = {"messages": record}
    if not isinstance(record, dict):
        raise BadInput(f"{cells.kind(record)} instead of an object with `messages`")
    whole, given, taken = _with_reply(record)
    about = object_in(whole.get(_ABOUT))
    messages, notes = _messages(given)
    told, messages = _split(messages)
    task = of_cell("task", cells.identifier, first_of(whole, _TASKS))
    found = Conversation(
        messages=tuple(messages),
        system="\n".join(filter(None, (text_in(whole.get("system")) or system, told))),
        tools=_tools(whole),
        expected=_json_in(whole, _EXPECTED),
        score=_score(whole),
        assessed=_weighed(given),
        usage=_usage(whole, given),
        model=whole["model"] if isinstance(whole.get("model"), str) else None,
        session_id=task or _name_in(whole, _SESSIONS) or _name_in(about, (*_TASKS, *_SESSIONS)),
        user=_name_in(whole, _USERS) or _name_in(about, _USERS),
        started_at=of_cell("time", cells.parse_time, first_of(whole, _TIMES)),
    )
    inputs = {"request": found.request} | ({} if task is None else {"task": task})
    notes.update(f"field {name!r} not read" for name in _unread(whole, (*taken, *read_elsewhere)))
    identity = ["imported", given, inputs, whole.get("trial")]
    return found.model_copy(update={"inputs": inputs, "identity": identity, "notes": notes})


def _with_reply(record: dict[str, Any]) -> tuple[dict[str, Any], list[Any], list[str]]:
    """The record's fields, its messages with what was answered to them, and which fields that took."""
    whole, reply, taken = unwrapped(record, holds_its_own=first_of(record, MESSAGES) is not None)
    given = _given(whole)
    if reply is None:
        return whole, given, taken
    if given and object_in(given[-1]).get("role") == "assistant":  # they end with it already
        return whole, given, [name for name in taken if name not in RESPONSES]
    return whole, [*given, reply], taken


def _name_in(record: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """A name or number under the first of these; an object says more than a name, and is not read."""
    given = first_of(record, names)
    return cells.identifier(given) if isinstance(given, str | int) else None


def _given(record: Mapping[str, Any]) -> list[Any]:
    given = _parsed(first_of(record, MESSAGES))
    if not isinstance(given, list):
        if isinstance(given, str):
            raise BadInput(f"its messages are not JSON ({cells.excerpt(given)})")
        if is_message(record):
            raise BadInput(
                'a message, not a conversation; put the messages of a conversation together: {"messages": […]}'
            )
        raise BadInput(f"no list of messages; looked for {', '.join(MESSAGES)} among {sorted(record)[:8]}")
    return given


def _parsed(value: Any) -> Any:
    """A list that stands in a table's cell as JSON."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _messages(given: Sequence[Any]) -> tuple[list[ChatMessage], Counter[str]]:
    messages: list[ChatMessage] = []
    notes: Counter[str] = Counter()
    for place, message in enumerate(given, 1):
        try:
            messages.append(to_message(_without_what_is_read(message)))
        except ValueError as error:
            raise BadInput(f"message {place}: {error}") from None
        if messages[-1].calls and messages[-1].role != "assistant":
            notes["tool call of the user, which the agent did not make"] += len(messages[-1].calls)
    try:
        as_json(given)
    except ValueError as error:
        raise BadInput(str(error)) from None
    return messages, notes


def _without_what_is_read(message: Any) -> Any:
    """The message without the fields that are read for the whole conversation."""
    if not isinstance(message, dict):
        return message
    is_read = {"weight": message.get("weight") == 1, "usage": is_usage(message.get("usage"))}
    read = [name for name, it_is in is_read.items() if it_is]
    return {name: value for name, value in message.items() if name not in read} if read else message


def _split(messages: Sequence[ChatMessage]) -> tuple[str, list[ChatMessage]]:
    """What the system said before all others, and the rest."""
    first = next((n for n, one in enumerate(messages) if one.role != "system"), len(messages))
    return "\n".join(one.text for one in messages[:first]), list(messages[first:])


def _tools(record: Mapping[str, Any]) -> tuple[Any, ...]:
    tools = _parsed(_json_in(record, _TOOLS))
    return tuple(tools) if isinstance(tools, list) else ()


def _json_in(record: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The first of these that JSON can hold: a table writes NaN where it has nothing."""
    try:
        return as_json(first_of(record, names))
    except ValueError:
        return None


def _score(record: Mapping[str, Any]) -> float | None:
    given = first_of(record, SCORES)
    if given is None and isinstance(record.get(_SCORED_IN), dict):
        given = first_of(record[_SCORED_IN], SCORES)
    try:
        score = cells.number(given)
    except ValueError:
        score = -1.0
    if score is None or 0 <= score <= 1:
        return score
    raise BadInput(
        f"reward {given!r:.40} is not a number in [0, 1]; scale it, or leave it out if it is not known"
    )


def _weighed(given: Sequence[Any]) -> tuple[Assessed, ...]:
    """A last answer that a fine-tuning file weighs 1 is what its author wants to be said."""
    last = given[-1] if given and isinstance(given[-1], dict) else {}
    if last.get("weight") != 1 or last.get("role") != "assistant" or not isinstance(last.get("content"), str):
        return ()
    said = Assessed(
        name="weight", value=last["content"], kind="expected", source="human", rater="fine-tuning file"
    )
    return (said,)


def _usage(record: Mapping[str, Any], given: Sequence[Any]) -> Usage:
    if is_usage(record.get("usage")):
        return usage_of(record["usage"])
    agents = (one.get("usage") for one in given if isinstance(one, dict) and one.get("role") == "assistant")
    return usage_of(*agents)


def _unread(record: Mapping[str, Any], elsewhere: Sequence[str]) -> list[str]:
    """Fields with something in them that nothing was taken from."""
    chosen = {chosen_of(record, names) for names in (MESSAGES, SCORES, _TASKS, _TIMES)}
    chosen.add(chosen_of(record, _EXPECTED) if _json_in(record, _EXPECTED) is not None else None)
    chosen.add(chosen_of(record, _TOOLS) if _tools(record) else None)
    named = (_USERS,) if first_of(record, _TASKS) is not None else (_USERS, _SESSIONS)
    chosen |= {chosen_of(record, names) for names in named if _name_in(record, names) is not None}
    inside = record.get(_SCORED_IN)
    if first_of(record, SCORES) is None and isinstance(inside, dict) and chosen_of(inside, SCORES):
        chosen.add(_SCORED_IN)
    chosen |= {name for name in ("system",) if isinstance(record.get(name), str | list)}
    chosen |= {name for name in ("usage",) if is_usage(record.get(name))}
    about = record.get(_ABOUT)
    if isinstance(about, dict) and set(about) <= {*_USERS, *_TASKS, *_SESSIONS}:
        chosen.add(_ABOUT)
    return [
        name
        for name, v in record.items()
        if name not in {*chosen, *_OTHERS, *elsewhere} and v not in (None, "", [], {})
    ]


EACH_CHAT: Final = one_by_one(lambda record: [read_chat(record)])
"""Of formats of which a record is one conversation."""
OPENAI_CHAT: Final = Format("openai-chat", "messages[{role, content}]", holds_messages, EACH_CHAT)
