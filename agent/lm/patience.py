"""Which failed calls are made again, and when: one rule for our LMs, and for agents that ask theirs by any client.

Decision: what breaks is tried a few times; who is busy (429) is waited for, since nothing is wrong and a minute
later it answers: said once, in one line, so that nobody wonders why it is quiet.
Why errors are told by what they carry and by their names: the clients (OpenAI's, Anthropic's, httpx, requests,
aiohttp) share no base class, and most of them are not installed where Ratchet is.
"""

import email.utils
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

import tenacity
from dspy.utils.exceptions import (
    LMConfigurationError,
    LMLockTimeoutError,
    LMRateLimitError,
    LMServerError,
    LMTimeoutError,
    LMTransportError,
)

RETRIES: Final = 4
"""After the first call: about 1 + 2 + 4 + 8 seconds, or as long as the server says."""
LONGEST_WAIT_S: Final = 60.0
"""A server that says to come back later than this is not waited for."""
BUSY_S: Final = 150.0
"""Pauses in all for an endpoint that answers 429, however many tries these are."""
_BUSY: Final = 429
_LATER: Final = (408, 425, _BUSY)
_REFUSED: Final = (401, 402, 403, 407)
"""A wrong key, or none, or no money: nothing that a version does well or badly."""
_RETRYABLE: Final = (
    LMRateLimitError,
    LMTimeoutError,
    LMServerError,
    LMTransportError,
    LMLockTimeoutError,
)
_TRANSPORT: Final = frozenset(
    (
        "APIConnectionError",
        "TransportError",
        "ClientConnectionError",
        "Timeout",
        "HTTPTimeout",
        "TimeoutException",
    )
)
"""Names of the classes, among an error's own, by which clients say that nobody answered."""
_CAUSES: Final = 5
_until: ContextVar[float | None] = ContextVar("until", default=None)
"""On the monotonic clock: when the call at hand is given up."""
_saying = threading.Lock()
_said_at = float("-inf")
logger = logging.getLogger(__name__)


@contextmanager
def given_up_after(seconds: float | None) -> Iterator[None]:
    """Bound what is asked meanwhile, tries and pauses included; None = as it was."""
    if seconds is None:
        yield
        return
    end, outer = time.monotonic() + seconds, _until.get()
    token = _until.set(end if outer is None else min(end, outer))
    try:
        yield
    finally:
        _until.reset(token)


def seconds_left() -> float | None:
    """Until the call at hand is given up, at least a millisecond; None = nobody said."""
    end = _until.get()
    return None if end is None else max(end - time.monotonic(), 0.001)


def may_succeed_later(error: BaseException) -> bool:
    """429, 5xx, a time-out, no connection; of the error, or of what it was raised from."""
    for one in _caused_by(error):
        status = _status(one)
        if status is not None and (status in _LATER or status >= 500):
            return True
        if status is None and (isinstance(one, _RETRYABLE) or _nobody_answered(one)):
            return True
    return False


def patience(
    tries: int,
    may: Callable[[BaseException], bool] = may_succeed_later,
    *,
    until_s: float | None = None,
    busy_s: float = BUSY_S,
) -> dict[str, Any]:
    """How a call is repeated, as `tenacity` takes it; a server that says to wait too long is not waited for.

    Args:
        tries: calls in all; more of them, where there are several, while it is busy.
        may: whether after this error another call may succeed.
        until_s: seconds after which no further call is begun; `given_up_after` bounds it, too.
        busy_s: pauses in all for an endpoint that is busy.
    """

    def stop(state: tenacity.RetryCallState) -> bool:
        left = seconds_left()
        if left is not None and state.upcoming_sleep >= left:
            return True
        if until_s is not None and (state.seconds_since_start or 0.0) + state.upcoming_sleep >= until_s:
            return True
        if state.attempt_number < tries:
            return False
        waited = state.idle_for + state.upcoming_sleep
        return tries == 1 or not _is_busy(_error_of(state)) or waited > busy_s

    retry = tenacity.retry_if_exception(lambda error: may(error) and (_told(error) or 0.0) <= LONGEST_WAIT_S)
    return {"stop": stop, "retry": retry, "wait": _pause, "before_sleep": _tell, "reraise": True}


def is_from_outside(error: BaseException) -> bool:
    """Whether what an agent runs on failed and not the agent: it is passing, or no key or LM was given for it."""
    return may_succeed_later(error) or any(
        _status(one) in _REFUSED or isinstance(one, LMConfigurationError) for one in _caused_by(error)
    )


def knows_no_such_model(error: BaseException) -> bool:
    """Whether a server answered 404: it was started again, and has forgotten what it had loaded."""
    return any(_status(one) == 404 for one in _caused_by(error))


def _caused_by(error: BaseException) -> Iterator[BaseException]:
    """The error, and those that it was raised from."""
    one: BaseException | None = error
    for _ in range(_CAUSES):
        if one is None:
            return
        yield one
        one = one.__cause__


def _status(error: BaseException) -> int | None:
    """The HTTP status that it carries, wherever its client puts it."""
    response = getattr(error, "response", None)
    carried = (getattr(one, name, None) for one in (error, response) for name in ("status_code", "status"))
    return next((status for status in carried if type(status) is int), None)


def _nobody_answered(error: BaseException) -> bool:
    names = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, ConnectionError | TimeoutError) or bool(names & _TRANSPORT)


def _is_busy(error: BaseException | None) -> bool:
    return error is not None and any(
        _status(one) == _BUSY or isinstance(one, LMRateLimitError) for one in _caused_by(error)
    )


def _error_of(state: tenacity.RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _pause(state: tenacity.RetryCallState) -> float:
    """Seconds: what the server said, else twice as long each time; with jitter, since all calls fail together."""
    told = _told(_error_of(state))
    if told is None:
        return tenacity.wait_exponential_jitter(max=LONGEST_WAIT_S / 2)(state)
    return told + tenacity.wait_random(0, min(1.0, 0.1 + told))(state)


def _tell(state: tenacity.RetryCallState) -> None:
    """That it is waited for: once, not for each of many calls that wait side by side."""
    global _said_at
    if not _is_busy(_error_of(state)):
        return
    with _saying:
        is_new = time.monotonic() - _said_at > BUSY_S
        if is_new:
            _said_at = time.monotonic()
    if is_new:
        logger.warning(
            "the endpoint is busy (429): it is waited for, up to %.0f s a call; fewer calls at once: "
            "RATCHET_LM_CONCURRENCY",
            BUSY_S,
        )


def _told(error: BaseException | None) -> float | None:
    """Seconds to wait by the server's Retry-After, which DSPy's errors carry read, others in their response."""
    for one in _caused_by(error) if error is not None else ():
        if isinstance(told := getattr(one, "retry_after", None), int | float):
            return float(told)
        headers = getattr(getattr(one, "response", None), "headers", None)
        if isinstance(headers, Mapping) and (said := headers.get("retry-after")):
            return _seconds(str(said))
    return None


def _seconds(said: str) -> float | None:
    """`120`, or a date."""
    try:
        return max(0.0, float(said))
    except ValueError:
        moment = email.utils.parsedate_tz(said)
        return None if moment is None else max(0.0, email.utils.mktime_tz(moment) - time.time())
