"""`ratchet demo`: the whole loop, on real requests, in minutes."""

from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import typer

from ratchet.agent.lm.embedded import smollm2
from ratchet.flows.commands.options import AsJson
from ratchet.flows.commands.run_here import resumable, start_server
from ratchet.flows.commands.terminal import console, emit_json
from ratchet.flows.demo.restart import forget
from ratchet.flows.demo.story import tell
from ratchet.flows.demo.weeks import DEMO_PROJECT, begin
from ratchet.infra.store.project_state import project_lock


def demo(
    auto_approve: Annotated[
        bool, typer.Option("--auto-approve", help="Promote what is proven without asking a person.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget an earlier demo and start over.")] = False,
    size: Annotated[
        float, typer.Option(min=0.1, max=1.0, help="Share of the requests: less is quicker and proves less.")
    ] = 1.0,
    as_json: AsJson = False,
) -> None:
    """The whole loop on real requests: no server, no key, no hub."""
    model = ThreadPoolExecutor(1).submit(smollm2)  # the server's start leaves a core idle
    start_server()
    model.result()  # cannot be loaded: said before anything is served
    if fresh:
        forget()
    with project_lock(DEMO_PROJECT, "`ratchet demo`", console.print), resumable():
        begin(size)
        story = tell(auto_approve=auto_approve)
    if as_json:
        emit_json(story)
