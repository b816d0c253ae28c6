"""LMs of a `dspy.Module` whose calls an optimizer pays: counted before they are made, kept, tried again, and stopped.

Decision: what stops an optimizer is no `Exception`. DSPy's evaluators, and modules, catch those and go on with a
score of 0; a spent budget would look like a prompt that fails, and every case after it would still be paid.

One proposal asks the same LM the same thing once, as DSPy's own cache does (which is off here: it does not tell
engines apart); another `rollout_id` is another call. So the count does not depend on the order of threads.
"""

import asyncio
import copy
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import lru_cache, partial
from threading import Lock
from typing import Any, Final

import dspy
import tenacity
from dspy.utils.usage_tracker import track_usage
from pydantic_core import to_jsonable_python

from ratchet.agent.bounded_call import GivenUp, call
from ratchet.agent.errors import RatchetError, ServiceUnavailable, said
from ratchet.agent.kinds.module import usage_of
from ratchet.agent.lm.endpoint import price_of
from ratchet.agent.lm.patience import RETRIES, is_from_outside, may_succeed_later, patience
from ratchet.agent.optimize.budget import BudgetSpent, Meter, Stopped
from ratchet.agent.optimize.calls import Calls
from ratchet.agent.record import Json, content_hash
from ratchet.agent.trace import Usage

_SECRET: Final = frozenset(("api_key", "cache"))
"""Settings of a call that are no part of what is asked."""


class LMCalls:
    """The calls of one proposal to all LMs of a module. Safe for use from several threads."""

    def __init__(
        self, meter: Meter, kept: Calls, *, progress: Callable[[int], None] = lambda done: None
    ) -> None:
        self.meter, self.kept, self.progress = meter, kept, progress
        self.stopped: Stopped | None = None
        self.texts = 0
        """Answers of the LM that writes instructions."""
        self._lms: dict[int, dspy.BaseLM] = {}
        self._answers: dict[str, Future[Any]] = {}
        self._lock = Lock()

    def __deepcopy__(self, memo: dict[int, Any]) -> "LMCalls":
        return self

    def metered(self, lm: dspy.BaseLM, *, writes: bool = False) -> dspy.BaseLM:
        """The LM, whose calls, and those of its copies, are counted here; `writes` = it writes the instructions."""
        kind: Any = type(lm)
        known = lm if issubclass(kind, _Metered) else self._lms.get(id(lm))
        if known is None:
            known = lm.copy(cache=False)
            known.__class__ = _metered_type(kind)
            known.ratchet_calls, known.ratchet_source = self, f"{len(self._lms)} {lm.model}"
            known.ratchet_original = lm  # or another might get its id
            self._lms[id(lm)] = known
        if not writes:
            return known
        writer = known.copy()
        writer.ratchet_writes = True
        return writer

    def check(self) -> None:
        """Raise `Stopped` where the optimizer is to end."""
        if self.stopped is not None:
            raise self.stopped

    def stop(self, why: RatchetError) -> Stopped:
        """End the optimizer, in all of its threads; the first reason stays."""
        with self._lock:
            self.stopped = self.stopped or Stopped(why)
            return self.stopped

    def claim(self, key: str) -> tuple[Future[Any], bool]:
        """What the call comes to, and whether whoever asks is to make it.

        Raises:
            Stopped: no further call is made.
        """
        self.check()
        with self._lock:
            answer = self._answers.get(key)
            if answer is not None:
                return answer, False
            answer = self._answers[key] = Future()
        try:
            self.meter.take()
            self.progress(1)
            if (kept := self.kept.kept(*self._content(key))) is not None and isinstance(kept.value, dict):
                self.meter.charge(_usage(kept.value["usage"]), kept_s=kept.seconds)
                answer.set_result(kept.value["outputs"])
                return answer, False
        except BaseException as error:
            if isinstance(error, BudgetSpent):
                error = self.stop(error)
            self.failed(key, error)
            raise error from None
        return answer, True

    def made(self, key: str, outputs: Any, usage: dict[str, Any], began: float) -> None:
        """Keep what a call came to, where JSON can hold it."""
        self.meter.charge(_usage(usage))
        if isinstance(outputs, list) and to_jsonable_python(outputs, fallback=str) == outputs:
            value: Json = {"outputs": outputs, "usage": to_jsonable_python(usage, fallback=str)}
            self.kept.keep(*self._content(key), value=value, seconds=time.perf_counter() - began)
        self._answers[key].set_result(outputs)

    def failed(self, key: str, error: BaseException) -> None:
        """Whoever waits for this call gets the error; whoever asks again makes it again."""
        with self._lock:
            answer = self._answers.pop(key)
        answer.set_exception(error)

    def _content(self, key: str) -> tuple[Json, ...]:
        return ("lm", key)


class _Metered:
    """In front of an LM's own class, so that DSPy takes it for what it is."""

    ratchet_calls: LMCalls
    ratchet_source: str
    ratchet_writes = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        calls, key, began = self.ratchet_calls, self._key(args, kwargs), time.perf_counter()
        answer, is_mine = calls.claim(key)
        if not is_mine:
            return self._read(answer.result())
        seconds, own = calls.meter.budget.call_seconds, self._own()

        def once() -> Any:
            calls.meter.take(0)
            ask = partial(own.__call__, *args, **kwargs)
            return ask() if seconds is None else call(ask, seconds=seconds)

        with track_usage() as tracker:
            try:
                outputs = tenacity.Retrying(**_patience(self))(once)
            except BaseException as error:
                if (stopped := self._give_up(key, error)) is error:
                    raise
                raise stopped from error
        calls.made(key, outputs, dict(tracker.usage_data), began)
        return self._read(outputs)

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        outputs: Any
        calls, key, began = self.ratchet_calls, self._key(args, kwargs), time.perf_counter()
        answer, is_mine = calls.claim(key)
        if not is_mine:
            return self._read(await asyncio.wrap_future(answer))
        own = self._own()

        async def once() -> Any:
            calls.meter.take(0)
            async with asyncio.timeout(calls.meter.budget.call_seconds):
                return await own.acall(*args, **kwargs)

        with track_usage() as tracker:
            try:
                outputs = await tenacity.AsyncRetrying(**_patience(self))(once)
            except BaseException as error:
                if (stopped := self._give_up(key, error)) is error:
                    raise
                raise stopped from error
        calls.made(key, outputs, dict(tracker.usage_data), began)
        return self._read(outputs)

    def _own(self) -> Any:
        return super()

    def _read(self, outputs: Any) -> Any:
        self.ratchet_calls.texts += self.ratchet_writes
        return copy.deepcopy(outputs)  # adapters change what they are given

    def _give_up(self, key: str, error: BaseException) -> BaseException:
        calls = self.ratchet_calls
        if isinstance(error, BudgetSpent):
            error = calls.stop(error)
        elif isinstance(error, GivenUp) or (isinstance(error, Exception) and is_from_outside(error)):
            model = getattr(self, "model", "")
            error = calls.stop(
                ServiceUnavailable(
                    f"LM {model} did not answer: {said(error)}; run again: what was paid is kept"
                )
            )
        calls.failed(key, error)
        return error

    def _key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        settings = {**getattr(self, "kwargs", {}), **kwargs}
        asked = {name: value for name, value in settings.items() if name not in _SECRET}
        said = to_jsonable_python([self.ratchet_source, list(args), asked], fallback=_as_text)
        return content_hash(said, length=32)


@lru_cache(maxsize=64)
def _metered_type(kind: Any) -> Any:
    own = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    return type(kind)(kind.__name__, (_Metered, kind), own)


def _patience(lm: Any) -> dict[str, Any]:
    """Endpoints of ours repeat their calls themselves; of a user's LM, DSPy's own retries stay as they are."""
    tries = 1 + RETRIES if getattr(lm, "num_retries", 0) else 1
    return patience(tries, lambda error: isinstance(error, GivenUp) or may_succeed_later(error))


def _usage(by_lm: Any) -> Usage:
    """As DSPy counted it, at LiteLLM's prices."""
    usage = usage_of(by_lm)
    prices = (
        price_of(model, one.input_tokens, one.output_tokens)
        for model, calls in by_lm.items()
        if (one := usage_of({model: calls}))
    )
    return usage.model_copy(update={"cost_usd": sum(price or 0.0 for price in prices)})


def _as_text(value: Any) -> Any:
    schema = getattr(value, "model_json_schema", None)
    return schema() if isinstance(value, type) and callable(schema) else repr(value)
