"""ShareGPT, as LLaMA-Factory and others write it: who speaks is `from`, what is said `value`; tools as JSON text."""

from typing import Any, Final

from ratchet.infra.traces.formats.chat import EACH_CHAT, messages_in
from ratchet.infra.traces.formats.format import Format


def _looks_like(value: Any) -> bool:
    first = next(iter(messages_in(value)), None)
    return isinstance(first, dict) and isinstance(first.get("from"), str) and "value" in first


SHAREGPT: Final = Format("sharegpt", "conversations[{from, value}]", _looks_like, EACH_CHAT)
