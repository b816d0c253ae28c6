"""One process, one event loop, until it is told to stop; what is under way is answered first."""

import socket
import sys
from typing import Final

import uvicorn

from ratchet.agent.errors import BadInput, said
from ratchet.infra.serve.app import make_app
from ratchet.infra.serve.server import Server

SWITCH_S: Final = 0.0003
"""How soon the thread that wrote the journal is heard by a busy event loop: with Python's 5 ms, 16 connections waited
10 ms more."""
LAST_REQUESTS_S: Final = 30
"""How long answers that are under way are waited for at the end."""
IDLE_S: Final = 75
"""Idle connections are kept longer than the usual 60 s of a proxy before us, which must close them first."""


def run_server(server: Server, *, host: str, port: int) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        BadInput: the address is taken, or is none of this machine's.
    """
    sys.setswitchinterval(SWITCH_S)
    config = uvicorn.Config(
        make_app(server),
        loop="uvloop",
        http="httptools",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=LAST_REQUESTS_S,
    )
    uvicorn.Server(config).run(sockets=[_bound(host, port)])


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        raise BadInput(
            f"{host}:{port} cannot be bound ({said(error)}): give another --host or --port"
        ) from error
    return bound
