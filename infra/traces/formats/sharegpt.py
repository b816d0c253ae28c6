"""ShareGPT, as LLaMA-Factory and others write it: who speaks is `from`, what is said `value`; tools as JSON text."""

from collections.abc import Iterator
from typing import Any, Final

from ratchet.infra.traces.conversation import Conversation
from ratchet.infra.traces.formats.chat import messages_in, read_chat
from ratchet.infra.traces.formats.format import Format, one_by_one


def _looks_like(value: Any) -> bool:
    first = next(iter(messages_in(value)), None)
    return isinstance(first, dict) and isinstance(first.get("from"), str) and "value" in first


def _read(record: Any) -> Iterator[Conversation]:
    yield read_chat(record)


SHAREGPT: Final = Format("sharegpt", "conversations[{from, value}]", _looks_like, one_by_one(_read))
