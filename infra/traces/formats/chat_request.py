"""A request to an LM that was logged with its response: OpenAI's completions, Anthropic's messages, or a text."""

from typing import Any, Final

from ratchet.infra.traces.formats.format import chosen_of

REQUESTS: Final = ("request", "body")
RESPONSES: Final = ("response", "completion")


def unwrapped(record: dict[str, Any], *, holds_its_own: bool) -> tuple[dict[str, Any], Any, list[str]]:
    """A logged request with what was answered to it: the fields of all, the answer as a message, and what was taken.

    Args:
        record: what was logged.
        holds_its_own: its messages stand in it, not in the request.
    """
    asked, answered = chosen_of(record, REQUESTS), chosen_of(record, RESPONSES)
    whole, taken = record, []
    if asked is not None and isinstance(record[asked], dict) and not holds_its_own:
        whole = {**record[asked], **{name: v for name, v in record.items() if name != asked}}
        taken = [name for name in record[asked] if name not in record and name in _SETTINGS]
    reply = _reply(record[answered]) if answered is not None else None
    if reply is None or answered is None:
        return whole, None, taken
    around = record[answered] if isinstance(record[answered], dict) else {}
    more = {name: around[name] for name in ("usage", "model", "created") if around.get(name) is not None}
    return {**whole, **more}, reply, [*taken, answered]


_SETTINGS: Final = (
    "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "stream", "stop", "stop_sequences",
    "seed", "tool_choice", "n", "thinking", "response_format",
)  # fmt: skip


def _reply(given: Any) -> Any:
    """The message in an answer of an LM: OpenAI's choices, Anthropic's message, or a text."""
    if isinstance(given, str):
        return {"role": "assistant", "content": given}
    if not isinstance(given, dict):
        return None
    choices = given.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return choices[0].get("message")
    if given.get("role") == "assistant" and "content" in given:
        kept = ("role", "content", "tool_calls", "refusal", "reasoning_content")
        return {name: given[name] for name in kept if name in given}
    return None
