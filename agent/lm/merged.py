"""A base and its adapter as one model: what leaves this house, and any library of the field loads.

Decision: merged in float32, since a sum that is rounded twice is another model than the one that was proven.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ratchet.agent.errors import BadInput
from ratchet.agent.lm.adapter_files import check_adapter
from ratchet.agent.lm.adapters import peft_quietly

if TYPE_CHECKING:
    import torch

GREEDY = 8
"""Tokens that two forms of a model must write alike."""
_PROBES = ("Hello, what can you do?", "The capital of Norway is", "1, 2, 3, 4,")


class Merged(NamedTuple):
    """A whole model, in memory."""

    model: Any
    """transformers' model, float32, on the CPU."""
    tokenizer: Any


class Agreement(NamedTuple):
    """How far another form of a model is from it."""

    nats: float
    """Largest difference of a token's log-probability."""
    same_tokens: bool
    """Whether both write the same greedily."""


def merge(base: Path, adapter: Path) -> Merged:
    """The base with the adapter's weights added.

    Args:
        base: folder of the model.
        adapter: the adapter's.

    Raises:
        BadInput: the adapter is of another base, not whole, or fits no layer of this model.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    check_adapter(adapter, base=base)
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, local_files_only=True)
    try:
        with peft_quietly():
            whole = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    except (ValueError, RuntimeError) as error:
        raise BadInput(
            f"adapter {adapter.name} does not fit the model in {base}: {str(error).splitlines()[0][:160]}"
        ) from error
    return Merged(whole.eval(), tokenizer)


def save_merged(merged: Merged, folder: Path) -> None:
    """Weights as safetensors, configuration, tokenizer and chat template, as transformers and vLLM load them."""
    merged.model.save_pretrained(folder)
    merged.tokenizer.save_pretrained(folder)


def agreement(merged: Merged, other: Any) -> Agreement:
    """How another form of the same model, loaded by transformers, compares on a few fixed prompts."""
    import torch

    nats, same = 0.0, True
    with torch.no_grad():
        for text in _PROBES:
            ids = torch.tensor([merged.tokenizer(text)["input_ids"]])
            ours, theirs = (torch.log_softmax(one(ids).logits.float(), -1) for one in (merged.model, other))
            nats = max(nats, _likely(ours, theirs))
            same &= bool((_greedy(merged.model, ids) == _greedy(other, ids)).all())
    return Agreement(nats, same)


def _likely(ours: "torch.Tensor", theirs: "torch.Tensor") -> float:
    """Of the ten likeliest tokens at each place: of one that is never said the difference does not matter."""
    top = ours.topk(10, dim=-1).indices
    return float((ours.gather(-1, top) - theirs.gather(-1, top)).abs().max())


def _greedy(model: Any, ids: "torch.Tensor") -> "torch.Tensor":
    """The likeliest next tokens, `GREEDY` of them, one after the other."""
    import torch

    for _ in range(GREEDY):
        ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
    return ids
