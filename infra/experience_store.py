"""Where a project's experience lies: one library, fed by the traces that won, whoever acted in them.

Why beside the traces and not in MLflow: recall takes milliseconds, a search of MLflow seconds; the library can
be made again from the traces at any time, because a step is remembered once.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.experience import winning_steps
from agent.library import Library
from agent.trace import Trace
from infra.settings import Settings
from infra.text_embedding import embedding_named


def library_folder(project: str) -> Path:
    """Below `home`, one folder a project."""
    return Settings().home / "projects" / project / "experience"


def open_library(project: str) -> Library:
    """The project's library, recalling by meaning too where `RATCHET_EMBEDDING` names a model."""
    settings = Settings()
    name = f"{settings.embedding} {settings.embedding_model}".strip()
    return Library(library_folder(project), embed=embedding_named(name), embedding=name)


def remember(project: str, traces: Sequence[Trace], verdicts: Mapping[str, float] | None = None) -> int:
    """Keep the steps of those that won, and count what recalled exemplars led to; returns how many steps are new.

    Args:
        project: whose library.
        traces: runs of any outcome.
        verdicts: people's scores in [0, 1] by trace id, which outrank the environment's; never a judge's.
    """
    said = verdicts or {}
    with open_library(project) as library:
        added = library.add(step for t in traces for step in winning_steps(t, person=said.get(t.trace_id)))
        library.credit(traces)
    return added
