"""A chat endpoint as the agent: under the gate a recorded request is sent up as `ratchet serve` would send it.

Decision: a case is one request, and its answer the assistant's message; no tool is called. Of an agent that calls
tools, or talks for several turns, the rest of the conversation is the recorded one, made by another version: that is
screening (`screens`), said so wherever the verdict is, and no policy promotes by it.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ratchet.agent.candidate import Candidate
from ratchet.agent.kinds.answering import asked, text_of
from ratchet.agent.kinds.chat_endpoint import Chat
from ratchet.agent.kinds.chat_request import CALLS, Body, check_tools, rendered
from ratchet.agent.kinds.decision import View
from ratchet.agent.kinds.whole import WholeAgent
from ratchet.agent.lm.endpoint import Endpoint
from ratchet.agent.lm.upstream import Upstream
from ratchet.agent.memory.snapshot import Memory
from ratchet.agent.part_values import PartValues
from ratchet.agent.parts import Playing
from ratchet.agent.record import Json, as_json
from ratchet.agent.trace import Usage


class ChatAgent(WholeAgent):
    """An endpoint under one version."""

    def __init__(
        self,
        chat: Chat,
        candidate: Candidate,
        memories: Mapping[str, Memory] | None = None,
        *,
        endpoint: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        """Get ready to answer.

        Args:
            chat: the configured endpoint: no other is asked, whatever address a candidate names.
            candidate: the version.
            memories: its experience.
            endpoint: `api_key`, `timeout`, `concurrency`.
            settings: those of `WholeAgent`.

        Raises:
            BadInput: the version renames tools.
        """
        super().__init__(candidate, memories, **settings)
        check_tools(PartValues(candidate))
        known = {name: value for name, value in (endpoint or {}).items() if name != "api_base"}
        self.load_again = known.pop("load_again", None) if candidate.adapter else None
        """Loads the version's adapter where the endpoint does not know it; None = it has none."""
        self.chat, self._upstream = chat, Upstream(chat.upstream, load_again=self.load_again, **known)

    def rendered(
        self, body: Mapping[str, Any], *, exclude_case: str = "", notes: Sequence[str] = ()
    ) -> tuple[Body, tuple[str, ...]]:
        """The request as this version sends it up, and the ids of the traces whose answers it shows.

        Args:
            body: what the client sent; it is left as it is.
            exclude_case: id of the case at hand, whose own answer is not recalled.
            notes: what was concluded from failed attempts at it.

        Raises:
            BadInput: there are no messages.
        """
        values = PartValues(self.candidate, self.memories, exclude_case=exclude_case, notes=notes)
        return rendered(body, self.chat, values)

    def answer(self, view: View, now: Playing) -> Json:
        """The assistant's message: its text, or the calls of tools that it is."""
        body, recalled = rendered(request_of(view.inputs), self.chat, now.values)
        now.recalled += recalled
        answer = self._upstream.ask(body)
        now.usage = _usage(answer.get("usage"), self.lm)
        return answer_of(answer["choices"][0]["message"])


def chat_lm(chat: Chat, candidate: Candidate, endpoint: Mapping[str, Any]) -> Endpoint:
    """What writes reflections and proposes prompts: the LM of the configured endpoint."""
    told = {name: value for name, value in endpoint.items() if name != "load_again"}
    return Endpoint(candidate.base_model, **{"api_key": "none", **told, "api_base": chat.upstream})


def request_of(inputs: Mapping[str, Json]) -> Body:
    """The request that a case is; of one that is no chat request the message of a user."""
    if isinstance(inputs.get("messages"), list):
        return dict(inputs)
    return {"messages": [{"role": "user", "content": asked(inputs)}]}


def answer_of(message: Mapping[str, Any]) -> Json:
    """An assistant's message as an answer: its text, or `{"tool_calls": [{"name": …, "arguments": {…}}]}`."""
    functions = [one.get("function") for one in message.get("tool_calls") or () if isinstance(one, dict)]
    calls = [one for one in (*functions, message.get("function_call")) if isinstance(one, dict)]
    if calls:
        return as_json({CALLS: [{"name": one.get("name"), "arguments": _parsed(one)} for one in calls]})
    return text_of(message.get("content") or message.get("refusal"))


def _parsed(call: Mapping[str, Any]) -> Json:
    """Arguments as an object; what the model wrote that is no JSON stays text."""
    arguments = call.get("arguments")
    try:
        return json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        return arguments


def _usage(given: Any, lm: Any) -> Usage:
    told = given if isinstance(given, dict) else {}
    n_in, n_out = (
        value if isinstance(value := told.get(name), int) and value >= 0 else 0
        for name in ("prompt_tokens", "completion_tokens")
    )
    cost = lm.price_usd(n_in, n_out) if lm is not None else None
    return Usage(input_tokens=n_in, output_tokens=n_out, lm_calls=1, cost_usd=cost or 0.0)
