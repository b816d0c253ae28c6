"""Several calls under way at once, their answers in order."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def side_by_side(ask: Callable[[Item], Answer], items: Sequence[Item], *, at_once: int) -> list[Answer]:
    """What `ask` says to each item, in the items' order, whichever is answered first.

    Args:
        ask: calls the LM; the first of its errors ends it all.
        items: what is asked.
        at_once: calls under way at most (`LM.at_once`).
    """
    if at_once == 1 or len(items) < 2:
        return [ask(item) for item in items]
    contexts = [copy_context() for _ in items]  # else DSPy's settings would stay behind
    with ThreadPoolExecutor(min(at_once, len(items))) as pool:
        return list(pool.map(lambda context, item: context.run(ask, item), contexts, items))
