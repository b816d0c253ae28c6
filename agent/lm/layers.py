"""The decoder layers of the embedded LM, as functions over the rows of one prompt.

Decision: weights are laid out once for the CPU's matrix product, and rows that nobody reads are not calculated.
PyTorch lays a weight out anew at every product, which for prompts of 40 to 200 tokens costs a third of the product;
oneDNN's own layout, the one that `torch.compile` uses, spares it without a compiler. An adapter is added to the
weights before it is used, so that an agent with an adapter answers as fast as one without. What stays is float32,
one prompt at a time: larger batches are no faster once the layout is kept, and one prompt's bits never depend on
another. Where there is no such layout (no x86, or bfloat16 by AMX) the products are PyTorch's own.
"""

import platform
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear, rms_norm, scaled_dot_product_attention, silu

Product = Callable[[Tensor], Tensor]
"""Rows [n, in] to rows [n, out]; gradients flow to the rows alone."""
Rotary = tuple[Tensor, Tensor]
"""Cosines and sines of the rows' positions, [n, head] each."""
KeysValues = tuple[Tensor, Tensor]
"""Of one layer, [kv_heads, n, head] each."""

ROWS = 128
"""A usual number of rows: what the layout is chosen for; others are right as well."""


class Layer(NamedTuple):
    """One decoder layer: what its products are, whatever adapter is in them."""

    norm: Product
    queries: Product
    keys_values: Product
    """Keys, then values, side by side."""
    out: Product
    norm_after: Product
    gate: Product
    up: Product
    down: Product
    heads: int
    kv_heads: int


def fixed_layer(module: Any, adapter: str | None = None) -> Layer:
    """A layer of transformers' `LlamaModel`, its weights copied and laid out; an attached adapter's are added."""

    def weight(name: str) -> Tensor:
        return _weight(module, name, adapter)

    return _layer(
        module,
        queries=product(weight("self_attn.q_proj")),
        keys_values=product(torch.cat([weight("self_attn.k_proj"), weight("self_attn.v_proj")])),
        **{short: product(weight(name)) for short, name in _OTHERS.items()},
    )


def trained_layer(module: Any) -> Layer:
    """A layer whose projections are asked as they are: gradients reach the adapter that is attached to them."""
    attention = module.self_attn

    def keys_values(rows: Tensor) -> Tensor:
        return torch.cat([attention.k_proj(rows), attention.v_proj(rows)], dim=-1)

    others = {short: module.get_submodule(name) for short, name in _OTHERS.items()}
    return _layer(module, queries=attention.q_proj, keys_values=keys_values, **others)


_OTHERS = {
    "out": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}


def _layer(module: Any, **products: Product) -> Layer:
    config = module.self_attn.config
    return Layer(
        norm=norm(module.input_layernorm),
        norm_after=norm(module.post_attention_layernorm),
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        **products,
    )


def norm(module: Any) -> Product:
    """A `LlamaRMSNorm` in one call."""
    return partial(
        rms_norm, normalized_shape=module.weight.shape, weight=module.weight, eps=module.variance_epsilon
    )


def _weight(module: Any, name: str, adapter: str | None) -> Tensor:
    projection = module.get_submodule(name)
    base: Tensor = getattr(projection, "base_layer", projection).weight.detach()
    if adapter is None or adapter not in getattr(projection, "lora_A", {}):
        return base
    added: Tensor = projection.get_delta_weight(adapter).detach()
    return base + added


def product(weight: Tensor) -> Product:
    """Rows times a weight [out, in] that never changes."""
    if weight.dtype != torch.float32 or not _lays_out():
        return partial(linear, weight=weight)
    laid_out = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), ROWS)

    def times(rows: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return _times(rows, laid_out)
        result: Tensor = _Product.apply(rows, laid_out, weight)  # type: ignore[no-untyped-call]
        return result

    return times


def _lays_out() -> bool:
    return platform.machine() in ("x86_64", "AMD64") and bool(torch._C._has_mkldnn)


def _times(rows: Tensor, laid_out: Tensor) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise.default(rows, laid_out, None, "none", [], "")
    return result


class _Product(torch.autograd.Function):
    """A product with a laid out weight; on the way back with the plain one."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, laid_out: Tensor, weight: Tensor) -> Tensor:
        ctx.weight = weight
        return _times(rows, laid_out)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient @ ctx.weight, None, None


def run_layer(
    layer: Layer,
    state: Tensor,
    rotary: Rotary,
    mask: Tensor | None,
    *,
    before: KeysValues | None = None,
    first: int = 0,
) -> tuple[Tensor, KeysValues]:
    """What the layer makes of the rows, and their keys and values.

    Args:
        layer: the layer.
        state: rows that go in, [n, width].
        rotary: of the rows' positions.
        mask: `additive` of which rows each row sees, [n, before + n]; None = itself and what stands before it.
        before: keys and values of rows that all of these see.
        first: rows before this one are seen and not calculated: [n − first, width] comes out.
    """
    rows = layer.norm(state)
    cos, sin = rotary
    own = keys, values = _keys_values(layer, rows, rotary)
    if before is not None:
        keys, values = torch.cat([before[0], keys], dim=1), torch.cat([before[1], values], dim=1)
    asked = layer.queries(rows[first:]).view(len(rows) - first, layer.heads, -1).transpose(0, 1)
    queries = _rotated(asked, cos[first:], sin[first:])
    seen = scaled_dot_product_attention(
        queries[None],
        keys[None],
        values[None],
        attn_mask=None if mask is None else mask[None, None, first:],
        is_causal=mask is None,
        enable_gqa=True,
    )
    state = state[first:] + layer.out(seen[0].transpose(0, 1).reshape(len(rows) - first, -1))
    rows = layer.norm_after(state)
    return state + layer.down(silu(layer.gate(rows)) * layer.up(rows)), own


def keys_values(layer: Layer, state: Tensor, rotary: Rotary) -> KeysValues:
    """What other rows see of these, which nobody else asks about."""
    return _keys_values(layer, layer.norm(state), rotary)


def _keys_values(layer: Layer, rows: Tensor, rotary: Rotary) -> KeysValues:
    both = layer.keys_values(rows).view(len(rows), 2 * layer.kv_heads, -1).transpose(0, 1)
    return _rotated(both[: layer.kv_heads], *rotary), both[layer.kv_heads :]


def additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """Which rows each row sees, bool, as what is added to its scores: once for all layers."""
    return torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, float("-inf"))


def _rotated(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = heads.shape[-1] // 2
    turned = torch.cat([-heads[..., half:], heads[..., :half]], dim=-1)
    return heads * cos + turned * sin


def token_log_probs(logits: Tensor, read: Tensor, targets: Tensor) -> Tensor:
    """Log-probabilities (nats) [N] of tokens `targets` [N] in rows `read` [N] of `logits` [rows, vocabulary]."""
    found: Tensor = _TokenLogProbs.apply(logits, read, targets)  # type: ignore[no-untyped-call]
    return found


class _TokenLogProbs(torch.autograd.Function):
    """Its gradient adds up rows that are read twice one after the other, never by a race between threads."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, read: Tensor, targets: Tensor) -> Tensor:
        total = logits.logsumexp(dim=-1)
        places = read * logits.shape[1] + targets
        ctx.save_for_backward(logits, total, read, places)
        return logits.view(-1)[places] - total[read]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        logits, total, read, places = ctx.saved_tensors
        by_row = torch.zeros_like(total).index_add_(0, read, gradient)
        result = (logits - total[:, None]).exp_().mul_(-by_row[:, None])
        result.view(-1).index_add_(0, places, gradient)
        return result, None, None
