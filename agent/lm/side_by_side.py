"""Several calls under way at once, their answers in order."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def side_by_side(
    ask: Callable[[Item], Answer],
    items: Sequence[Item],
    *,
    at_once: int,
    length: Callable[[Item], int] | None = None,
) -> list[Answer]:
    """What `ask` says to each item, in the items' order, whichever is answered first.

    Args:
        ask: calls the LM; the first of its errors ends it all.
        items: what is asked.
        at_once: calls under way at most (`LM.at_once`).
        length: the longest are asked first, where several are under way; None = as they stand.
    """
    if at_once == 1 or len(items) < 2:
        return [ask(item) for item in items]

    def answers(asked: Sequence[Item]) -> list[Answer]:
        contexts = [copy_context() for _ in asked]  # else DSPy's settings would stay behind
        with ThreadPoolExecutor(min(at_once, len(asked))) as pool:
            return list(pool.map(lambda context, item: context.run(ask, item), contexts, asked))

    return answers(items) if length is None else longest_first(answers, items, length)


def longest_first(
    answers: Callable[[Sequence[Item]], list[Answer]], items: Sequence[Item], length: Callable[[Item], int]
) -> list[Answer]:
    """The answers in the items' order, asked longest first: what ends last is short, no core waits long."""
    order = sorted(range(len(items)), key=lambda place: -length(items[place]))
    found = dict(zip(order, answers([items[place] for place in order]), strict=True))
    return [found[place] for place in range(len(items))]
