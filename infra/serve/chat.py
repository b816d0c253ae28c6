"""`/v1/chat/completions`: the champion's request goes up, the answer comes down as it is; its trace is kept first.

Decision: nothing is acknowledged before its trace is on disk: a whole answer is sent after that, of a stream the last
event, `[DONE]`. What the upstream says, errors too, is passed on byte by byte.
"""

import asyncio
import hashlib
import re
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
import orjson

from ratchet.agent.errors import BadInput, RatchetError, ServiceUnavailable, named
from ratchet.infra.serve.deployments import Deployed, Deployments
from ratchet.infra.serve.exchange import Exchange
from ratchet.infra.serve.http import (
    JSON,
    Headers,
    Left,
    Receive,
    Refused,
    Scope,
    Send,
    as_refused,
    header,
    read_body,
    read_object,
    send_answer,
)
from ratchet.infra.serve.journal import Journal
from ratchet.infra.serve.metrics import UPSTREAM_ERRORS
from ratchet.infra.serve.relay import Relay, passed_on

WATCH_AFTER_S: Final = 0.5
"""A request that lasts longer is given up when its caller leaves."""
SESSION_LENGTH: Final = 200
"""A longer name of a session, which MLflow would not take, is kept as its hash."""
CALLER_LEFT: Final = 499
_DONE: Final = re.compile(rb"^data: ?\[DONE\]", re.MULTILINE)


class ChatRoute:
    """Answers chat requests."""

    def __init__(self, deployments: Deployments, upstream: Relay, journal: Journal, *, max_body: int) -> None:
        self._deployments, self._upstream, self._journal = deployments, upstream, journal
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; Refused where it cannot be served."""
        body = await read_body(scope, receive, self._max_body)
        asked = read_object(body)
        session_id = session_of(scope, asked)
        deployed = self._deployments.pick(asked.get("model"), session_id)
        begun = _Begun(deployed, session_id, body, bool(asked.get("stream")))
        sent, begun.recalled = await _rendered(deployed, asked)
        with _Watch(receive):
            await self._pass(begun, orjson.dumps(sent), send)

    async def _pass(self, begun: "_Begun", body: bytes, send: Send) -> None:
        """Ask, and pass on; whatever happens, the trace is kept."""
        try:
            async with self._asked(begun, body) as response:
                if begun.is_stream and response.content_type == "text/event-stream":
                    await self._stream(begun, response, send)
                else:
                    begun.is_stream = False
                    await self._whole(begun, response, send)
        except (aiohttp.ClientError, TimeoutError) as error:
            UPSTREAM_ERRORS.inc()
            await self._failed(begun, error, send)
        except asyncio.CancelledError as error:
            if (task := asyncio.current_task()) is not None:
                task.uncancel()
            await self._commit(begun, CALLER_LEFT, "the caller left before the answer was whole")
            raise Left from error

    @asynccontextmanager
    async def _asked(self, begun: "_Begun", body: bytes) -> AsyncIterator[aiohttp.ClientResponse]:
        """An upstream that was started again has forgotten the version's adapter: it is loaded, then asked again."""
        load_again = begun.deployed.agent.load_again
        async with self._upstream.ask(body) as response:
            if load_again is None or response.status != 404:
                yield response
                return
        try:
            await asyncio.to_thread(load_again)
        except RatchetError as error:
            raise aiohttp.ClientError(str(error)) from error
        async with self._upstream.ask(body) as response:
            yield response

    async def _whole(self, begun: "_Begun", response: aiohttp.ClientResponse, send: Send) -> None:
        content = await response.read()
        begun.answer.append(content)
        if 300 <= response.status < 400:
            raise aiohttp.ClientError(f"it answered {response.status}, and redirects are not followed")
        if response.status >= 400:
            UPSTREAM_ERRORS.inc()
        await self._commit(begun, response.status)
        await send_answer(send, response.status, content, begun.headers + passed_on(response))

    async def _stream(self, begun: "_Begun", response: aiohttp.ClientResponse, send: Send) -> None:
        headers = begun.headers + passed_on(response)
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        begun.has_started = True
        last = b""
        async for lines, is_last in _events(response.content.iter_any()):
            begun.answer.append(lines)
            if is_last:
                last += lines
            else:
                await send({"type": "http.response.body", "body": lines, "more_body": True})
        try:
            await self._commit(begun, response.status)
        except ServiceUnavailable as error:
            last = _event(Refused(503, "trace_not_saved", str(error)))
        await send({"type": "http.response.body", "body": last})

    async def _failed(self, begun: "_Begun", error: Exception, send: Send) -> None:
        """There is no whole answer: say so, in the stream if it has begun."""
        late = isinstance(error, TimeoutError)
        said = f"the upstream gave no whole answer: {named(error, 300)}"
        refused = Refused(504 if late else 502, "upstream_timeout" if late else "upstream_failed", said)
        await self._commit(begun, refused.status, said)
        if begun.has_started:
            await send({"type": "http.response.body", "body": _event(refused)})
        else:
            await send_answer(send, refused.status, refused.body, begun.headers + JSON)

    async def _commit(self, begun: "_Begun", status: int, error: str | None = None) -> None:
        """Once for each request, also where its caller leaves meanwhile."""
        if not begun.is_kept:
            begun.is_kept = True
            await self._journal.commit(begun.exchange(status, error).line())


class _Begun:
    """A request that is under way, with the version that it began with."""

    def __init__(self, deployed: Deployed, session_id: str | None, body: bytes, is_stream: bool) -> None:
        self.deployed, self.session_id, self.body, self.is_stream = deployed, session_id, body, is_stream
        self.trace_id = uuid.uuid4().hex
        self.at, self._clock = time.time(), time.perf_counter()
        self.recalled: tuple[str, ...] = ()
        self.answer: list[bytes] = []
        self.has_started = self.is_kept = False

    @property
    def headers(self) -> Headers:
        """Which version answers, and under which trace."""
        return version_headers(self.deployed.candidate_id, self.trace_id)

    def exchange(self, status: int, error: str | None = None) -> Exchange:
        """What has been said so far."""
        return Exchange(
            trace_id=self.trace_id,
            at=self.at,
            latency_s=time.perf_counter() - self._clock,
            candidate_id=self.deployed.candidate_id,
            memory_id=self.deployed.memory_id,
            session_id=self.session_id,
            recalled=self.recalled,
            request=self.body.decode("utf-8", "replace"),
            answer=b"".join(self.answer).decode("utf-8", "replace"),
            is_stream=self.is_stream,
            status=status,
            error=error,
        )


class _Watch:
    """Within, the request is cancelled when its caller leaves; short ones are not worth a task."""

    def __init__(self, receive: Receive) -> None:
        self._receive, self._task = receive, asyncio.current_task()
        self._watching: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        self._later = asyncio.get_running_loop().call_later(WATCH_AFTER_S, self._begin)

    def __exit__(self, *_: object) -> None:
        self._later.cancel()
        if self._watching is not None:
            self._watching.cancel()

    def _begin(self) -> None:
        self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self._task is not None:
            self._task.cancel()


def version_headers(candidate_id: str, trace_id: str) -> Headers:
    """Who answered, and under which trace it is kept."""
    return [(b"x-ratchet-version", candidate_id.encode()), (b"x-ratchet-trace", trace_id.encode())]


def session_of(scope: Scope, asked: dict[str, Any]) -> str | None:
    """By the header `x-ratchet-session`, else by the body's `user`."""
    user = asked.get("user")
    said = header(scope, b"x-ratchet-session") or (user if isinstance(user, str) and user else None)
    if said is None or len(said) <= SESSION_LENGTH:
        return said
    return hashlib.sha256(said.encode()).hexdigest()


async def _rendered(deployed: Deployed, asked: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """As it goes up; to recall takes milliseconds, and others wait on this loop."""
    agent = deployed.agent
    try:
        if agent.candidate.topology.recalls:
            return await asyncio.to_thread(agent.rendered, asked)
        return agent.rendered(asked)  # type: ignore[no-any-return]
    except BadInput as error:
        raise as_refused(error) from error


async def _events(chunks: AsyncIterator[bytes]) -> AsyncIterator[tuple[bytes, bool]]:
    """A stream's whole lines as they come, and whether they are its end: `[DONE]` and what follows."""
    rest, is_last = b"", False
    async for chunk in chunks:
        lines, newline, rest = (rest + chunk).rpartition(b"\n")
        lines += newline
        found = None if is_last else _DONE.search(lines)
        if found is not None:
            if found.start():
                yield lines[: found.start()], False
            lines, is_last = lines[found.start() :], True
        if lines:
            yield lines, is_last
    if rest:
        yield rest, True


def _event(refused: Refused) -> bytes:
    return b"data: " + refused.body + b"\n\n"
