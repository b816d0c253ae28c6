"""A prompt with its options as one sequence under a tree mask: each option sees the prompt and itself.

Why not a batch: no padding, and the prompt is read once, however many options there are; so is what several options
begin with (`Music_3_…`), a fourth of their tokens among the demo's tools.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ratchet.agent.errors import BadInput
from ratchet.agent.lm.lm import Prompt

if TYPE_CHECKING:
    import torch

MAX_PROMPT_TOKENS = 1024
"""Longer prompts lose the middle of their prefix: what stands there are tool descriptions."""


@dataclass(frozen=True)
class Packed:
    """Token ids of one prompt with its options behind it, and where each option's tokens are predicted.

    prefix [P], rest [S + tokens of the options' tree] token ids; `positions` and `mask` [rest, P + rest] of the rest.
    `first` is the row of the prompt's last token: from it on every row is read. `read` [N] rows, counted from there,
    predict `targets` [N]; `owner` [N] is the option of each.
    """

    prefix: "torch.Tensor"
    rest: "torch.Tensor"
    positions: "torch.Tensor"
    mask: "torch.Tensor"
    first: int
    read: "torch.Tensor"
    targets: "torch.Tensor"
    owner: "torch.Tensor"
    n_options: int
    n_tokens: int


def pack_prompt(prompt: Prompt, tokens: Callable[[str], list[int]]) -> Packed:
    """Tokenize a prompt and its choices into one sequence with a tree mask.

    Raises:
        BadInput: a prompt without choices.
    """
    import torch

    if not prompt.choices:
        raise BadInput(f"prompt {prompt.suffix[-60:]!r} has no choices to score: give at least one")
    prefix, suffix = tokens(prompt.prefix), tokens(prompt.suffix)
    if len(prefix) + len(suffix) > MAX_PROMPT_TOKENS:
        room = MAX_PROMPT_TOKENS - min(len(suffix), MAX_PROMPT_TOKENS // 2)
        if len(prefix) > room:
            prefix = prefix[: room // 2] + prefix[-(room // 2) :]
        suffix = suffix[-(MAX_PROMPT_TOKENS - len(prefix)) :]
    options = [tuple(tokens(choice + "<|im_end|>")) for choice in prompt.choices]
    nodes: dict[tuple[int, ...], int] = {
        option[:depth]: 0 for option in options for depth in range(1, len(option))
    }
    n_prompt, n_suffix, n_rest = len(prefix) + len(suffix), len(suffix), len(suffix) + len(nodes)
    rest, positions = list(suffix), list(range(len(prefix), n_prompt))
    mask = torch.zeros(n_rest, len(prefix) + n_rest, dtype=torch.bool)
    mask[:, : len(prefix)] = True
    mask[:n_suffix, len(prefix) : n_prompt] = torch.tril(torch.ones(n_suffix, n_suffix, dtype=torch.bool))
    for row, path in enumerate(nodes, n_suffix):  # what an option begins with stands before it
        parent = nodes.get(path[:-1], n_suffix - 1)
        mask[row] = mask[parent]
        mask[row, len(prefix) + row] = True
        nodes[path] = row
        rest.append(path[-1])
        positions.append(n_prompt + len(path) - 1)
    read: list[int] = []
    targets: list[int] = []
    owner: list[int] = []
    for index, option in enumerate(options):
        read += [nodes.get(option[:depth], n_suffix - 1) - (n_suffix - 1) for depth in range(len(option))]
        targets += option
        owner += [index] * len(option)
    tensor = torch.tensor
    return Packed(
        prefix=tensor(prefix), rest=tensor(rest), positions=tensor(positions), mask=mask,
        first=n_prompt - 1, read=tensor(read), targets=tensor(targets), owner=tensor(owner),
        n_options=len(options), n_tokens=len(prefix) + n_rest,
    )  # fmt: skip
