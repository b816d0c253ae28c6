"""Who may ask: keys, the caller's host, content types; looked at before anything else is read.

Why `application/json` is demanded, and without keys a host that means this machine: a web page that a person happens
to open may post to localhost, and may have its own name point there; it can do neither with these two.
"""

import hmac
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final

from ratchet.agent.errors import BadInput
from ratchet.infra.serve.http import Refused, Scope, header

OPEN: Final = frozenset(("/healthz", "/readyz"))
"""What a load balancer asks, which has no key."""


class Guard:
    """Refuses what must not be served."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = [key.encode() for key in keys]

    def check(self, scope: Scope) -> None:
        """Return for a request that may be served; Refused (401, 403, 415) otherwise."""
        if scope["path"] in OPEN:
            return
        if self._keys:
            self._check_key(scope)
        elif not is_loopback(_host_name(header(scope, b"host") or "")):
            raise Refused(403, "wrong_host", "without RATCHET_SERVE_KEYS only localhost is served")
        if scope["method"] == "POST":
            kind = (header(scope, b"content-type") or "").partition(";")[0].strip().lower()
            if kind != "application/json":
                raise Refused(415, "wrong_type", f"content-type is {kind[:80]!r}: send application/json")

    def _check_key(self, scope: Scope) -> None:
        kind, _, given = (header(scope, b"authorization") or "").partition(" ")
        said = given.strip().encode("latin-1", "replace")
        fits = [hmac.compare_digest(said, key) for key in self._keys]  # all of them, whichever fits
        if kind.lower() != "bearer" or not any(fits):
            raise Refused(401, "invalid_api_key", "no valid API key: send Authorization: Bearer KEY")


def check_bind(host: str, keys: Sequence[str]) -> None:
    """Refuse to be reachable from other machines without a key.

    Raises:
        BadInput: `host` is no loopback address and there are no keys.
    """
    if not keys and not is_loopback(host):
        raise BadInput(
            f"host {host!r} is reachable from other machines and RATCHET_SERVE_KEYS is empty: "
            "set it to keys of your choice, separated by commas, or bind 127.0.0.1"
        )


def is_loopback(host: str) -> bool:
    """Whether the name or address means this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _host_name(host: str) -> str:
    """Of a Host header: without the port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
