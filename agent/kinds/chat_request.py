"""A version applied to one chat request: the one rendering, for `ratchet serve` as for the gate.

Decision: a version always applies, and the version of the first day changes nothing. The system message is

| what the client sends | what goes up |
|---|---|
| none, or the default: that of the first day, or of now | the version's prompt |
| another, and the version's prompt is the default of the first day | the client's, as it is |
| one that begins with the version's prompt (it was loaded from the registry) | the client's, as it is |
| another | the version's prompt, then the client's, in one message |

Why put before and not left alone: a version that did not reach some clients would be promoted on evidence of others.
Why in one message: many models take a single system message. Recalled answers stand as pairs of user and assistant
before the last message of the user; recalled tool calls as worked examples in the system message, since a call
without its result is not a valid conversation. Whatever else the request holds goes up untouched.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from ratchet.agent.candidate import Demo, Predictor
from ratchet.agent.environment import Option
from ratchet.agent.errors import BadInput
from ratchet.agent.kinds.answering import text_of
from ratchet.agent.kinds.chat_endpoint import SYSTEM, Chat, model_name
from ratchet.agent.kinds.tool_overrides import overridden, override_of
from ratchet.agent.memory.steps import Experience
from ratchet.agent.part_values import PartValues, prompt_text, with_notes
from ratchet.agent.parts import as_messages
from ratchet.agent.record import Json

Body = dict[str, Any]
Sent = dict[str, Any]
"""A message as a client sends it."""
CALLS: Final = "tool_calls"
"""Key of an answer that is a call of tools: `{"tool_calls": [{"name": …, "arguments": {…}}]}`."""
_TOLD: Final = ("system", "developer")
_ADDRESSED: Final = frozenset(
    (
        "model",
        "stream",
        "stream_options",
        "user",
        "metadata",
        "store",
        "n",
        "service_tier",
        "safety_identifier",
    )
)
"""Fields that say who asks, whom, and how the answer is delivered, not what is asked."""


def case_inputs(body: Mapping[str, Any]) -> dict[str, Json]:
    """What a request asks, as the inputs of a case: messages, tools, and what shapes the answer."""
    return {name: value for name, value in body.items() if name not in _ADDRESSED}


def rendered(body: Mapping[str, Any], chat: Chat, values: PartValues) -> tuple[Body, tuple[str, ...]]:
    """The request as the version sends it up, and the ids of the traces whose answers it shows.

    Args:
        body: what the client sent; it is left as it is.
        chat: the configured endpoint.
        values: what the version says of its parts.

    Raises:
        BadInput: there are no messages.
    """
    messages = _messages(body)
    asked = next((i for i in range(len(messages) - 1, -1, -1) if messages[i].get("role") == "user"), None)
    request = "" if asked is None else text_of(messages[asked].get("content"))
    found = values.recalled(SYSTEM, request) if request else []
    shown = list(reversed(found))
    pairs = [message for one in shown if not _is_call(one.experience) for message in as_messages(one)]
    if asked is not None and pairs:
        messages[asked:asked] = pairs
    added = prompt_text(Predictor(instructions="", demos=_worked(one.experience for one in shown)))
    messages = _with_system(messages, values, chat.system.strip(), added)
    changed: Body = {**body, "model": model_name(values.candidate), "messages": messages}
    return _with_tools(changed, values), tuple(dict.fromkeys(one.experience.trace_id for one in found))


def _messages(body: Mapping[str, Any]) -> list[Sent]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not all(isinstance(one, dict) for one in messages):
        raise BadInput('messages: give a list of objects, such as [{"role": "user", "content": "…"}]')
    return list(messages)


def _is_call(step: Experience) -> bool:
    content = (step.arguments or {}).get("content")
    return isinstance(content, dict) and CALLS in content


def _worked(shown: Iterable[Experience]) -> tuple[Demo, ...]:
    return tuple(Demo(inputs=one.observation, output=one.said) for one in shown if _is_call(one))


def _with_system(messages: list[Sent], values: PartValues, default: str, added: str) -> list[Sent]:
    """The messages under the version's prompt, with what is added to it for this request alone."""
    predictor, first = values.candidate.predictors.get(SYSTEM), values.candidate.replaces.strip()
    told = first if predictor is None else prompt_text(predictor).strip()
    rest = next((i for i, one in enumerate(messages) if one.get("role") not in _TOLD), len(messages))
    own = messages[:rest]
    said = "\n\n".join(text_of(one.get("content")) for one in own).strip()
    extra = with_notes(added, values.notes).strip()
    if said in ("", default, first) and said != told:
        own = [{"role": own[0]["role"] if own else "system", "content": told}] if told else []
    elif told != first and not said.startswith(told):
        own = [_joined(own[0], told, before=True), *own[1:]]
    if extra:
        own = [_joined(own[0], extra), *own[1:]] if own else [{"role": "system", "content": extra}]
    return [*own, *messages[rest:]]


def _joined(message: Sent, text: str, *, before: bool = False) -> Sent:
    """The message with a text before or after its own; parts stay parts."""
    content = message.get("content")
    if isinstance(content, list):
        part = [{"type": "text", "text": text}]
        return {**message, "content": [*part, *content] if before else [*content, *part]}
    both = (text, content or "") if before else (content or "", text)
    return {**message, "content": "\n\n".join(one for one in both if one)}


def _with_tools(body: Body, values: PartValues) -> Body:
    """Tools as the version describes them, in today's field and in the older one."""
    tools = values.candidate.tools
    if not tools:
        return body
    if isinstance(given := body.get("tools"), list):
        body["tools"] = [
            {**one, "function": _described(one["function"], values)}
            if isinstance(one, dict) and isinstance(one.get("function"), dict)
            else one
            for one in given
        ]
    if isinstance(given := body.get("functions"), list):
        body["functions"] = [_described(one, values) if isinstance(one, dict) else one for one in given]
    return body


def _described(function: dict[str, Any], values: PartValues) -> dict[str, Any]:
    tools, name = values.candidate.tools, function.get("name")
    if not isinstance(name, str) or name not in tools:
        return function
    override, parameters = override_of(tools, name), function.get("parameters")
    changed = dict(function)
    if override.description is not None:
        changed["description"] = override.description
    if override.parameters is not None and isinstance(parameters, dict):
        changed["parameters"] = overridden(Option(name=name, parameters=parameters), tools).parameters
    return changed


def check_tools(values: PartValues) -> None:
    """Refuse a version that renames tools.

    Raises:
        BadInput: names the tool.
    """
    for tool in values.candidate.tools:
        if override_of(values.candidate.tools, tool).name not in (None, tool):
            raise BadInput(
                f"candidate {values.candidate.candidate_id} renames tool {tool!r}: a client knows its tools by their "
                "own names; change the description"
            )


def screens(inputs: Mapping[str, Json]) -> str:
    """Why answering this request anew is no full test of an agent, in words; empty = it is one.

    It is one where the request holds a single message of the user and offers no tools: the answer is the whole
    conversation. Else what came before was made by another version, or what a called tool would say is not known.
    """
    roles = [one.get("role") for one in inputs.get("messages") or () if isinstance(one, dict)]
    tools = inputs.get("tools") or inputs.get("functions")
    found = {
        "tools that were not called": bool(tools) and inputs.get("tool_choice") != "none",
        "results of tools": any(role in ("tool", "function") for role in roles),
        "earlier answers": "assistant" in roles,
        "several messages of the user": roles.count("user") > 1,
    }
    return ", ".join(words for words, there in found.items() if there)
