"""The calls of an LM in one interaction, put together to the conversations that they belong to.

Why: each call repeats the history before it, so that one conversation of ten turns is ten calls of which the last
tells all; but an agent with several prompts holds several conversations, and each keeps its own share. A call goes on
with an earlier one where its messages begin with all of that one's and its answer; nothing else joins two.
"""

from collections.abc import Sequence
from typing import Any

from ratchet.agent.record import Json, Record
from ratchet.infra.traces.chat_parts import ChatMessage


class LmCall(Record):
    """One call: what it was given and what it answered."""

    system: str = ""
    """What it was told before the messages."""
    given: tuple[ChatMessage, ...] = ()
    """The other messages."""
    answer: ChatMessage | None = None
    """None = it failed, or was not recorded."""
    results: tuple[ChatMessage, ...] = ()
    """What the tools that it called gave back, where no later call repeats it."""
    tools: tuple[Json, ...] = ()
    model: str | None = None
    response_id: str | None = None
    follows: str | None = None
    """The `response_id` of the call whose history the provider kept and that is not repeated here."""

    @property
    def messages(self) -> tuple[ChatMessage, ...]:
        """What was given, the answer, and what came of it."""
        answered = (self.answer,) if self.answer is not None else ()
        return (*self.given, *answered, *self.results)


def threads(calls: Sequence[LmCall]) -> list[LmCall]:
    """Of each conversation the call that holds it whole, in the order in which they began."""
    found: list[LmCall] = []
    for call in calls:
        place = _continued(found, call)
        if place is None:
            found.append(call)
            continue
        if call.follows is not None and call.follows == found[place].response_id:
            whole = {"given": (*found[place].messages, *call.given), "system": found[place].system}
            call = call.model_copy(update=whole | ({"system": call.system} if call.system else {}))
        found[place] = call
    return found


def _continued(found: Sequence[LmCall], call: LmCall) -> int | None:
    """Place of the conversation that the call goes on with, the longest where several would do."""
    said = [_gist(message) for message in call.given]
    fits = []
    for place, earlier in enumerate(found):
        before = [
            _gist(message) for message in earlier.messages[: len(earlier.messages) - len(earlier.results)]
        ]
        if not before:
            continue
        is_kept = call.follows is not None and call.follows == earlier.response_id
        is_repeated = earlier.system == call.system and said[: len(before)] == before
        is_retry = earlier.answer is None and earlier.system == call.system and said == before
        if is_kept or is_repeated or is_retry:
            fits.append((len(before), place))
    return max(fits)[1] if fits else None


def _gist(message: ChatMessage) -> tuple[Any, ...]:
    """What stays the same where a message is repeated: not its reasoning, nor how arguments are written."""
    calls = tuple((call.call_id, call.name) for call in message.calls)
    return message.role, message.text, calls, tuple(answer.text for answer in message.answers)
