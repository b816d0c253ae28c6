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
_WINDOW: Final = 512
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
        import torch

        self._pad, self._multiple = pad, multiple
        self._ids = [torch.tensor(one.ids) for one in items]
        # the first token of a conversation is not predicted by the last one of another
        self._labels = [torch.tensor([IGNORED, *one.labels[1:]]) for one in items]
        self._weights = [one.weight for one in items]

    def __call__(self, rows: Sequence[dict[str, list[int]]]) -> dict[str, Any]:
        """Fill up to the longest row; what fills it is a conversation of its own that nothing is learned from."""
        import torch

        lengths = [sum(len(self._ids[i]) for i in row["items"]) for row in rows]
        width = -(-max(lengths) // self._multiple) * self._multiple
        columns: dict[str, list[Any]] = {
            name: [] for name in ("input_ids", "labels", "position_ids", "weights")
        }
        for row, length in zip(rows, lengths, strict=True):
            items, rest = row["items"], width - length
            sizes = [*(len(self._ids[i]) for i in items), rest]
            weights = torch.tensor([*(self._weights[i] for i in items), 0.0])
            columns["input_ids"].append([*(self._ids[i] for i in items), torch.full((rest,), self._pad)])
            columns["labels"].append([*(self._labels[i] for i in items), torch.full((rest,), IGNORED)])
            columns["position_ids"].append([torch.arange(size) for size in sizes])
            columns["weights"].append([weights.repeat_interleave(torch.tensor(sizes))])
        return {name: torch.stack([torch.cat(row) for row in filled]) for name, filled in columns.items()}
