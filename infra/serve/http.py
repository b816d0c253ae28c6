"""What every route needs of HTTP: a body within its bound, a refusal as OpenAI's clients read it, an answer.

Why not FastAPI's own: its validation and response classes cost more than the whole proxy.
"""

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, TypeAlias

import orjson

from ratchet.agent.errors import BadInput

AsgiMessage: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[AsgiMessage]]
Send: TypeAlias = Callable[[AsgiMessage], Awaitable[None]]
Headers: TypeAlias = list[tuple[bytes, bytes]]

JSON: Headers = [(b"content-type", b"application/json")]


class Refused(Exception):
    """A request that is not served: the status and one line that says why."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message

    @property
    def body(self) -> bytes:
        """As OpenAI's clients read it."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        said = {"message": self.message, "type": kind, "param": None, "code": self.code}
        return orjson.dumps({"error": said})


class Left(Exception):
    """The caller has closed the connection."""


def header(scope: Scope, name: bytes) -> str | None:
    """A header's value; `name` in lower case."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return None


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The whole body, at most `limit` bytes; Refused (413) beyond."""
    told = header(scope, b"content-length")
    if told is not None and told.isdigit() and int(told) > limit:
        raise _too_large(limit)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Left
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise _too_large(limit)
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)


def _too_large(limit: int) -> Refused:
    return Refused(413, "body_too_large", f"the body is larger than {limit:,} bytes: RATCHET_SERVE_MAX_BODY")


def read_object(body: bytes) -> dict[str, Any]:
    """The body as a JSON object; Refused (400) if it is none."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused(400, "invalid_json", f"the body is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise Refused(400, "invalid_json", f"the body is a JSON {type(found).__name__}: send an object")
    return found


def as_refused(error: BadInput) -> Refused:
    """Our own refusal as the caller reads it."""
    return Refused(400, "bad_input", str(error))


async def send_answer(
    send: Send, status: int, body: bytes, headers: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    """Send a whole response."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
