"""Take the pictures of the README again, from a finished demo and a running MLflow.

`python -m tests.e2e.pictures.take --name demo` in the repository's root, while `ratchet up` runs.
Why a script: a picture that nobody can take again shows a product that no longer exists.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from tests.e2e.pictures.loop import draw_loop
from tests.e2e.pictures.screenshots import Page, browser_tab, compared, model, review_queue, take, trace
from tests.evidence import finished

from ratchet.agent.errors import BadInput
from ratchet.infra.mlflow_client import connect
from ratchet.infra.registry.registry import version_history
from ratchet.infra.registry.version import Version


def take_all(
    out: Annotated[Path, typer.Option(help="Folder for the PNGs.")] = Path(__file__).parent,
    server: Annotated[str, typer.Option(help="MLflow's pages.")] = "http://127.0.0.1:5001",
    name: Annotated[str, typer.Option(help="The project's name in MLflow.")] = "demo",
) -> None:
    """Draw the loop; take screenshots of two compared versions, a labelled trace, the model and the queue."""
    print(draw_loop(out / "loop.png"))
    with browser_tab() as tab:
        for page in pages(name):
            print(take(tab, server, page, out))


def pages(project: str) -> list[Page]:
    """What is worth a picture in this project.

    Raises:
        BadInput: there are no two versions to compare, or nobody answered a question yet.
    """
    judged = [version for version in version_history(project) if version.verdict is not None]
    labels = finished(project)
    if len(judged) < 2 or not labels:
        raise BadInput(
            f"{project!r} has {len(judged)} judged versions and {len(labels)} answers; the pictures need 2 and 1: "
            "run `ratchet demo` first"
        )
    where, label = connect(project).experiment_id, labels[-1]
    pair = unlike(judged)
    return [
        compared(where, [version.run_id for version in pair], (pair[0].verdict.reason, "reason")),
        trace(where, f"tr-{label.trace_id}", ("expected", label.rater)),
        model(project),
        review_queue(where),
    ]


def unlike(judged: Sequence["Version"]) -> tuple[Version, Version]:
    """The first judged version, and the first that was decided otherwise; the last where all were decided alike."""
    first = judged[0]
    return first, next((v for v in judged if v.decision != first.decision), judged[-1])


if __name__ == "__main__":
    typer.run(take_all)
