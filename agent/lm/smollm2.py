"""The embedded LM: SmolLM2-135M-Instruct on the CPU, made for scoring given options quickly.

Decision: the model is cut once, at layer `TRUNK`. Below it nothing is ever trained, so what the trunk makes of
a prompt is computed once per process and shared by every adapter, by evaluation and by training; of a prompt,
the part that recurs (instructions and tools) is shared between requests as well. Each prompt is a batch of
one, with its options packed behind it under a tree mask (each option sees the prompt and itself): no
padding, and a result that never depends on what else was asked, which is what makes candidate ids repeatable.
"""

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratchet.agent.errors import BadInput
from ratchet.agent.lm.adapters import TRUNK, Adapters
from ratchet.agent.lm.lm import Prompt, Scores, Training, Written
from ratchet.agent.lm.packing import Packed, pack_prompt
from ratchet.agent.record import content_hash
from ratchet.agent.trace import Usage

if TYPE_CHECKING:
    import torch

PRECISION = "RATCHET_LM_PRECISION"


class SmolLM2:
    """SmolLM2 with any number of LoRA adapters on its upper layers. Not safe for use from several threads."""

    def __init__(self, folder: Path, *, cache_bytes: int = 1_500_000_000) -> None:
        """Load the dequantized weights from `folder` (see `weights_folder`); ~2 s."""
        import torch
        from transformers import AutoTokenizer, LlamaForCausalLM
        from transformers.utils import logging

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
        self.adapters = Adapters(self.model)
        self._trunk_layers = list(self.model.model.layers[:TRUNK])
        self._trunks: OrderedDict[str, torch.Tensor] = OrderedDict()
        self._scores: dict[str, Scores] = {}
        self._written: dict[str, Written] = {}
        self._prefixes: OrderedDict[str, tuple[torch.Tensor, Any]] = OrderedDict()
        self._cache_bytes = cache_bytes

    def _in_half(self) -> bool:
        """Whether the layers calculate in bfloat16: where the CPU multiplies it in hardware (AMX)."""
        import torch

        wanted = os.environ.get(PRECISION, "auto")
        if wanted not in ("auto", "float32"):
            raise BadInput(
                f"{PRECISION} is {wanted!r}: use `auto`, or `float32` for the same numbers on every CPU"
            )
        return wanted == "auto" and bool(torch.cpu.get_capabilities().get("amx_bf16"))

    def _embed(self, ids: "torch.Tensor") -> "torch.Tensor":
        dtype = next(self._trunk_layers[0].parameters()).dtype
        embedded: torch.Tensor = self.model.model.embed_tokens(ids[None]).to(dtype)
        return embedded

    def score(self, prompt: Prompt, *, adapter: Path | None = None) -> Scores:
        """Log-probability of each choice; its tokens count the same whether or not a cache spared the work.

        Raises:
            BadInput: a prompt without choices.
        """
        import torch

        key = content_hash([str(adapter), *prompt[:2], list(prompt.choices)], length=32)
        if key not in self._scores:
            packed = pack_prompt(prompt, self.tokens)
            with torch.no_grad(), self.adapters.using(adapter):
                log_probs = self.upper(self.trunk(prompt, packed), packed).double().numpy()
            self._scores[key] = Scores(log_probs, packed.n_tokens)
        known = self._scores[key]
        return known._replace(log_probs=known.log_probs.copy())

    def tokens(self, text: str) -> list[int]:
        """The text's token ids; control tokens are read as such, and none are added."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    @contextmanager
    def training(self, config: Any, seed: int) -> Iterator[Training]:
        """A fresh adapter of this `LoraConfig`, attached as long as it is trained."""

        def log_probs(prompt: Prompt) -> "torch.Tensor":
            packed = pack_prompt(prompt, self.tokens)
            return self.upper(self.trunk(prompt, packed), packed)

        with self.adapters.training(config, seed) as parameters:
            yield Training(parameters, log_probs, self.adapters.save)

    def trunk(self, prompt: Prompt, packed: Packed) -> "torch.Tensor":
        """Activations [tokens, width] at layer `TRUNK`, cached; the same bits whether cached or not."""
        import torch

        key = content_hash([prompt.prefix, prompt.suffix, list(prompt.choices)], length=32)
        if (known := self._trunks.get(key)) is not None:
            self._trunks.move_to_end(key)
            return known
        with torch.no_grad():
            prefix, cache = self._prefix(prompt.prefix, packed.prefix)
            hidden = self._embed(packed.rest)
            rotary = self.model.model.rotary_emb(hidden, packed.positions[None])
            for layer, (keys, values) in zip(self._trunk_layers, cache, strict=True):
                hidden = layer(
                    hidden,
                    attention_mask=packed.mask[None, None],
                    position_embeddings=rotary,
                    past_key_values=_Before(keys, values),
                )
            whole = torch.cat([prefix, hidden[0]])
        self._trunks[key] = whole
        self._evict()
        return whole

    def _prefix(self, text: str, ids: "torch.Tensor") -> tuple["torch.Tensor", list[Any]]:
        key = content_hash([text, len(ids)], length=32)
        if (known := self._prefixes.get(key)) is not None:
            self._prefixes.move_to_end(key)
            return known
        from transformers import DynamicCache

        cache: Any = DynamicCache()
        import torch

        hidden = self._embed(ids)
        rotary = self.model.model.rotary_emb(hidden, torch.arange(len(ids))[None])
        for layer in self._trunk_layers:
            hidden = layer(hidden, position_embeddings=rotary, past_key_values=cache)
        pairs = [(layer.keys, layer.values) for layer in cache.layers[:TRUNK]]
        self._prefixes[key] = (hidden[0], pairs)
        return self._prefixes[key]

    def _evict(self) -> None:
        """Drop what was used least recently: half of the room for prompts, half for prefixes."""
        half = self._cache_bytes // 2
        while len(self._trunks) > 1 and sum(t.nbytes for t in self._trunks.values()) > half:
            self._trunks.popitem(last=False)
        while len(self._prefixes) > 1 and sum(_nbytes(p) for p in self._prefixes.values()) > half:
            self._prefixes.popitem(last=False)

    def upper(self, hidden: "torch.Tensor", packed: Packed) -> "torch.Tensor":
        """From trunk activations to the options' log-probabilities [n_options]; differentiable."""
        import torch

        n_prefix, n_all = len(packed.prefix), packed.n_tokens
        mask = torch.zeros(n_all, n_all, dtype=torch.bool)
        mask[:n_prefix, :n_prefix] = torch.tril(torch.ones(n_prefix, n_prefix, dtype=torch.bool))
        mask[n_prefix:] = packed.mask
        positions = torch.cat([torch.arange(n_prefix), packed.positions])
        state = hidden[None]
        rotary = self.model.model.rotary_emb(state, positions[None])
        for layer in self.model.model.layers[TRUNK:]:
            state = layer(state, attention_mask=mask[None, None], position_embeddings=rotary)
        # not `state[0, read]`: its gradient adds rows that are read twice by a race between threads
        last = state[0].index_select(0, packed.read)
        logits = self.model.lm_head(self.model.model.norm(last.float()))
        token = torch.log_softmax(logits, dim=-1).gather(1, packed.targets[:, None])[:, 0]
        return torch.zeros(packed.n_options).index_add(0, packed.owner, token)

    def generate(
        self, prompts: Sequence[Prompt], *, adapter: Path | None = None, max_tokens: int = 64
    ) -> list[Written]:
        """Greedy continuations; stops at the end of the turn. The same prompt is written once a process."""
        keys = [content_hash([str(adapter), prompt.text, max_tokens], length=32) for prompt in prompts]
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


class _Before:
    """The one method of transformers' `Cache` that a decoder layer calls, over a fixed prefix."""

    def __init__(self, keys: "torch.Tensor", values: "torch.Tensor") -> None:
        self.keys, self.values = keys, values

    def update(
        self, keys: Any, values: Any, layer_idx: int, *_: Any
    ) -> tuple["torch.Tensor", "torch.Tensor"]:
        import torch

        return torch.cat([self.keys, keys], dim=2), torch.cat([self.values, values], dim=2)


def _nbytes(prefix: tuple["torch.Tensor", list[Any]]) -> int:
    hidden, pairs = prefix
    return int(hidden.nbytes) + sum(int(k.nbytes) + int(v.nbytes) for k, v in pairs)
