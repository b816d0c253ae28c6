"""Where a project's experience lies: one library, fed by the traces that won, whoever acted in them.

Why beside the traces and not in MLflow: recall takes milliseconds, a search of MLflow seconds; the library can
be made again from the traces at any time, because a step is remembered once.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from ratchet.agent.memory.library import Library, LibraryView
from ratchet.agent.memory.ranking import Embed, RecallSettings, Retriever
from ratchet.agent.memory.steps import WON, winning_steps
from ratchet.agent.trace import Trace
from ratchet.infra.settings import Settings
from ratchet.infra.store.collected import texts_about
from ratchet.infra.text_embedding import embedding_named

_HASH: Final = re.compile(r"(?:[0-9a-f]{2})+$")


def library_folder(project: str) -> Path:
    """Below `home`, one folder a project."""
    return Settings().home / "projects" / project / "experience"


def open_library(project: str) -> Library:
    """The project's library, recalling by meaning too where `RATCHET_EMBEDDING` names a model."""
    name = _configured()
    return Library(library_folder(project), embed=embedding_named(name), embedding=name)


def recall_of_snapshots(settings: RecallSettings | None) -> tuple[RecallSettings | None, Embed | None]:
    """How a new snapshot recalls, and by what: as told, or by meaning, too, where a model is configured."""
    name = _configured() if settings is None else settings.embedding
    embed = embedding_named(name) if name else None
    if settings is None and embed is not None:
        settings = RecallSettings(embedding=name)
    return settings, embed


def _configured() -> str:
    settings = Settings()
    return f"{settings.embedding} {settings.embedding_model}".strip()


@contextmanager
def library_view(project: str, traces: Set[str]) -> Iterator[Retriever]:
    """The library's steps of these traces alone, to be asked while it is open."""
    with open_library(project) as library:
        yield LibraryView(library, traces)


def asked_by(project: str, case_ids: Iterable[str]) -> dict[str, str]:
    """What these cases asked, by id, of those of which a run was collected or is remembered."""
    wanted = [one for one in case_ids if _HASH.match(one)]  # what is no hash is the id of no run's case
    with open_library(project) as library:
        remembered = {step.case_id: step.asked for step in library.first_steps(wanted)}
    return remembered | texts_about(project, wanted)


class Remembered(NamedTuple):
    """Steps that a project's library gained and lost."""

    added: int
    taken_back: int
    """Of traces that were remembered as won, until a later verdict."""


def remember(
    project: str, traces: Sequence[Trace], verdicts: Mapping[str, float] | None = None
) -> Remembered:
    """Keep the steps of those that won, take back those of the lost ones, count what recalled exemplars led to.

    Args:
        project: whose library.
        traces: runs of any outcome.
        verdicts: people's scores in [0, 1] by trace id, which outrank the environment's; never a judge's.
    """
    said = verdicts or {}
    lost = [trace.trace_id for trace in traces if _has_lost(trace, said.get(trace.trace_id))]
    with open_library(project) as library:
        taken_back = library.forget(lost)
        added = library.add(step for t in traces for step in winning_steps(t, person=said.get(t.trace_id)))
        library.credit(traces, said)
    return Remembered(added, taken_back)


def _has_lost(trace: Trace, person: float | None) -> bool:
    verdict = trace.score if person is None else person
    return verdict is not None and verdict < WON
