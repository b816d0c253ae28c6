"""The one host that is asked: the upstream of the settings, whatever a version, a request or a redirect says.

Why aiohttp: of the same proxy it made 1,360 requests a second at 64 connections, httpx 295.
"""

import io
from contextlib import AbstractAsyncContextManager
from typing import Final

import aiohttp
from yarl import URL

PASSED_ON: Final = (b"content-type", b"retry-after", b"x-request-id")
"""Of the upstream's headers; and those that begin with `x-ratelimit-`."""
CONNECT_S: Final = 10.0
KEPT_S: Final = 4.0
"""An idle connection is closed before a server does it: uvicorn's do after 5 s, and a request would be lost."""
_LARGE: Final = 1 << 20


class Relay:
    """Asks `<base>/chat/completions`."""

    def __init__(self, base: str, key: str | None, *, timeout_s: float) -> None:
        """Get ready on this event loop.

        Args:
            base: such as http://localhost:8000/v1.
            key: sent as bearer token; never logged.
            timeout_s: longest silence of the upstream.
        """
        self._url = URL(f"{base.rstrip('/')}/chat/completions")
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEPT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_S, sock_read=timeout_s),
            headers=headers,
            trust_env=False,
        )

    def ask(self, body: bytes) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Post the request; redirects are not followed."""
        data = io.BytesIO(body) if len(body) >= _LARGE else body  # aiohttp warns of large bytes
        return self._session.post(self._url, data=data, allow_redirects=False)

    async def close(self) -> None:
        """Let its connections go."""
        await self._session.close()


def passed_on(response: aiohttp.ClientResponse) -> list[tuple[bytes, bytes]]:
    """Of the upstream's headers those that speak of the answer, as ASGI takes them."""
    return [
        (lower, value)
        for name, value in response.raw_headers
        if (lower := name.lower()) in PASSED_ON or lower.startswith(b"x-ratelimit-")
    ]
