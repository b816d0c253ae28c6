"""The routes, and what is started before the first request and ended after the last.

Why the front stands before FastAPI, and chat with it: nothing of a chat request may cost what it does not need, and
nothing may be reached that the guard has not seen.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import JSONResponse, Response

from ratchet.agent.errors import ServiceUnavailable
from ratchet.infra.serve.feedback import label_line, label_of
from ratchet.infra.serve.guard import Guard
from ratchet.infra.serve.http import (
    JSON,
    AsgiMessage,
    Left,
    Receive,
    Refused,
    Scope,
    Send,
    read_body,
    read_object,
    send_answer,
)
from ratchet.infra.serve.metrics import IN_FLIGHT, LATENCY, ON_DISK, REGISTRY, REQUESTS, UNSENT
from ratchet.infra.serve.server import Server

Route = Callable[[Scope, Receive, Send], Awaitable[None]]
CHAT: Final = "/v1/chat/completions"
ACT: Final = "/v1/act"
FEEDBACK: Final = "/v1/feedback"
PATHS: Final = frozenset((CHAT, ACT, FEEDBACK, "/v1/models", "/healthz", "/readyz", "/metrics"))


class Front:
    """Guards, counts, and turns refusals into answers."""

    def __init__(self, rest: Route, guard: Guard, routes: dict[str, Callable[[], Route | None]]) -> None:
        self._rest, self._guard, self._routes = rest, guard, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection's request."""
        if scope["type"] != "http":
            await self._rest(scope, receive, send)
            return
        path = scope["path"]
        route = path if path in PATHS else "other"
        began, status = time.perf_counter(), 0

        async def counted(message: AsgiMessage) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        IN_FLIGHT.inc()
        try:
            await self._answered(path, scope, receive, counted)
        finally:
            IN_FLIGHT.dec()
            REQUESTS.labels(route, str(status)).inc()
            LATENCY.labels(route).observe(time.perf_counter() - began)

    async def _answered(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._guard.check(scope)
            if path not in self._routes or scope["method"] != "POST":
                await self._rest(scope, receive, send)
                return
            found = self._routes[path]()
            if found is None:
                other = ACT if path == CHAT else CHAT
                raise Refused(404, "wrong_kind", f"this agent is asked at {other}")
            await found(scope, receive, send)
        except Refused as refused:
            await send_answer(send, refused.status, refused.body, JSON)
        except ServiceUnavailable as error:
            not_saved = Refused(503, "trace_not_saved", str(error))
            await send_answer(send, not_saved.status, not_saved.body, JSON)
        except Left:
            return


def make_app(server: Server) -> Route:
    """The whole as one ASGI application."""

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        await server.start()
        yield
        await server.end()

    app = FastAPI(title="ratchet serve", docs_url=None, redoc_url=None, openapi_url=None, lifespan=life)
    app.add_route("/healthz", lambda _: JSONResponse({"status": "ok"}))
    app.add_route("/readyz", lambda _: _readiness(server))
    app.add_route("/metrics", lambda _: _metrics(server))
    app.add_route("/v1/models", lambda _: _models(server))

    async def feedback(scope: Scope, receive: Receive, send: Send) -> None:
        label = label_of(read_object(await read_body(scope, receive, server.settings.serve_max_body)))
        await server.journal.commit(label_line(label))
        await send_answer(send, 202, b'{"status":"kept"}', JSON)

    routes: dict[str, Callable[[], Route | None]] = {
        CHAT: lambda: server.chat,
        ACT: lambda: server.act,
        FEEDBACK: lambda: feedback,
    }
    return Front(app, Guard(server.keys), routes)


def _readiness(server: Server) -> Response:
    """200 once a version is loaded."""
    named = {alias: one.candidate_id for alias, one in server.deployments.by_alias.items()}
    return JSONResponse(
        {"ready": server.deployments.is_ready, **named}, 200 if server.deployments.is_ready else 503
    )


def _metrics(server: Server) -> Response:
    ON_DISK.set(server.journal.n_lines)
    UNSENT.set(server.n_unsent)
    return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)


def _models(server: Server) -> Response:
    """What may be asked for, as OpenAI's clients list it."""
    listed = [{"id": name, "object": "model", "owned_by": "ratchet"} for name in server.deployments.models()]
    return JSONResponse({"object": "list", "data": listed})
