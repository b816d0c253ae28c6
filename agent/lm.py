"""Which LM an agent runs on: the embedded one, or any LiteLLM endpoint by one setting (`RATCHET_LM`).

Why an engine and not a subclass of `dspy.LM`: DSPy 3.5 removes subclassing; `Request → Response` stays.
"""

import threading
from collections.abc import AsyncIterator, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import dspy
import numpy as np
from dspy.lm15 import Message, Request, Response, TextPart, Usage, response_to_events

from agent.embedded_lm import EmbeddedLM, Prompt
from agent.endpoint import as_asked
from agent.errors import LMFailure
from agent.weights import NAME, weights_folder

CHOICES = "choices"
"""Key in a request's extensions: the admissible answers. The embedded LM scores them and writes nothing else."""

PRIOR = "prior"
"""Key in a request's extensions: nats to add to each choice's log-probability, or None."""


@cache
def embedded_lm() -> EmbeddedLM:
    """The embedded LM, loaded once a process (2 s; 20–48 s at the very first time on a machine)."""
    return EmbeddedLM(weights_folder())


def make_lm(model: str = NAME, *, adapter: Path | None = None, **endpoint: Any) -> dspy.LM:
    """A `dspy.LM` for the embedded model, or for any LiteLLM model string.

    Args:
        model: `smollm2-135m-instruct`, or for instance `openai/gpt-5-mini`, `hosted_vllm/…`.
        adapter: LoRA adapter of the embedded LM.
        endpoint: `api_base`, `api_key`, `timeout` for an endpoint.

    Raises:
        BadInput: an endpoint's model without an address (`api_base`).
    """
    if model != NAME:
        return dspy.LM(model, cache=False, **as_asked(model, endpoint))
    engine = EmbeddedEngine(adapter)
    # DSPy's cache key leaves the engine out: the model string must name the weights.
    name = f"embedded/{NAME}" + (f"+{adapter.name}" if adapter else "")
    return dspy.LM(name, engine=engine, async_engine=AsyncEmbeddedEngine(engine), cache=False)


class EmbeddedEngine:
    """DSPy's engine interface over the embedded LM: scores choices where they are given, else generates."""

    _lock = threading.Lock()  # one model in the process, whichever thread asks

    def __init__(self, adapter: Path | None = None) -> None:
        self.adapter = adapter

    def complete(self, request: Request) -> Response:
        """Answer one request."""
        prompt = as_prompt(request)
        with self._lock:
            lm = embedded_lm()
            before = lm.input_tokens
            if prompt.choices:
                prior = (request.config.extensions or {}).get(PRIOR) or 0.0
                best = int((lm.score([prompt], adapter=self.adapter)[0] + np.asarray(prior)).argmax())
                text, n_out = prompt.choices[best], 0
            else:
                done = lm.generate(
                    [prompt], adapter=self.adapter, max_tokens=request.config.max_tokens or 64
                )[0]
                text, n_out = done.text, done.output_tokens
            n_in = lm.input_tokens - before
        return Response(
            id=None,
            model=request.model,
            message=Message.assistant([TextPart(text)]),
            finish_reason="stop",
            usage=Usage(input_tokens=n_in, output_tokens=n_out),
        )

    def stream(self, request: Request) -> Iterator[Any]:
        """The finished answer as events."""
        return iter(response_to_events(self.complete(request)))

    def close(self) -> None:
        """Nothing to close: the model is shared by the process."""

    def dump_state(self) -> dict[str, str | None]:
        """What `load_state` needs."""
        return {"adapter": str(self.adapter) if self.adapter else None}

    @classmethod
    def load_state(cls, state: dict[str, str | None]) -> "EmbeddedEngine":
        """An engine with the same adapter."""
        return cls(Path(state["adapter"]) if state["adapter"] else None)


class AsyncEmbeddedEngine:
    """The same engine for `acall`; the model itself is not concurrent."""

    def __init__(self, engine: EmbeddedEngine) -> None:
        self.engine = engine

    async def complete(self, request: Request) -> Response:
        """Answer one request."""
        return self.engine.complete(request)

    async def stream(self, request: Request) -> AsyncIterator[Any]:
        """The finished answer as events."""
        for event in self.engine.stream(request):
            yield event

    async def aclose(self) -> None:
        """Nothing to close."""


def as_prompt(request: Request) -> Prompt:
    """The request in the embedded LM's chat format.

    All but the last part of the last message is what recurs: its work is shared between requests.

    Raises:
        LMFailure: the request carries something else than text.
    """
    choices = tuple((request.config.extensions or {}).get(CHOICES, ()))
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
