"""A chat endpoint, asked as a client would ask it: the request goes up as it is, to the configured address alone.

Why not LiteLLM: the gate must play what `ratchet serve` sends, and that passes through no translation.
"""

import weakref
from collections.abc import Callable
from typing import Any, Final

import httpx
import tenacity

from ratchet.agent.errors import LMFailure, OutOfTime, ServiceUnavailable, named, said
from ratchet.agent.lm.endpoint import CONCURRENCY
from ratchet.agent.lm.patience import RETRIES, patience, seconds_left

TIMEOUT_S: Final = 120.0
_LATER: Final = frozenset((408, 409, 425, 429))
"""Statuses beside 5xx after which the same request may succeed."""


class UpstreamError(ServiceUnavailable):
    """It did not answer, or refused."""

    def __init__(
        self,
        text: str,
        *,
        may_succeed_later: bool,
        status_code: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(text)
        self.may_succeed_later, self.status_code, self.retry_after = (
            may_succeed_later,
            status_code,
            retry_after,
        )


class Upstream:
    """One endpoint. Safe for use from several threads."""

    def __init__(
        self,
        address: str,
        *,
        api_key: str | None = None,
        timeout: float = TIMEOUT_S,
        concurrency: int = CONCURRENCY,
        num_retries: int = RETRIES,
        load_again: Callable[[], None] | None = None,
    ) -> None:
        """Get ready to ask.

        Args:
            address: such as `http://localhost:8000/v1`.
            api_key: sent to it, kept nowhere.
            timeout: seconds until an answer is given up.
            concurrency: calls at once.
            num_retries: calls after a first one that was answered with 429 or 5xx, not in time, or not at all.
            load_again: loads the adapter that is asked, where the server says that it does not know it.
        """
        self._load_again = load_again
        self._url = f"{address.rstrip('/')}/chat/completions"
        self._timeout = timeout
        self._client = httpx.Client(
            timeout=timeout,
            headers={"authorization": f"Bearer {api_key}"} if api_key else {},
            limits=httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
        )
        weakref.finalize(self, self._client.close)
        self._patience = patience(1 + num_retries, _may_succeed_later)

    def ask(self, body: dict[str, Any]) -> dict[str, Any]:
        """Its answer, an object.

        Raises:
            UpstreamError: it did not answer, or refused.
            LMFailure: what it answered is no chat completion; `OutOfTime` where the time that is left ended it.
        """
        try:
            return self._patiently(body)
        except UpstreamError as error:
            if self._load_again is None or error.status_code != httpx.codes.NOT_FOUND:
                raise
        self._load_again()
        return self._patiently(body)

    def _patiently(self, body: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = tenacity.Retrying(**self._patience)(self._ask, body)
        return answer

    def _ask(self, body: dict[str, Any]) -> dict[str, Any]:
        left = seconds_left()
        timeout = self._timeout if left is None else min(self._timeout, left)
        try:
            response = self._client.post(self._url, json=body, timeout=timeout)
        except httpx.TransportError as error:
            if timeout < self._timeout and isinstance(error, httpx.TimeoutException):
                raise OutOfTime(
                    f"{self._url} gave no answer within {timeout:g} s: its call is given up"
                ) from error
            raise UpstreamError(f"{self._url}: {named(error)}", may_succeed_later=True) from error
        if response.status_code != httpx.codes.OK:
            raise UpstreamError(
                f"{self._url}: {response.status_code} {response.text[:200]}",
                may_succeed_later=response.status_code >= 500 or response.status_code in _LATER,
                status_code=response.status_code,
                retry_after=_seconds(response.headers.get("retry-after")),
            )
        try:
            answer = response.json()
            answer["choices"][0]["message"].get("content")
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise LMFailure(
                f"{self._url}: no chat completion: {said(error, 80)}: {response.text[:80]}"
            ) from error
        assert isinstance(answer, dict), "it has choices"
        return answer


def _may_succeed_later(error: BaseException) -> bool:
    return isinstance(error, UpstreamError) and error.may_succeed_later


def _seconds(given: str | None) -> float | None:
    try:
        return None if given is None else max(float(given), 0.0)
    except ValueError:  # a date: our own pauses do
        return None
