"""`ratchet serve`: the champion behind an address, each answer's trace on disk before it is given."""

import logging
from typing import Annotated

import typer

from ratchet.agent.project import load_project
from ratchet.flows.commands.options import CURRENT_FOLDER, Folder
from ratchet.flows.commands.terminal import console
from ratchet.infra.settings import Settings


def serve(
    project: Folder = CURRENT_FOLDER,
    host: Annotated[
        str, typer.Option(help="Address to bind; others than this machine's need keys.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8100,
    canary_share: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of the sessions that the canary answers, if there is one."),
    ] = 0.0,
    poll: Annotated[
        float, typer.Option(min=0.05, help="Seconds between two looks at who is champion.")
    ] = 2.0,
) -> None:
    """Serve the champion to OpenAI clients, or at /v1/act.

    /v1/act is for an agent in Python. Keys of those who may ask stand in RATCHET_SERVE_KEYS.
    """
    from ratchet.infra.serve.guard import check_bind
    from ratchet.infra.serve.run import run_server
    from ratchet.infra.serve.server import Server

    settings = Settings()
    check_bind(host, settings.keys)
    found = load_project(project)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    console.print(f"ratchet/{found.name} at http://{host}:{port}/v1", soft_wrap=True)
    run_server(Server(found, settings, canary_share=canary_share, poll_s=poll), host=host, port=port)
