"""The embedded LM: SmolLM2-135M-Instruct on the CPU, made for scoring given options quickly.

Decision: the model is cut once, at layer `TRUNK`. Below it nothing is ever trained, so what the trunk makes of
a prompt is computed once per process and shared by every adapter, by evaluation and by training; of a prompt,
the part that recurs (instructions and tools) is shared between requests as well, and what stands before the tools
between all of them. Each prompt is calculated alone,
with its options packed behind it under a tree mask (each option sees the prompt and itself): no padding, and a
result that never depends on what else was asked, which is what makes candidate ids repeatable. Several prompts go
side by side, each on a core of its own: two cores at two prompts are nearly twice as fast as one, two cores at the
small products of one prompt are not. What a batch would gain beside that, the weights' layout gains (`layers.py`).
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ratchet.agent.errors import BadInput
from ratchet.agent.lm.adapters import TRUNK, Adapters
from ratchet.agent.lm.kept import Kept
from ratchet.agent.lm.lm import Prompt, Scores, Training, Written
from ratchet.agent.lm.packing import Packed, pack_prompt
from ratchet.agent.lm.prompt_format import OPTIONS
from ratchet.agent.record import Json, content_hash
from ratchet.agent.trace import Usage

if TYPE_CHECKING:
    import torch

    from ratchet.agent.lm.layers import KeysValues, Layer, Rotary

PRECISION = "RATCHET_LM_PRECISION"
SIDE_BY_SIDE = 4
"""Prompts that are calculated at the same time at most, with as many cores each as there are."""
ABOVE = 500
"""First parts of prompts that are kept for the upper layers, for one adapter each (some 0.6 MB)."""
ADAPTED = 3
"""Adapters whose weights, added to the model's, are kept (60 MB each, and as much laid out)."""

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class SmolLM2:
    """SmolLM2 with any number of LoRA adapters on its upper layers.

    Any thread may ask for scores; `generate` and `training` change the model, and go one at a time.
    """

    def __init__(self, folder: Path, *, cache_bytes: int = 1_500_000_000) -> None:
        """Load the dequantized weights from `folder` (see `weights_folder`); ~2 s.

        `cache_bytes` are a third for whole prompts, the rest for what prompts begin with (40 KB a token).
        """
        import torch
        from transformers import AutoTokenizer, LlamaForCausalLM
        from transformers.utils import logging

        from ratchet.agent.lm.layers import fixed_layer, norm, product

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model: Any = LlamaForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="sdpa"
        )
        self.model.train(False)
        self.model.requires_grad_(False)
        self._half = self._in_half()
        if self._half:  # embedding, last norm and head stay exact: they make the probabilities
            self.model.model.layers.to(torch.bfloat16)
        self.adapters = Adapters(self.model, folder)
        self._trunk_layers = [fixed_layer(layer) for layer in self.model.model.layers[:TRUNK]]
        self._upper_layers: Kept[list[Layer]] = Kept(ADAPTED)
        linear: list[Any] = [
            m for u in self._upper_modules for m in u.modules() if type(m) is torch.nn.Linear
        ]
        for module in linear:
            module.forward = product(module.weight)  # below an adapter in training, too
        self._norm, self._head = norm(self.model.model.norm), product(self.model.lm_head.weight)
        self._trunks: Kept[torch.Tensor] = Kept(cache_bytes // 3, lambda rows: rows.nbytes)
        self._scores: dict[str, Scores] = {}
        self._written: dict[str, Written] = {}
        self._prefixes: Kept[Prefix] = Kept(cache_bytes - cache_bytes // 3, lambda prefix: prefix.nbytes)
        self._above_prefixes: Kept[list[KeysValues]] = Kept(ABOVE)
        self._lock = threading.RLock()
        self._encode = deepcopy(self.tokenizer.backend_tokenizer).encode  # padding is set on the other one
        self._pool = _pool(torch.get_num_threads(), prompts_at_once())

    def _in_half(self) -> bool:
        """Whether the layers calculate in bfloat16: where the CPU multiplies it in hardware (AMX)."""
        import torch

        wanted = os.environ.get(PRECISION, "auto")
        if wanted not in ("auto", "float32"):
            raise BadInput(
                f"{PRECISION} is {wanted!r}: use `auto`, or `float32` for the same numbers on every CPU"
            )
        return wanted == "auto" and bool(torch.cpu.get_capabilities().get("amx_bf16"))

    @property
    def _upper_modules(self) -> list[Any]:
        return list(self.model.model.layers[TRUNK:])

    def _embed(self, ids: "torch.Tensor") -> "torch.Tensor":
        embedded: torch.Tensor = self.model.model.embed_tokens(ids)
        return embedded.to(next(self.model.model.layers[0].parameters()).dtype)

    def _rotary(self, rows: "torch.Tensor", positions: "torch.Tensor") -> "Rotary":
        cos, sin = self.model.model.rotary_emb(rows[None], positions[None])
        return cos[0], sin[0]

    def score(self, prompt: Prompt, *, adapter: Path | None = None) -> Scores:
        """Log-probability of each choice; its tokens count the same whether or not a cache spared the work.

        Raises:
            BadInput: a prompt without choices.
        """
        key = content_hash([str(adapter), *_content(prompt)], length=32)
        if (known := self._scores.get(key)) is None:
            known = self._pool.submit(self._score, prompt, adapter).result()
            self._scores[key] = known
        return known._replace(log_probs=known.log_probs.copy())

    def _score(self, prompt: Prompt, adapter: Path | None) -> Scores:
        import torch

        packed = pack_prompt(prompt, self.tokens)
        with torch.no_grad():
            hidden, layers = self.trunk(prompt, packed), self._adapted(adapter)
            above = self._above(str(adapter), prompt.prefix, hidden[: len(packed.prefix)], layers)
            log_probs = self.upper(hidden, packed, layers, above)
        return Scores(log_probs.double().numpy(), packed.n_tokens)

    def tokens(self, text: str) -> list[int]:
        """The text's token ids; control tokens are read as such, and none are added."""
        ids: list[int] = self._encode(text, add_special_tokens=False).ids
        return ids

    @contextmanager
    def training(self, config: Any, seed: int) -> Iterator[Training]:
        """A fresh adapter of this `LoraConfig`, attached as long as it is trained."""
        from ratchet.agent.lm.layers import trained_layer

        def log_probs(prompt: Prompt) -> "torch.Tensor":
            packed = pack_prompt(prompt, self.tokens)
            return self.upper(self.trunk(prompt, packed), packed, layers)

        with self.adapters.training(config, seed) as parameters:
            layers = [trained_layer(module) for module in self._upper_modules]
            yield Training(parameters, log_probs, self._each, self.adapters.save)

    def _each(self, ask: Callable[[Item], Answer], items: Sequence[Item]) -> list[Answer]:
        return list(self._pool.map(ask, items))

    def trunk(self, prompt: Prompt, packed: Packed) -> "torch.Tensor":
        """Activations [tokens, width] at layer `TRUNK`, cached; the same bits whether cached or not."""
        import torch

        key = content_hash(_content(prompt), length=32)
        if (known := self._trunks.get(key)) is not None:
            return known
        from ratchet.agent.lm.layers import additive, run_layer

        with torch.no_grad():
            prefix, cache = self._prefix(prompt.prefix, packed.prefix, prompt.recurs).whole()
            state = self._embed(packed.rest)
            rotary, mask = self._rotary(state, packed.positions), additive(packed.mask, state.dtype)
            for layer, before in zip(self._trunk_layers, cache, strict=True):
                state, _ = run_layer(layer, state, rotary, mask, before=before)
            return self._trunks.put(key, torch.cat([prefix, state]))

    def _prefix(self, text: str, ids: "torch.Tensor", recurs: int) -> "Prefix":
        key = content_hash([text, len(ids), recurs], length=32)
        if (known := self._prefixes.get(key)) is not None:
            return known
        # all that stands before the options recurs with other options, too; the same cut for whoever asks
        start = text[: recurs or text.find(OPTIONS) + len(OPTIONS)] if OPTIONS in text else ""
        head = self.tokens(start)
        if not head or len(head) >= len(ids) or ids[: len(head)].tolist() != head:
            made = self._below(ids)
        else:
            made = self._below(ids[len(head) :], self._prefix(start, ids[: len(head)], 0))
        return self._prefixes.put(key, made)

    def _below(self, ids: "torch.Tensor", before: "Prefix | None" = None) -> "Prefix":
        """These tokens' rows behind those that are known."""
        import torch

        from ratchet.agent.lm.layers import additive, run_layer

        rows, known = before.whole() if before else (ids[:0], [])
        state, n, start = self._embed(ids), len(ids), len(rows)
        rotary = self._rotary(state, torch.arange(start, start + n))
        seen = torch.ones(n, start + n, dtype=torch.bool).tril(start)
        mask = additive(seen, state.dtype) if before else None
        pairs = []
        for place, layer in enumerate(self._trunk_layers):
            ahead = known[place] if before else None
            state, (keys, values) = run_layer(layer, state, rotary, mask, before=ahead)
            pairs.append((keys, values.contiguous()))  # not a view of twice as much
        return Prefix(state, pairs, before)

    def _above(
        self, adapter: str, text: str, rows: "torch.Tensor", layers: "list[Layer]"
    ) -> "list[KeysValues]":
        """Keys and values of a prompt's first part in the upper layers, from its trunk activations."""
        import torch

        from ratchet.agent.lm.layers import keys_values, run_layer

        key = content_hash([adapter, text, len(rows)], length=32)
        if (known := self._above_prefixes.get(key)) is not None:
            return known
        state, pairs, rotary = rows, [], self._rotary(rows, torch.arange(len(rows)))
        for layer in layers[:-1]:
            state, pair = run_layer(layer, state, rotary, None)
            pairs.append(pair)
        pairs.append(keys_values(layers[-1], state, rotary))
        return self._above_prefixes.put(key, pairs)

    def _adapted(self, adapter: Path | None) -> "list[Layer]":
        """The upper layers with this adapter's weights added."""
        from ratchet.agent.lm.layers import fixed_layer

        with self._lock:
            name = "" if adapter is None else self.adapters.attach(adapter)
            if (known := self._upper_layers.get(name)) is None:
                made = [fixed_layer(module, name or None) for module in self._upper_modules]
                known = self._upper_layers.put(name, made)
            return known

    def upper(
        self,
        hidden: "torch.Tensor",
        packed: Packed,
        layers: "list[Layer] | None" = None,
        above: "list[KeysValues] | None" = None,
    ) -> "torch.Tensor":
        """From trunk activations to the options' log-probabilities [n_options]; differentiable.

        `layers` are the upper layers with an adapter; None = without any. The last one calculates read rows only.
        `above` are their keys and values of the prompt's first part; None = they are calculated as well.
        """
        import torch

        from ratchet.agent.lm.layers import additive, run_layer, token_log_probs

        layers = layers or self._adapted(None)
        start, n_all = len(packed.prefix), packed.n_tokens
        seen, positions = packed.mask, packed.positions
        if above is None or packed.first < start:
            seen = torch.ones(n_all, n_all, dtype=torch.bool).tril()
            seen[start:] = packed.mask
            positions = torch.cat([torch.arange(start), packed.positions])
            above, start = None, 0
        state = hidden[start:]
        rotary, mask = self._rotary(state, positions), additive(seen, state.dtype)
        for place, layer in enumerate(layers):
            first = packed.first - start if layer is layers[-1] else 0
            before = above[place] if above else None
            state, _ = run_layer(layer, state, rotary, mask, before=before, first=first)
        logits = self._head(self._norm(state.float()))
        token = token_log_probs(logits, packed.read, packed.targets)
        return torch.zeros(packed.n_options).index_add(0, packed.owner, token)

    def generate(
        self, prompts: Sequence[Prompt], *, adapter: Path | None = None, max_tokens: int = 64
    ) -> list[Written]:
        """Greedy continuations; stops at the end of the turn. The same prompt is written once a process."""
        keys = [content_hash([str(adapter), prompt.text, max_tokens], length=32) for prompt in prompts]
        with self._lock:
            new = {key: p for key, p in zip(keys, prompts, strict=True) if key not in self._written}
            if new:
                written = self._generate(list(new.values()), adapter, max_tokens)
                self._written.update(zip(new, written, strict=True))
        return [self._written[key] for key in keys]

    def _generate(self, prompts: Sequence[Prompt], adapter: Path | None, max_tokens: int) -> list[Written]:
        """One left-padded batch."""
        import torch

        self.tokenizer.padding_side = "left"
        batch = self.tokenizer(
            [p.text for p in prompts], return_tensors="pt", padding=True, add_special_tokens=False
        )
        half = torch.autocast("cpu", torch.bfloat16, enabled=self._half)
        with torch.no_grad(), self.adapters.using(adapter), half:
            out = self.model.generate(
                **batch, max_new_tokens=max_tokens, do_sample=False, pad_token_id=self.tokenizer.pad_token_id
            )
        width = batch["input_ids"].shape[1]
        results = []
        for row, attended in zip(out[:, width:], batch["attention_mask"], strict=True):
            text = str(self.tokenizer.decode(row, skip_special_tokens=True))
            n_out = int((row != self.tokenizer.pad_token_id).sum())
            usage = Usage(input_tokens=int(attended.sum()), output_tokens=n_out, lm_calls=1)
            results.append(Written(text, usage))
        return results


def _content(prompt: Prompt) -> list[Json]:
    return [prompt.prefix, prompt.suffix, list(prompt.choices), prompt.recurs]


@cache
def prompts_at_once() -> int:
    """Prompts that are calculated side by side: one for each of PyTorch's threads, a few at most."""
    import torch

    return min(torch.get_num_threads(), SIDE_BY_SIDE)


def _pool(ours: int, workers: int) -> ThreadPoolExecutor:
    """Threads that calculate a prompt each, with their share of PyTorch's `ours`; the caller keeps all of them."""
    import torch

    def begin() -> None:
        torch.get_num_threads()  # a thread's first question sets its number to all of them: ask before, not after
        torch.set_num_threads(max(ours // workers, 1))

    pool = ThreadPoolExecutor(workers, "prompt", initializer=begin)
    together = threading.Barrier(workers)
    list(pool.map(lambda _: together.wait(), range(workers)))  # all have begun
    torch.set_num_threads(ours)  # PyTorch takes the last number for every thread to come
    return pool


class Prefix(NamedTuple):
    """What the trunk makes of a prompt's first part: its rows [P, width], and each layer's keys and values.

    What several begin with is held once, as the `before` of each.
    """

    rows: "torch.Tensor"
    pairs: "list[KeysValues]"
    before: "Prefix | None" = None

    def whole(self) -> "tuple[torch.Tensor, list[KeysValues]]":
        """Rows, keys and values from the first token on."""
        import torch

        if self.before is None:
            return self.rows, self.pairs
        rows, pairs = self.before.whole()
        both = zip(pairs, self.pairs, strict=True)
        joined = [(torch.cat([a, c], dim=1), torch.cat([b, d], dim=1)) for (a, b), (c, d) in both]
        return torch.cat([rows, self.rows]), joined

    @property
    def nbytes(self) -> int:
        """Bytes that it holds itself."""
        return int(self.rows.nbytes) + sum(int(k.nbytes) + int(v.nbytes) for k, v in self.pairs)
