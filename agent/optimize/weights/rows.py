"""Conversations side by side in rows without padding, the whole training laid out beforehand.

Decision: which conversations make which row of which step is known before the first step. A training that was killed
then goes on exactly where it was, since no sampler has a state of its own, and each epoch is packed anew.
Positions begin anew with each conversation: transformers tells by them which tokens see one another.
"""

import random
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

IGNORED: Final = -100
"""Label of a token from which nothing is learned."""
_WINDOW: Final = 64
"""Conversations among which those that fill a row are looked for."""


class Item(NamedTuple):
    """One conversation as it is trained on."""

    ids: list[int]
    """[n]"""
    labels: list[int]
    """The ids, `IGNORED` where they are not the agent's own, [n]."""
    weight: float


def rows_of(lengths: Sequence[int], *, room: int, seed: int, together: int) -> list[list[int]]:
    """One epoch: every item once, in rows of at most `room` tokens (or one item that is longer).

    Args:
        lengths: tokens of each item, [n].
        room: tokens of a row.
        seed: of the order.
        together: items of a row at most.
    """
    order = list(range(len(lengths)))
    random.Random(seed).shuffle(order)
    if together * max(lengths) <= room:
        return [order[start : start + together] for start in range(0, len(order), together)]
    rows: list[list[int]] = []
    for start in range(0, len(order), _WINDOW):
        new: list[tuple[int, list[int]]] = []
        for item in sorted(order[start : start + _WINDOW], key=lambda i: -lengths[i]):
            fits = [(left, row) for left, row in new if left >= lengths[item] and len(row) < together]
            if fits:
                left, row = min(fits, key=lambda one: one[0])
                new.remove((left, row))
            else:
                left, row = room, []
            row.append(item)
            new.append((left - lengths[item], row))
        rows += [row for _, row in new]
    random.Random(seed).shuffle(rows)
    return rows


class Collator:
    """Rows of items → tensors `input_ids`, `labels`, `position_ids` and `weights`, each [rows, tokens]."""

    def __init__(self, items: Sequence[Item], pad: int, multiple: int = 1) -> None:
        """`multiple`: rows are filled up to a multiple of so many tokens."""
        self._items, self._pad, self._multiple = items, pad, multiple

    def __call__(self, rows: Sequence[dict[str, list[int]]]) -> dict[str, Any]:
        """Fill up to the longest row; what fills it is a conversation of its own that nothing is learned from."""
        import torch

        lengths = [sum(len(self._items[i].ids) for i in row["items"]) for row in rows]
        width = -(-max(lengths) // self._multiple) * self._multiple
        columns: dict[str, list[Sequence[float]]] = {
            name: [] for name in ("input_ids", "labels", "position_ids", "weights")
        }
        for row, length in zip(rows, lengths, strict=True):
            items = [self._items[i] for i in row["items"]]
            rest = width - length
            columns["input_ids"].append([t for one in items for t in one.ids] + [self._pad] * rest)
            # the first token of a conversation is not predicted by the last one of another
            columns["labels"].append(
                [t for one in items for t in [IGNORED, *one.labels[1:]]] + [IGNORED] * rest
            )
            columns["position_ids"].append([p for one in items for p in range(len(one.ids))] + [*range(rest)])
            columns["weights"].append([one.weight for one in items for _ in one.ids] + [0.0] * rest)
        return {
            name: torch.tensor(values, dtype=torch.float32 if name == "weights" else torch.long)
            for name, values in columns.items()
        }
