"""An LM behind an endpoint: where it is asked, how many calls go out at once, and what is tried again.

Decision: without an address nothing is asked. LiteLLM would take the vendor's public host, and a user's requests
would leave the house because a variable was not set in one of many shells. The address is part of a candidate; the
key never is.
Why not LiteLLM's own retries: version 1.106 also repeats a refused request (400), and for `hosted_vllm/` it does not
wait as long as the server says. Why not DSPy's: it waits without jitter, and a day if the server says a day.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, ClassVar, Final

import dspy
import tenacity
from dspy.lm15 import Config, Message, Request, TextPart

from ratchet.agent.bounded_call import GivenUp, call
from ratchet.agent.candidate import ADDRESS
from ratchet.agent.errors import BadInput, OutOfTime
from ratchet.agent.lm.adapter_name import through_adapter
from ratchet.agent.lm.lm import Prompt, Room, Scores, Training, Written
from ratchet.agent.lm.patience import RETRIES, knows_no_such_model, patience, seconds_left
from ratchet.agent.lm.prompt_format import LARGE, in_words
from ratchet.agent.trace import Usage

VENDOR: Final = "vendor"
"""The address that stands for the host that LiteLLM knows for the model's vendor: asked only where it is said."""
_REMEDY: Final = (
    "set RATCHET_LM_API_BASE to its server, such as http://localhost:8000/v1, "
    "or to `vendor` for the vendor's own host"
)
CONCURRENCY: Final = 8
"""Calls to an endpoint at once, unless a person says otherwise."""


class Endpoint:
    """Any LM that LiteLLM reaches. Safe for use from several threads."""

    scores_options: ClassVar[bool] = False
    is_trainable: ClassVar[bool] = False
    writes: ClassVar[bool] = True
    completes: ClassVar[bool] = False
    room: ClassVar[Room] = LARGE

    def __init__(
        self,
        model: str,
        *,
        api_base: str | None = None,
        concurrency: int = CONCURRENCY,
        num_retries: int = RETRIES,
        adapter: str | None = None,
        load_again: Callable[[], None] | None = None,
        **settings: Any,
    ) -> None:
        """Get ready to ask.

        Args:
            model: a LiteLLM model string: `openai/gpt-5-mini`, `hosted_vllm/…`.
            api_base: where it is asked.
            concurrency: calls at once, at least 1.
            num_retries: calls after a first one that was answered with 429 or 5xx, not in time, or not at all.
            adapter: content hash of the LoRA adapter that answers instead, which the server has loaded.
            load_again: loads that adapter where the server says that it does not know it.
            settings: `api_key`, `timeout` (seconds), and what else `dspy.LM` takes.

        Raises:
            BadInput: there is no address, or it is not one, or this LM has no adapters.
        """
        address = checked_address(model, api_base)
        where = {} if address == VENDOR else {"api_base": address}
        self._base, self.at_once = model, concurrency
        self.model = through_adapter(model, adapter)
        self.dspy = _Patient(
            self.model, 1 + num_retries, load_again if adapter else None, cache=False, **where, **settings
        )

    def load(self) -> None:
        """Nothing: its server has loaded it."""

    def write(self, prompt: Prompt) -> Written:
        """What it answers: one of the prompt's choices in words, where it has any."""
        settings = self.dspy.kwargs
        request = Request(
            model=self.model,
            messages=(Message.user([TextPart(in_words(prompt))]),),
            config=Config(max_tokens=settings.get("max_tokens"), temperature=settings.get("temperature")),
        )
        response = self.dspy(request)
        n_in, n_out = response.usage.input_tokens or 0, response.usage.output_tokens or 0
        cost = self.price_usd(n_in, n_out) or 0.0
        usage = Usage(input_tokens=n_in, output_tokens=n_out, lm_calls=1, cost_usd=cost)
        return Written(response.message.text or "", usage)

    def price_usd(self, input_tokens: int, output_tokens: int) -> float | None:
        """Price of a call by LiteLLM's list, in US dollars; None = it does not know the model."""
        return price_of(self._base, input_tokens, output_tokens)

    def score(self, prompt: Prompt) -> Scores:
        """Refused: an endpoint gives no log-probabilities of given options."""
        raise BadInput(f"{self.model} gives no log-probabilities of options: let it write one")

    def complete(self, prompts: Sequence[Prompt], *, max_tokens: int) -> list[Written]:
        """Refused: an endpoint begins its answer anew."""
        raise BadInput(f"{self.model} does not go on from a begun answer: ask for the whole one")

    def training(self, config: Any, *, seed: int) -> AbstractContextManager[Training]:
        """Refused: the weights behind an endpoint are not ours."""
        raise BadInput(f"the weights of {self.model} are not ours to train: train the embedded LM")


class _Patient(dspy.LM):  # type: ignore[misc]  # dspy ships no types
    """DSPy's LM, whose failed calls are repeated here instead of there; only those that may succeed then."""

    def __init__(
        self, model: str, tries: int, load_again: Callable[[], None] | None, **settings: Any
    ) -> None:
        super().__init__(model, num_retries=0, **settings)
        self._patience, self._load_again = patience(tries), load_again

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Ask, and ask again.

        Raises:
            OutOfTime: no answer in the time that is left for it (`given_up_after`).
        """
        try:
            return tenacity.Retrying(**self._patience)(self._once, *args, **kwargs)
        except Exception as error:
            if self._load_again is None or not knows_no_such_model(error):
                raise
        self._load_again()
        return tenacity.Retrying(**self._patience)(self._once, *args, **kwargs)

    def _once(self, *args: Any, **kwargs: Any) -> Any:
        left = seconds_left()
        if left is None:
            return super().__call__(*args, **kwargs)
        try:
            return call(partial(super().__call__, *args, **kwargs), seconds=left)
        except GivenUp as error:
            raise OutOfTime(f"{self.model} gave {error}: its call is given up") from error

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        """The same for asynchronous callers."""
        ask = super().acall
        try:
            return await tenacity.AsyncRetrying(**self._patience)(ask, *args, **kwargs)
        except Exception as error:
            if self._load_again is None or not knows_no_such_model(error):
                raise
        await asyncio.to_thread(self._load_again)
        return await tenacity.AsyncRetrying(**self._patience)(ask, *args, **kwargs)


def checked_address(model: str, api_base: str | None) -> str:
    """The address at which a model behind an endpoint is asked.

    Raises:
        BadInput: there is none, or it is not an address.
    """
    if not api_base:
        raise BadInput(f"LM {model} has no address: {_REMEDY}")
    if not re.fullmatch(ADDRESS, api_base):  # not shown: what is wrong with it may be that it holds a key
        raise BadInput(
            f"the address of LM {model} is not http(s)://host/path without user, password and query: {_REMEDY}; "
            "a key belongs in RATCHET_LM_API_KEY"
        )
    return api_base


def price_of(model: str, input_tokens: int, output_tokens: int) -> float | None:
    """Price of a call of this model by LiteLLM's list, in US dollars; None = it does not know the model."""
    import litellm

    tokens = {"prompt_tokens": input_tokens, "completion_tokens": output_tokens}
    try:
        return float(sum(litellm.cost_per_token(model, **tokens)))
    except Exception:  # noqa: BLE001  its way of saying that it does not know a model differs by version
        return None
