"""What an agent may ask its LM, whichever it is.

Decision: what differs between LMs is a question to the LM (does it score options? can it be trained?), never a
comparison of its name. There are three: `Embedded` and `Local`, in this process, and `Endpoint`, anything that
LiteLLM reaches. Which one it is, is decided once, from the candidate (`of_candidate.py`).
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import dspy
import numpy as np

from ratchet.agent.trace import Usage

if TYPE_CHECKING:
    import torch


class Prompt(NamedTuple):
    """A prompt in two parts, and what may follow it."""

    prefix: str
    """Recurs between requests: instructions, demos, tools."""
    suffix: str
    """This request alone."""
    choices: tuple[str, ...] = ()
    """Admissible continuations; empty = free text."""
    recurs: int = 0
    """So many characters of the prefix recur without the rest of it, too; 0 = nobody knows."""

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


class Training(NamedTuple):
    """A fresh adapter while it is trained."""

    parameters: "list[torch.nn.Parameter]"
    log_probs: "Callable[[Prompt], torch.Tensor]"
    """Of the prompt's choices (nats, [n_options]); differentiable."""
    each: "Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]"
    """What a function makes of each item, in order: several at a time, each on a core of its own."""
    save: Callable[[Path], None]
    """Write it to a folder, as safetensors and its configuration."""


class Room(NamedTuple):
    """Characters that an LM reads of each piece of data at most."""

    request: int
    description: int
    recall: int


class LM(Protocol):
    """An LM as an agent uses it."""

    scores_options: ClassVar[bool]
    """It gives the log-probability of every given option; else it is asked to write one."""
    is_trainable: ClassVar[bool]
    """Its weights are ours to change."""
    writes: ClassVar[bool]
    """What it writes of its own is worth reading: reflections, descriptions."""
    completes: ClassVar[bool]
    """It goes on from an answer that the prompt begins."""
    room: ClassVar[Room]
    """Characters that it reads of each piece of data."""

    @property
    def model(self) -> str:
        """Its name in candidates."""

    @property
    def at_once(self) -> int:
        """Calls that may be under way at the same time."""

    @property
    def dspy(self) -> dspy.LM:
        """The same LM for DSPy's modules."""

    def load(self) -> None:
        """Get ready to be asked.

        Raises:
            BadInput: its weights cannot be loaded, which is no single case's fault.
        """

    def score(self, prompt: Prompt) -> Scores:
        """What it makes of the prompt's choices; only where `scores_options`."""

    def write(self, prompt: Prompt) -> Written:
        """What it answers: one of the prompt's choices in words, where it has any."""

    def complete(self, prompts: Sequence[Prompt], *, max_tokens: int) -> list[Written]:
        """How it goes on, under an adapter that has learned to write; only where `completes`."""

    def training(self, config: Any, *, seed: int) -> AbstractContextManager[Training]:
        """A fresh adapter to train, laid out by this `peft.LoraConfig`; only where `is_trainable`."""

    def price_usd(self, input_tokens: int, output_tokens: int) -> float | None:
        """Price of a call in US dollars; None = it is not known."""


class InProcess(LM, Protocol):
    """One whose weights are here."""

    def write(self, prompt: Prompt, *, max_tokens: int = ...) -> Written:
        """What it answers, of at most so many tokens."""
