"""How a LoRA is trained on this machine: what a person sets, and what is picked where nobody does.

Measured, real tokens a second against a padded trainer (`tests/bench/bench_lora_speed.py`): on CUDA what counts is
rows without padding, fused kernels or compiled layers, and bfloat16 all through; on the CPU that only the upper
layers are differentiated, that rows hold no padding, and that the vocabulary's logits are calculated only where
there is something to learn.
"""

from importlib.util import find_spec
from typing import Any, Final, NamedTuple

from pydantic import Field

from ratchet.agent.record import Record

UPPER_SHARE: Final = 0.2
"""Of the layers, those that are trained on a CPU."""
CPU_ROW: Final = 1024
"""Tokens of a row on the CPU: attention there reckons with all pairs of a row's tokens."""
COMPILED_FLOP: Final = 2e16
"""Of a training on a card: from here on its layers are compiled. It takes some 20 s and saves a fifth of the rest."""
QLORA_SHARE: Final = 0.6
"""Where the weights in bfloat16 take more of the card than this, they are held in 4 bits."""


class LoraSettings(Record):
    """What may be set of the training of one adapter."""

    rank: int = Field(default=16, ge=1, le=256)
    epochs: int = Field(default=2, ge=1, le=50)
    learning_rate: float = Field(default=1e-3, gt=0, le=1)
    batch_size: int = Field(default=8, ge=1, le=512)
    """Examples of one step."""
    first_layer: int | None = Field(default=None, ge=0)
    """Layers from this one to the last get adapters; None = all on a GPU, the upper ones on a CPU."""
    max_length: int = Field(default=2048, ge=16)
    """Tokens of a conversation that are read, the last ones."""
    processes: int | None = Field(default=None, ge=1, le=64)
    """Processes that train together, each on a card of its own; None = one for each card. Not with `options`."""


class Machine(NamedTuple):
    """How to calculate here."""

    device: str
    half: bool
    """In bfloat16."""
    attention: str
    """What transformers calls it."""
    liger: bool
    four_bits: bool
    row: int
    """Tokens of a row of packed conversations."""
    free_bytes: int = 0
    """Of the card's memory, once the weights are in it; 0 = a CPU's, which is not watched."""


def machine(weights_bytes: int, max_length: int) -> Machine:
    """What this machine does best.

    Args:
        weights_bytes: of the base model in bfloat16.
        max_length: tokens of the longest conversation.
    """
    import torch

    if not torch.cuda.is_available():
        half = bool(torch.cpu.get_capabilities().get("amx_bf16"))
        return Machine("cpu", half, "sdpa", liger=False, four_bits=False, row=min(max_length, CPU_ROW))
    memory = torch.cuda.get_device_properties(0).total_memory
    four_bits = weights_bytes > QLORA_SHARE * memory and _has("bitsandbytes")
    return Machine(
        "cuda",
        half=torch.cuda.is_bf16_supported(),
        attention="flash_attention_2" if _has("flash_attn") else "flex_attention",
        liger=_has("liger_kernel"),
        four_bits=four_bits,
        row=max_length,
        free_bytes=memory - (weights_bytes // 4 if four_bits else weights_bytes),
    )


class Pieces(NamedTuple):
    """How a step is cut so that its activations fit."""

    rows: int
    """Rows at once."""
    times: int
    """So often, before the weights move."""
    recompute: bool
    """Activations are calculated again on the way back instead of kept."""


def cut(here: Machine, rows: int, width: int, n_layers: int, hidden: int) -> Pieces:
    """A step of `rows` rows of `width` tokens, on this machine and a model of this shape.

    A token's activations of a layer take some 34 bytes a hidden unit in bfloat16 (Korthikanti et al., 2022); half of
    the free memory is left to the rest. Measured with LoRA on all linear layers: 37 to 40 bytes where the layers are
    compiled, 59 where not, all that is in the memory counted.
    """
    if here.device == "cpu":
        return Pieces(rows, 1, recompute=False)
    whole = 34 * n_layers * hidden * width
    fits = int(0.5 * here.free_bytes / whole)
    if fits < 1:  # kept is then one hidden state a layer
        fits, recompute = max(1, int(0.5 * here.free_bytes / (2 * n_layers * hidden * width))), True
    else:
        recompute = False
    times = -(-rows // fits)
    return Pieces(-(-rows // times), times, recompute)


def worth_compiling(here: Machine, n_weights: int, n_tokens: int) -> bool:
    """Whether the training is long enough that compiled layers save more time than they take.

    Args:
        here: the machine; layers in 4 bits are left as they are.
        n_weights: of the base model.
        n_tokens: of all epochs; each takes 4 floating-point operations a weight, as the base learns nothing.
    """
    return here.device == "cuda" and not here.four_bits and 4 * n_weights * n_tokens > COMPILED_FLOP


def first_layer(settings: LoraSettings, n_layers: int, device: str) -> int:
    """The first layer that gets an adapter."""
    if settings.first_layer is not None:
        return min(settings.first_layer, n_layers - 1)
    return 0 if device == "cuda" else n_layers - max(1, round(UPPER_SHARE * n_layers))


def lora_config(settings: LoraSettings, model: Any, first: int) -> Any:
    """The `peft.LoraConfig`: every linear layer from `first` on."""
    from peft import LoraConfig
    from torch.nn import Linear

    layers = model.get_decoder().layers
    named = {name.rsplit(".", 1)[-1] for name, one in layers.named_modules() if isinstance(one, Linear)}
    return LoraConfig(
        r=settings.rank,
        lora_alpha=2 * settings.rank,
        layers_to_transform=list(range(first, len(layers))),
        target_modules=sorted(named),
        task_type="CAUSAL_LM",
    )


def _has(package: str) -> bool:
    return find_spec(package) is not None
