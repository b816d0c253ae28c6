"""What a project's flows remember between runs that is not in MLflow: how far they have read.

Why a file and not a run's memory: any stage can be killed and run again; what is lost with this file is only
work (everything is read again from MLflow), never evidence. Every change is made under a lock, and `improve` holds
another from its first request to its last: a look for drift may go on beside it, a second `improve` may not.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pydantic import ConfigDict, Field

from ratchet.agent.record import Record
from ratchet.infra.locks import held
from ratchet.infra.settings import Settings
from ratchet.infra.store.dataset_store import DatasetVersion
from ratchet.infra.traces.write import Watermark

CALLS: Final = "calls.db"
"""File in a project's folder: what its proposers paid, until what it was paid for is a version."""


class ProjectState(Record):
    """Progress of one project; what an older version kept besides is left out."""

    model_config = ConfigDict(extra="ignore")

    watermark: Watermark | None = None
    traces: DatasetVersion | None = None
    """Everything collected so far."""
    labels: DatasetVersion | None = None
    asked: tuple[str, ...] = ()
    """Traces that people were asked about in this round."""
    asked_about_episode: int = 0
    """Newest incident of drift whose region people were asked about."""
    spent_gate_cases: tuple[str, ...] = ()
    """Cases that a gate used: they chose a champion and can never judge again."""
    unreadable: dict[str, str] = Field(default_factory=dict)
    """Traces in MLflow that could not be read, and why; the newest are tried again at every look."""
    unfinished: tuple[str, ...] = ()
    """Traces whose agent was still at work when they were looked at."""


def project_folder(project: str) -> Path:
    """The project's own folder below `home`; made where absent."""
    folder = Settings().made_home() / "projects" / project
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def read_state(project: str) -> ProjectState:
    """The state as it was last written; a new project has an empty one."""
    path = project_folder(project) / "state.json"
    return ProjectState.from_json(path.read_text(), where=str(path)) if path.exists() else ProjectState()


def update_state(project: str, **changes: object) -> ProjectState:
    """Write the state with these fields changed, whole or not at all."""
    with state_lock(project):
        state = read_state(project).model_copy(update=changes)
        write_whole(project_folder(project) / "state.json", state.to_json())
    return state


@contextmanager
def state_lock(project: str) -> Iterator[None]:
    """Hold the state between reading it and writing what follows from it; `update_state` may be called within.

    Raises:
        ServiceUnavailable: somebody else holds it for ten minutes.
    """
    with held(project_folder(project) / "state.lock", f"a change of {project!r}'s state"):
        yield


@contextmanager
def project_lock(project: str, doing: str, tell: Callable[[str], None]) -> Iterator[None]:
    """Serve, ask, learn and judge alone; another run waits and then finds what is left.

    Args:
        project: its name.
        doing: who holds it, as others are told.
        tell: called with one line where another run is at work, with since when.

    Raises:
        ServiceUnavailable: the other run did not end within an hour.
    """
    with held(project_folder(project) / "run.lock", doing, patience_s=3600, tell=tell):
        yield


def write_whole(path: Path, text: str) -> None:
    """Replace a file's text, so that a crash leaves the old or the new one."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as partial:
        partial.write(text)
        partial.flush()
        os.fsync(partial.fileno())
    Path(partial.name).replace(path)
