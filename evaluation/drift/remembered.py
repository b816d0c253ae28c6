"""How much of what was counted is kept by its id: enough to explain an alarm and to know a trace again."""

from typing import Final, TypeVar

ItemT = TypeVar("ItemT")

RECENT: Final = 4_000
"""Newest trace ids that are kept; the monitor itself explains from its last 3,000 messages."""


def tail(items: tuple[ItemT, ...], n: int) -> tuple[ItemT, ...]:
    """The last `n`; all where there are fewer, none for 0."""
    return items[max(len(items) - n, 0) :]
