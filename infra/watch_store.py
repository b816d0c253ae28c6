"""Where a project's watch lies, and who may write it: one at a time.

Why a lock beside the schedule's own limit: a person may look by hand while the schedule does.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from evaluation.watching import WatchState
from infra.locks import held
from infra.project_state import project_folder, write_whole


@contextmanager
def watch_lock(project: str) -> Iterator[None]:
    """Hold the project's watch; another look waits for its turn and then finds what is left.

    Raises:
        ServiceUnavailable: another look has not ended for ten minutes.
    """
    with held(project_folder(project) / "watch.lock", f"a look for drift in {project!r}"):
        yield


def read_watch(project: str) -> WatchState:
    """The watch as it was last written; a new project has an empty one."""
    path = project_folder(project) / "watch.json"
    return WatchState.from_json(path.read_text(), where=str(path)) if path.exists() else WatchState()


def write_watch(project: str, state: WatchState) -> None:
    """Replace it, whole or not at all."""
    write_whole(project_folder(project) / "watch.json", state.to_json())
