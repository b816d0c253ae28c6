"""The embedded LM as an agent uses it, and as an engine of DSPy's: one model in the process, one adapter or none.

Why an engine and not a subclass of `dspy.LM`: DSPy 3.5 removes what such a subclass would override; `Request →
Response` stays.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import dspy
import numpy as np
from dspy.lm15 import Message, Request, Response, TextPart, Usage

from ratchet.agent.errors import LMFailure
from ratchet.agent.lm.adapter_files import check_adapter
from ratchet.agent.lm.lm import InProcess, Prompt, Room, Scores, Training, Written
from ratchet.agent.lm.prompt_format import SMALL
from ratchet.agent.lm.smollm2 import SmolLM2, prompts_at_once
from ratchet.agent.lm.weights import EMBEDDED_MODEL, weights_folder
from ratchet.agent.record import folder_hash

CHOICES_KEY = "choices"
"""Key in a request's extensions: the admissible answers. The embedded LM scores them and writes nothing else."""

PRIOR_KEY = "prior"
"""Key in a request's extensions: nats to add to each choice's log-probability, or None."""

FREE_TOKENS = 64
"""Tokens that the embedded LM writes at most where nobody says how many."""


class Embedded:
    """The embedded LM, under one adapter or none. One model in the process, whichever thread asks."""

    scores_options: ClassVar[bool] = True
    is_trainable: ClassVar[bool] = True
    writes: ClassVar[bool] = False
    completes: ClassVar[bool] = True
    room: ClassVar[Room] = SMALL
    model = EMBEDDED_MODEL
    _lock = threading.RLock()

    def __init__(self, adapter: Path | None = None) -> None:
        self.adapter = adapter
        # DSPy's cache key leaves the engine out: the model string must name the weights, and folders share names
        name = f"embedded/{EMBEDDED_MODEL}" + (f"+{folder_hash(adapter)}" if adapter else "")
        self.dspy = dspy.LM(name, engine=EmbeddedEngine(self), cache=False)

    @property
    def at_once(self) -> int:
        """As many prompts as have a core of their own, and one that is made ready meanwhile."""
        return prompts_at_once() + 1

    def load(self) -> None:
        """Load the weights, once a process."""
        smollm2()

    def score(self, prompt: Prompt) -> Scores:
        """The log-probabilities of the prompt's choices."""
        return smollm2().score(prompt, adapter=self.adapter)

    def write(self, prompt: Prompt, *, max_tokens: int = FREE_TOKENS) -> Written:
        """A greedy continuation, to the end of the turn."""
        with self._lock:
            return smollm2().generate([prompt], adapter=self.adapter, max_tokens=max_tokens)[0]

    def complete(self, prompts: Sequence[Prompt], *, max_tokens: int) -> list[Written]:
        """Greedy continuations in one batch; without an adapter that has learned to choose only."""
        with self._lock:
            return smollm2().generate(prompts, adapter=self._writing(), max_tokens=max_tokens)

    def _writing(self) -> Path | None:
        manifest = check_adapter(self.adapter) if self.adapter is not None else None
        return None if manifest is None or manifest.parameters.get("method") == "options" else self.adapter

    @contextmanager
    def training(self, config: Any, *, seed: int) -> Iterator[Training]:
        """A fresh adapter to train; the others wait."""
        with self._lock, smollm2().training(config, seed) as training:
            yield training

    def price_usd(self, input_tokens: int, output_tokens: int) -> float:
        """Nothing: it is ours."""
        return 0.0


_loading = threading.Lock()


def smollm2() -> SmolLM2:
    """The embedded LM, loaded once a process (2 s; 20–48 s at the very first time on a machine)."""
    with _loading:
        return _loaded()


@cache
def _loaded() -> SmolLM2:
    return SmolLM2(weights_folder())


class EmbeddedEngine:
    """DSPy's engine interface over the embedded LM: scores choices where they are given, else generates."""

    def __init__(self, lm: InProcess) -> None:
        self.lm = lm

    def complete(self, request: Request) -> Response:
        """Answer one request."""
        prompt = as_prompt(request)
        if prompt.choices:
            prior = (request.config.extensions or {}).get(PRIOR_KEY) or 0.0
            scores = self.lm.score(prompt)
            text, n_out = prompt.choices[int((scores.log_probs + np.asarray(prior)).argmax())], 0
            n_in = scores.input_tokens
        else:
            written = self.lm.write(prompt, max_tokens=request.config.max_tokens or FREE_TOKENS)
            text, n_in, n_out = written.text, written.usage.input_tokens, written.usage.output_tokens
        return Response(
            id=None,
            model=request.model,
            message=Message.assistant([TextPart(text)]),
            finish_reason="stop",
            usage=Usage(input_tokens=n_in, output_tokens=n_out),
        )


def as_prompt(request: Request) -> Prompt:
    """The request in the embedded LM's chat format.

    All but the last part of the last message is what recurs: its work is shared between requests.

    Raises:
        LMFailure: the request carries something else than text.
    """
    choices = tuple((request.config.extensions or {}).get(CHOICES_KEY, ()))
    prefix = ""
    if request.system:
        system = (
            request.system if isinstance(request.system, str) else "".join(p.text for p in request.system)
        )
        prefix = f"<|im_start|>system\n{system}<|im_end|>\n"
    for message in request.messages[:-1]:
        prefix += f"<|im_start|>{message.role}\n{_text(message.parts)}<|im_end|>\n"
    last = request.messages[-1]
    prefix += f"<|im_start|>{last.role}\n{_text(last.parts[:-1])}"
    return Prompt(prefix, f"{_text(last.parts[-1:])}<|im_end|>\n<|im_start|>assistant\n", choices)


def _text(parts: tuple[Any, ...]) -> str:
    if other := [type(part).__name__ for part in parts if not isinstance(part, TextPart)]:
        raise LMFailure(f"the embedded LM reads text only; the request holds {other[0]}: send its text")
    return "".join(part.text for part in parts)
