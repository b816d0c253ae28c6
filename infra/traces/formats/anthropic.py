"""Anthropic's Messages API: content in blocks (`thinking`, `tool_use`, `tool_result`), the system prompt apart."""

from typing import Any, Final

from ratchet.infra.traces.formats.chat import EACH_CHAT, holds_messages, messages_in
from ratchet.infra.traces.formats.format import Format

_BLOCKS: Final = ("tool_use", "tool_result", "thinking", "redacted_thinking")


def _looks_like(value: Any) -> bool:
    if not holds_messages(value):
        return False
    asked = value.get("request", value) if isinstance(value, dict) else {}
    has_system = isinstance(asked, dict) and isinstance(asked.get("system"), str | list)
    return (has_system and "from" not in _first(value)) or any(map(_has_blocks, messages_in(value)))


def _first(value: Any) -> Any:
    first = next(iter(messages_in(value)), None)
    return first if isinstance(first, dict) else {}


def _has_blocks(message: Any) -> bool:
    content = message.get("content") if isinstance(message, dict) else None
    return isinstance(content, list) and any(
        isinstance(block, dict) and block.get("type") in _BLOCKS for block in content
    )


ANTHROPIC: Final = Format(
    "anthropic", "messages[{content[{type: tool_use}]}], system", _looks_like, EACH_CHAT
)
