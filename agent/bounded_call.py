"""A call of the user's code that comes to an end: answered, failed, or given up, and none of them holds up the run.

Decision: a synchronous call runs in a thread of its own that is left behind when its time is over, since Python
cannot stop a thread; it is a daemon, so that the process can end. Asynchronous calls all run on one event loop that
lives as long as the process: clients made when a module was imported stay bound to the loop that they first ran on.
"""

import asyncio
import inspect
import logging
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextvars import copy_context
from functools import partial
from typing import Any, Final

GRACE_S: Final = 2.0
"""Seconds that a coroutine gets to notice that it is cancelled, before the loop counts as blocked."""
MOST_LEFT: Final = 256
"""Calls that were given up and still run: as many threads; beyond that nothing new is begun."""
logger = logging.getLogger(__name__)
_lock = threading.Lock()
_loops: dict[int, asyncio.AbstractEventLoop] = {}
"""The event loop of this process, by process id: a fork has no thread that runs it."""
_left = 0


class GivenUp(Exception):
    """The call took longer than it may."""


def call(function: Callable[[], Any], *, seconds: float) -> Any:
    """What the function returns or its coroutine comes to; it and what it starts know this context.

    Raises:
        GivenUp: not within `seconds`; what runs on the event loop is cancelled, a thread is left behind.
    """
    if is_async(function):
        return _on_loop(function, seconds)
    value = _in_thread(function, seconds)
    return _on_loop(lambda: value, seconds) if inspect.isawaitable(value) else value


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it makes a coroutine: a function, a method, a partial, or an object's `__call__`."""
    while isinstance(function, partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(type(function), "__call__", None)  # noqa: B004  the method is asked, not whether it can be called
    )


def _in_thread(function: Callable[[], Any], seconds: float) -> Any:
    if _left >= MOST_LEFT:
        raise GivenUp(f"{_left} calls that were given up still run: nothing new is begun")
    answer: Future[Any] = Future()
    context = copy_context()

    def whole() -> Any:
        value = function()
        return "".join(map(str, value)) if inspect.isgenerator(value) else value  # a stream of texts

    def work() -> None:
        try:
            answer.set_result(context.run(whole))
        except BaseException as error:  # noqa: BLE001  whoever waits gets it, whatever it is
            answer.set_exception(error)

    threading.Thread(target=work, daemon=True, name="ratchet-agent").start()
    try:
        return answer.result(seconds)
    except TimeoutError:
        if answer.done():  # it is the user's own
            raise
    _count(1)
    answer.add_done_callback(lambda _: _count(-1))
    raise GivenUp(f"no answer within {seconds:g} s")


def _count(n: int) -> None:
    global _left
    with _lock:
        _left += n


def _on_loop(start: Callable[[], Awaitable[Any]], seconds: float) -> Any:
    async def bounded() -> Any:
        try:
            async with asyncio.timeout(seconds) as limit:
                return await start()
        except TimeoutError:
            if limit.expired():
                raise GivenUp(f"no answer within {seconds:g} s") from None
            raise

    loop = event_loop()
    answer = asyncio.run_coroutine_threadsafe(bounded(), loop)  # in a copy of this context
    try:
        return answer.result(seconds + GRACE_S)
    except TimeoutError:
        if answer.done():
            raise
    _abandon(loop)
    raise GivenUp(f"no answer within {seconds:g} s, and its event loop is blocked")


def event_loop() -> asyncio.AbstractEventLoop:
    """The one loop on which this process runs the user's coroutines, begun when it is first asked for."""
    with _lock:
        loop = _loops.get(os.getpid())
        if loop is None:
            loop = _loops[os.getpid()] = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, daemon=True, name="ratchet-loop").start()
        return loop


def _abandon(loop: asyncio.AbstractEventLoop) -> None:
    """A coroutine blocks the loop: what comes next gets another one."""
    with _lock:
        if _loops.get(os.getpid()) is loop:
            del _loops[os.getpid()]
            logger.warning(
                "a coroutine of the agent blocks its event loop: call what waits by `asyncio.to_thread`"
            )
