"""The embedded LM: SmolLM2-135M-Instruct on the CPU, made for scoring given options quickly.

Decision: the model is cut once, at layer `TRUNK`. Below it nothing is ever trained, so what the trunk makes of
a prompt is computed once per process and shared by every adapter, by evaluation and by training; of a prompt,
the part that recurs (instructions and tools) is shared between requests as well. Each prompt is a batch of
one, with its options packed behind it under a tree mask (each option sees the prompt and itself): no
padding, and a result that never depends on what else was asked, which is what makes candidate ids repeatable.
"""

import json
import os
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ratchet.agent.errors import BadInput
from ratchet.agent.lm.weights import EMBEDDED_MODEL
from ratchet.agent.record import content_hash
from ratchet.agent.trace import Usage

if TYPE_CHECKING:
    import torch

TRUNK = 26
"""Layers below this one (of 30) are never trained."""
PRECISION = "RATCHET_LM_PRECISION"
FRESH = "fresh"
"""Name of the adapter in training."""
MAX_PROMPT_TOKENS = 1024
"""Longer prompts lose the middle of their prefix: what stands there are tool descriptions."""


class Prompt(NamedTuple):
    """A prompt in two parts, and what may follow it."""

    prefix: str
    """Recurs between requests: instructions, demos, tools."""
    suffix: str
    """This request alone."""
    choices: tuple[str, ...] = ()
    """Admissible continuations; empty = free text."""

    @property
    def text(self) -> str:
        """The whole prompt."""
        return self.prefix + self.suffix


class Scores(NamedTuple):
    """What an LM makes of given options."""

    log_probs: np.ndarray
    """Nats, summed over tokens, float64 [n_options]."""
    input_tokens: int


class Written(NamedTuple):
    """Free text that an LM wrote."""

    text: str
    usage: Usage


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


class EmbeddedLM:
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
        self._trunk_layers = list(self.model.model.layers[:TRUNK])
        self._wrapped: Any = None
        self._loaded: set[str] = set()
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
            packed = self.pack(prompt)
            with torch.no_grad(), self._using(adapter):
                log_probs = self.upper(self.trunk(prompt, packed), packed).double().numpy()
            self._scores[key] = Scores(log_probs, packed.n_tokens)
        known = self._scores[key]
        return known._replace(log_probs=known.log_probs.copy())

    def pack(self, prompt: Prompt) -> Packed:
        """Tokenize a prompt and its choices into one sequence with a tree mask."""
        import torch

        if not prompt.choices:
            raise BadInput(f"prompt {prompt.suffix[-60:]!r} has no choices to score: give at least one")
        prefix, suffix = self._tokens(prompt.prefix), self._tokens(prompt.suffix)
        if len(prefix) + len(suffix) > MAX_PROMPT_TOKENS:
            room = MAX_PROMPT_TOKENS - min(len(suffix), MAX_PROMPT_TOKENS // 2)
            if len(prefix) > room:
                prefix = prefix[: room // 2] + prefix[-(room // 2) :]
            suffix = suffix[-(MAX_PROMPT_TOKENS - len(prefix)) :]
        options = [self._tokens(choice + "<|im_end|>") for choice in prompt.choices]
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

    def _tokens(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

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
        with torch.no_grad(), self._using(adapter), half:
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

    @contextmanager
    def _using(self, adapter: Path | None) -> Iterator[None]:
        if adapter is not None:
            self.attach(adapter)
            self._wrapped.set_adapter(_key(str(adapter)))
            self._wrapped.requires_grad_(False)
            yield
        elif self._wrapped is not None:
            with self._wrapped.disable_adapter():
                yield
        else:
            yield

    def attach(self, adapter: Path) -> None:
        """Load a LoRA adapter, once.

        Raises:
            BadInput: there is no adapter, or it touches layers of the shared trunk.
        """
        from peft import LoraConfig, PeftModel

        name = str(adapter)
        if name in self._loaded:
            return
        if not (adapter / "adapter_config.json").is_file():  # peft would go and ask a hub for it
            raise BadInput(f"no adapter in {name}: give the folder that holds adapter_config.json")
        layers = LoraConfig.from_pretrained(name).layers_to_transform
        if not isinstance(layers, list) or min(layers) < TRUNK:
            raise BadInput(
                f"adapter {name} changes layers {layers}; the embedded LM shares all below {TRUNK}: "
                f"train it with layers_to_transform={TRUNK}…29"
            )
        if self._wrapped is None:
            with warnings.catch_warnings():
                warnings.filterwarnings(
                    "ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning
                )
                self._wrapped = PeftModel.from_pretrained(self.model, name, adapter_name=_key(name))
        else:
            self._wrapped.load_adapter(name, adapter_name=_key(name))
        self._wrapped.eval()
        self._loaded.add(name)

    @contextmanager
    def training(self, config: Any) -> Iterator[list["torch.nn.Parameter"]]:
        """Attach a fresh adapter of this `LoraConfig`, yield its parameters, and take it off again.

        Save it inside with `save_adapter`.
        """
        from peft import get_peft_model

        if self._wrapped is None:
            with warnings.catch_warnings():
                # peft asks transformers for a property that is on its way out
                warnings.filterwarnings(
                    "ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning
                )
                self._wrapped = get_peft_model(self.model, config, adapter_name=FRESH)
        else:
            self._wrapped.add_adapter(FRESH, config)
        self._wrapped.set_adapter(FRESH)
        try:
            yield [p for n, p in self._wrapped.named_parameters() if f".{FRESH}." in n]
        finally:
            if self._loaded:
                self._wrapped.set_adapter(_key(min(self._loaded)))
                self._wrapped.delete_adapter(FRESH)
            else:  # nothing is left to switch to: take the wrapping off as well
                self._wrapped.unload()
                self._wrapped = None

    def save_adapter(self, folder: Path) -> None:
        """Write the adapter in training to `folder`, as safetensors and its configuration."""
        # otherwise a path of this machine stands in the file, and the hash differs on the next one
        self._wrapped.peft_config[FRESH].base_model_name_or_path = EMBEDDED_MODEL
        self._wrapped.save_pretrained(str(folder), selected_adapters=[FRESH], save_embedding_layers=False)
        for path in sorted((folder / FRESH).iterdir()):
            path.replace(folder / path.name)
        (folder / FRESH).rmdir()
        _sort_lists(folder / "adapter_config.json")
        (folder / "README.md").unlink(missing_ok=True)


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


def _sort_lists(config: Path) -> None:
    """Sets of names come out in another order in every process, and the adapter's hash with them."""
    values = json.loads(config.read_text())
    names = {
        k: sorted(v) for k, v in values.items() if isinstance(v, list) and all(isinstance(x, str) for x in v)
    }
    config.write_text(json.dumps(values | names, indent=2, sort_keys=True) + "\n")


def _key(adapter: str) -> str:
    """A module name must not contain a dot or slash."""
    return "a" + content_hash(adapter)
