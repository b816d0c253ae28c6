"""A prompt with its options as one sequence under a tree mask: each option sees the prompt and itself.

Why not a batch: no padding, and the prompt is read once, however many options there are.
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

    prefix [P], rest [S + Σ(option tokens − 1)] token ids; `positions` and `mask` [rest, P + rest] of the rest;
    `read` [N] rows of the whole sequence that predict `targets` [N], `owner` [N] the option of each.
    """

    prefix: "torch.Tensor"
    rest: "torch.Tensor"
    positions: "torch.Tensor"
    mask: "torch.Tensor"
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
    options = [tokens(choice + "<|im_end|>") for choice in prompt.choices]
    n_prompt, n_suffix = len(prefix) + len(suffix), len(suffix)
    n_rest = n_suffix + sum(len(option) - 1 for option in options)
    rest, positions = list(suffix), list(range(len(prefix), n_prompt))
    mask = torch.zeros(n_rest, len(prefix) + n_rest, dtype=torch.bool)
    mask[:, : len(prefix)] = True
    mask[:n_suffix, len(prefix) : n_prompt] = torch.tril(torch.ones(n_suffix, n_suffix, dtype=torch.bool))
    read, targets, owner = [], [], []
    for index, option in enumerate(options):
        start, inner = n_prompt + len(rest) - n_suffix, len(option) - 1
        rows = slice(len(rest), len(rest) + inner)
        mask[rows, len(prefix) : n_prompt] = True
        mask[rows, start : start + inner] = torch.tril(torch.ones(inner, inner, dtype=torch.bool))
        rest += option[:-1]
        positions += range(n_prompt, n_prompt + inner)
        read += [n_prompt - 1, *range(start, start + inner)]
        targets += option
        owner += [index] * len(option)
    tensor = torch.tensor
    return Packed(
        prefix=tensor(prefix), rest=tensor(rest), positions=tensor(positions), mask=mask,
        read=tensor(read), targets=tensor(targets), owner=tensor(owner),
        n_options=len(options), n_tokens=len(prefix) + n_rest,
    )  # fmt: skip
