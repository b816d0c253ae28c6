"""Where a project's watch lies: in MLflow, the same for every home, with a copy here.

Why not in one home: two workers would both page, and one that lost its disk would page for what is long over. Why
a log beside the file: MLflow replaces a file without asking, but the number of a model version is given once. Each
state names the one that it follows; of two that follow the same one the first counts, and who comes second looks
again. Each home writes two files in turn, so that nobody's newest is overwritten and nothing grows.
"""

import gzip
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from ratchet.agent.errors import CorruptRecord, ServiceUnavailable
from ratchet.agent.record import Record, content_hash
from ratchet.evaluation.drift.watch_state import WatchState
from ratchet.infra.drift.log import drift_run_id
from ratchet.infra.locks import held
from ratchet.infra.mlflow_client import Connection, connect, mlflow_errors
from ratchet.infra.registry.log import append_event, newest_events
from ratchet.infra.store.project_state import project_folder, write_whole

LOG: Final = "watch"
_FOLDER: Final = "watch"
_ATTEMPTS: Final = 8
_AT_ONCE: Final = 50
"""How many homes may write at one moment and be told apart."""


class WatchFile(Record):
    """One line of the log: a state of the watch."""

    after: int
    """Place of the state that it follows; 0 = none."""
    digest: str
    file: str
    """Below the drift run's artifacts."""


class _Head(NamedTuple):
    place: int
    written: WatchFile


@contextmanager
def watch_lock(project: str) -> Iterator[None]:
    """Hold the project's watch in this home; another look waits for its turn and then finds what is left.

    Raises:
        ServiceUnavailable: another look has not ended for ten minutes.
    """
    with held(project_folder(project) / "watch.lock", f"a look for drift in {project!r}"):
        yield


def this_home(project: str) -> str:
    """Who looks, as a claim names it."""
    return f"{socket.gethostname()} {project_folder(project)}"


def read_watch(project: str) -> WatchState:
    """The watch as it was last written by whichever home; a new project has an empty one.

    Raises:
        ServiceUnavailable: MLflow did not answer.
        CorruptRecord: the state is not the one that the log names.
    """
    with mlflow_errors("reading the watch for drift"):
        return _read(connect(project))[0]


def change_watch(project: str, change: Callable[[WatchState], WatchState]) -> WatchState:
    """Replace the watch by what `change` makes of it, and return that; call it under `watch_lock`.

    Where another home was quicker, `change` is asked again, with what that home wrote.

    Raises:
        ServiceUnavailable: MLflow did not answer, or others were quicker each time.
    """
    with mlflow_errors("writing the watch for drift"):
        connection = connect(project)
        for _ in range(_ATTEMPTS):
            state, head = _read(connection)
            changed = change(state)
            if changed == state or _write(connection, changed, head):
                return changed
    raise ServiceUnavailable(
        f"the watch of {project!r} was changed by other homes {_ATTEMPTS} times in a row; repeat"
    )


def _read(connection: Connection) -> tuple[WatchState, _Head | None]:
    copy = _copy(connection)
    for _ in range(_ATTEMPTS):
        head = _head(connection)
        here = copy.read_text() if copy.exists() else ""
        if head is None:
            return (WatchState.from_json(here, where=str(copy)) if here else WatchState()), None
        if content_hash(here) == head.written.digest:
            return WatchState.from_json(here, where=str(copy)), head
        text = _fetched(connection, head.written.file)
        if content_hash(text) == head.written.digest:
            write_whole(copy, text)
            return WatchState.from_json(text, where=head.written.file), head
        if head == _head(connection):  # else it was replaced, while we read, by a newer one
            raise CorruptRecord(
                f"artifact {head.written.file} of the drift run of {connection.project!r} is not the state that "
                f"version {head.place} of {connection.project}-{LOG} names: restore MLflow's artifacts, or delete "
                "that registered model to begin the watch anew"
            )
    raise ServiceUnavailable(f"the watch of {connection.project!r} changes faster than it is read; repeat")


def _head(connection: Connection) -> _Head | None:
    """The newest state that counts: the first of those that follow the newest one that was followed."""
    events = [
        _Head(place, WatchFile.from_json(text, where=f"{connection.project}-{LOG} version {place}"))
        for place, text in newest_events(connection, LOG, _AT_ONCE)
    ]
    followed = max((event.written.after for event in events), default=0)
    return min((event for event in events if event.written.after == followed), default=None)


def _write(connection: Connection, state: WatchState, head: _Head | None) -> bool:
    """Whether it counts: no other home followed `head` first."""
    text = state.to_json()
    file = _free_file(connection, head)
    run_id = drift_run_id(connection)
    with tempfile.TemporaryDirectory() as scratch:
        packed = Path(scratch) / Path(file).name
        packed.write_bytes(gzip.compress(text.encode(), 1, mtime=0))
        connection.client.log_artifact(run_id, str(packed), _FOLDER)
    event = WatchFile(after=head.place if head else 0, digest=content_hash(text), file=file)
    place = append_event(
        connection, LOG, event.to_json(), about="The watch for drift; each version is one state of it."
    )
    won = _head(connection)
    if won is None or won.place != place:
        return False
    write_whole(_copy(connection), text)
    return True


def _free_file(connection: Connection, head: _Head | None) -> str:
    """That of this home's two files which is not the newest state."""
    own = [f"{_FOLDER}/{content_hash(this_home(connection.project), length=8)}-{n}.json.gz" for n in range(2)]
    return own[1] if head is not None and head.written.file == own[0] else own[0]


def _fetched(connection: Connection, file: str) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        path = connection.client.download_artifacts(drift_run_id(connection), file, scratch)
        try:
            return gzip.decompress(Path(path).read_bytes()).decode()
        except (OSError, EOFError, ValueError):
            return ""


def _copy(connection: Connection) -> Path:
    return project_folder(connection.project) / "watch.json"
