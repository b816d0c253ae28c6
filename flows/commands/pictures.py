"""`ratchet pictures`: the pictures of the README, from a finished demo and a running MLflow.

Why a command: a picture that nobody can take again shows a product that no longer exists.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from agent.errors import BadInput
from flows.commands.terminal import console
from flows.commands.which_project import HERE, Folder, Name, which_project
from infra.loop_picture import draw_loop
from infra.registry import history
from infra.review_answers import finished
from infra.screenshots import Page, browser_tab, compared, model, review_queue, take, trace
from infra.tracking import connect
from infra.version import Version


def pictures(
    out: Annotated[Path, typer.Option(help="Folder for the PNGs.")],
    server: Annotated[
        str, typer.Option(help="MLflow's pages, as `ratchet up` serves them.")
    ] = "http://127.0.0.1:5001",
    project: Folder = HERE,
    name: Name = None,
) -> None:
    """Draw the loop; take screenshots of two compared versions, a labelled trace, the model and the queue."""
    chosen = which_project(project, name)
    console.print(str(draw_loop(out / "loop.png")))
    with browser_tab() as tab:
        for page in pages(chosen):
            console.print(str(take(tab, server, page, out)))


def pages(project: str) -> list[Page]:
    """What is worth a picture in this project.

    Raises:
        BadInput: there are no two versions to compare, or nobody answered a question yet.
    """
    judged = [version for version in history(project) if version.verdict is not None]
    labels = finished(project)
    if len(judged) < 2 or not labels:
        raise BadInput(
            f"{project!r} has {len(judged)} judged versions and {len(labels)} answers; the pictures need 2 and 1: "
            "run `ratchet demo` first"
        )
    where, label = connect(project).experiment_id, labels[-1]
    pair = unlike(judged)
    return [
        compared(where, [version.run_id for version in pair], ("reason", pair[0].decision or "")),
        trace(where, f"tr-{label.trace_id}", ("expected", label.rater)),
        model(project),
        review_queue(where),
    ]


def unlike(judged: Sequence["Version"]) -> tuple[Version, Version]:
    """The first judged version, and the first that was decided otherwise; the last where all were decided alike."""
    first = judged[0]
    return first, next((v for v in judged if v.decision != first.decision), judged[-1])
