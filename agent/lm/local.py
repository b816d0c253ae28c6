"""Any causal LM that transformers loads, in this process: `local/<folder or hub name>`, under one adapter or none.

Decision: one model a process, in its own chat template, whatever adapters are attached to it: to change the adapter
loads nothing but the adapter. It is asked the text that an endpoint would be asked, so that an adapter trained here
answers alike behind a server. Options are scored as continuations of the turn that the template begins.
"""

import re
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

import dspy

from ratchet.agent.errors import BadInput
from ratchet.agent.lm.adapters import Adapters
from ratchet.agent.lm.base_models import base_of
from ratchet.agent.lm.embedded import EmbeddedEngine
from ratchet.agent.lm.lm import Prompt, Room, Scores, Training, Written
from ratchet.agent.lm.prompt_format import ASSISTANT, LARGE, in_words
from ratchet.agent.record import content_hash, folder_hash
from ratchet.agent.trace import Usage

WRITTEN_TOKENS: Final = 256
"""Tokens that it writes at most where nobody says how many."""
_BATCH_TOKENS: Final = 8192
"""Of prompts that are written on side by side."""
_KEPT: Final = 20_000
_TURN: Final = re.compile(r"<\|im_start\|>(\w+)\n(.*?)(?:<\|im_end\|>\n?|\Z)", re.DOTALL)


class Local:
    """A model in this process, whichever thread asks."""

    scores_options: ClassVar[bool] = True
    is_trainable: ClassVar[bool] = True
    writes: ClassVar[bool] = True
    completes: ClassVar[bool] = True
    room: ClassVar[Room] = LARGE
    at_once = 1

    def __init__(self, model: str, adapter: Path | None = None) -> None:
        """Get ready to be asked; the model loads at the first question.

        Args:
            model: `local/` and a folder, or a name on the hub.
            adapter: the adapter's folder; None = the base weights.
        """
        self.model, self.adapter = model, adapter
        # DSPy's cache key leaves the engine out: the model string must name the weights
        name = model + (f"+{folder_hash(adapter)}" if adapter else "")
        self.dspy = dspy.LM(name, engine=EmbeddedEngine(self), cache=False)

    def load(self) -> None:
        """Load the weights, once a process.

        Raises:
            BadInput: there is no such model, or it does not load.
        """
        loaded(self.model)

    def score(self, prompt: Prompt) -> Scores:
        """The log-probabilities of the prompt's choices, end of turn included.

        Raises:
            BadInput: a prompt without choices; there is no such model, or its adapter does not fit.
        """
        return loaded(self.model).score(prompt, self.adapter)

    def write(self, prompt: Prompt, *, max_tokens: int = WRITTEN_TOKENS) -> Written:
        """A greedy answer, to the end of the turn."""
        return self.complete([prompt], max_tokens=max_tokens)[0]

    def complete(self, prompts: Sequence[Prompt], *, max_tokens: int) -> list[Written]:
        """Greedy answers, or how they go on where the prompt begins one; those of like length side by side."""
        return loaded(self.model).generate(prompts, self.adapter, max_tokens)

    def training(self, config: Any, *, seed: int) -> AbstractContextManager[Training]:
        """Refused: the loss over options is the embedded LM's; this one learns conversations."""
        raise BadInput(f'{self.model} is trained on conversations: give Lora method="sft", "dpo" or "kto"')

    def price_usd(self, input_tokens: int, output_tokens: int) -> float:
        """Nothing: it is ours."""
        return 0.0


@lru_cache(maxsize=2)
def loaded(model: str) -> "LocalModel":
    """The model, loaded once a process; of three the one that was asked longest ago is dropped."""
    return LocalModel(model)


class Asked(NamedTuple):
    """A prompt as the model reads it."""

    messages: list[dict[str, str]]
    begun: str
    """How the answer begins."""


class LocalModel:
    """A model with its tokenizer and adapters. Safe for use from several threads, which wait for one another."""

    def __init__(self, model: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        _, folder = base_of(model)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = torch.bfloat16 if self._device == "cuda" else torch.float32
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)
        except (ValueError, OSError, KeyError) as error:
            said = str(error).strip().splitlines()[0][:160]
            raise BadInput(f"transformers cannot load a causal LM from {folder}: {said}") from None
        self.model.requires_grad_(False)
        torch.nn.Module.to(self.model, self._device)
        self.model.train(False)
        self.adapters = Adapters(self.model, folder, first_layer=0)
        self._longest = int(getattr(self.model.config, "max_position_embeddings", 4096))
        self._end = _end_of_turn(self.tokenizer, self.model)
        self._lock = threading.RLock()
        self._scores: OrderedDict[str, Scores] = OrderedDict()

    def score(self, prompt: Prompt, adapter: Path | None) -> Scores:
        """Log-probability of each choice, float64 [n_options]."""
        if not prompt.choices:
            raise BadInput(f"prompt {prompt.suffix[-60:]!r} has no choices to score: give at least one")
        key = content_hash([str(adapter), prompt.text, list(prompt.choices)], length=32)
        with self._lock:
            if key not in self._scores:
                self._scores[key] = self._scored(prompt, adapter)
                while len(self._scores) > _KEPT:
                    self._scores.popitem(last=False)
            known = self._scores[key]
        return known._replace(log_probs=known.log_probs.copy())

    def _scored(self, prompt: Prompt, adapter: Path | None) -> Scores:
        """The prompt is read once, then all options side by side behind it."""
        import torch
        from torch.nn.utils.rnn import pad_sequence

        options = [torch.tensor([*self._tokens(choice), self._end]) for choice in prompt.choices]
        longest = max(len(option) for option in options)
        ids = torch.tensor([self._ids(prompt, room=self._longest - longest)], device=self._device)
        targets = pad_sequence(options, batch_first=True).to(self._device)
        with torch.no_grad(), self.adapters.using(adapter):
            read = self.model(ids, use_cache=True)
            logits = read.logits[:, -1:].expand(len(options), -1, -1)
            if longest > 1:
                cache = read.past_key_values
                cache.batch_repeat_interleave(len(options))
                # what fills up stands behind, where no token of an option looks
                logits = torch.cat([logits, self.model(targets[:, :-1], past_key_values=cache).logits], dim=1)
            found = (
                torch.log_softmax(logits.float(), -1).gather(-1, targets[..., None])[..., 0].double().cpu()
            )
        sums = [float(row[: len(option)].sum()) for row, option in zip(found, options, strict=True)]
        n_tokens = ids.shape[1] + sum(len(option) - 1 for option in options)
        return Scores(torch.tensor(sums, dtype=torch.float64).numpy(), n_tokens)

    def generate(self, prompts: Sequence[Prompt], adapter: Path | None, max_tokens: int) -> list[Written]:
        """Greedy continuations, in the prompts' order."""
        room = self._longest - max_tokens
        if room < 1:
            raise BadInput(
                f"{max_tokens} tokens to write, the model reads {self._longest} in all: ask for fewer"
            )
        ids = [self._ids(prompt, room=room) for prompt in prompts]
        found: dict[int, Written] = {}
        with self._lock:
            for batch in by_length([len(one) for one in ids], _BATCH_TOKENS, max_tokens):
                written = self._generated([ids[i] for i in batch], adapter, max_tokens)
                found.update(zip(batch, written, strict=True))
        return [found[i] for i in range(len(prompts))]

    def _generated(self, ids: list[list[int]], adapter: Path | None, max_tokens: int) -> list[Written]:
        import torch

        width, pad = max(map(len, ids)), self.tokenizer.pad_token_id
        pad = self._end if pad is None else pad
        rows = torch.tensor([[pad] * (width - len(one)) + one for one in ids], device=self._device)
        mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in ids], device=self._device)
        with torch.no_grad(), self.adapters.using(adapter):
            out = self.model.generate(
                input_ids=rows, attention_mask=mask, max_new_tokens=max_tokens, do_sample=False,
                eos_token_id=self._end, pad_token_id=pad,
            )  # fmt: skip
        results = []
        for one, row in zip(ids, out[:, width:].tolist(), strict=True):
            said = row[: row.index(self._end) + 1] if self._end in row else row
            text = str(self.tokenizer.decode(said, skip_special_tokens=True))
            results.append(Written(text, Usage(input_tokens=len(one), output_tokens=len(said), lm_calls=1)))
        return results

    def _ids(self, prompt: Prompt, *, room: int) -> list[int]:
        """The prompt in the model's own template; one that is too long loses its middle."""
        asked = as_asked(prompt)
        if self.tokenizer.chat_template:
            text = self.tokenizer.apply_chat_template(
                asked.messages, tokenize=False, add_generation_prompt=True
            )
            ids = self._tokens(text + asked.begun)
        else:
            text = "\n\n".join(message["content"] for message in asked.messages)
            ids = list(self.tokenizer(f"{text}\n{asked.begun}")["input_ids"])
        if len(ids) > room:
            ids = ids[: room // 2] + ids[len(ids) - (room - room // 2) :]
        return ids

    def _tokens(self, text: str) -> list[int]:
        """Control tokens of the template are read as such, and none are added."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def as_asked(prompt: Prompt) -> Asked:
    """A prompt, which is written in the embedded LM's chat format, as messages, and how the answer begins.

    What it asks is what an endpoint is asked (`in_words`).
    """
    text, _, begun = prompt.text.rpartition(ASSISTANT) if ASSISTANT in prompt.text else (prompt.text, "", "")
    whole = Prompt("", f"{text}{ASSISTANT}", prompt.choices)
    turns = (
        [(found[1], found[2]) for found in _TURN.finditer(in_words(whole))]
        if text.count("<|im_start|>") > 1
        else []
    )
    if not turns:
        turns = [("user", in_words(Prompt(text, ASSISTANT, prompt.choices)))]
    return Asked([{"role": role, "content": content} for role, content in turns], begun)


def by_length(lengths: Sequence[int], room: int, more: int) -> Iterator[list[int]]:
    """Places of prompts in batches of like length, each of at most `room` tokens with the `more` that each may write.

    Args:
        lengths: tokens of each prompt.
        room: tokens of a batch, filled up; a longer one stands alone.
        more: tokens that are written to each.
    """
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and (len(batch) + 1) * (lengths[batch[0]] + more) > room:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def _end_of_turn(tokenizer: Any, model: Any) -> int:
    """The token that ends an answer."""
    end = tokenizer.eos_token_id
    if end is None:
        told = model.generation_config.eos_token_id
        end = told[0] if isinstance(told, list) else told
    if end is None:
        raise BadInput(
            f"the model in {tokenizer.name_or_path} names no token that ends an answer: set eos_token"
        )
    return int(end)
