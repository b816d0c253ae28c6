"""What people told the agent to forget: an append-only log in MLflow, the same for every home.

Why a log and not a deletion: who forgot what and why must be readable for good, and the entry itself stays in its
trace. Nothing changes by it at once; the next `improve` makes a version without the entries, which the gate judges
as any other, and nothing that may teach has them any more (`Oblivion.covers`).
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from ratchet.agent.errors import BadInput
from ratchet.agent.memory.entries import MemoryEntry
from ratchet.agent.memory.forgotten import Forgotten, Oblivion
from ratchet.agent.optimize.calls import forget_all
from ratchet.infra.mlflow_client import connect, mlflow_errors
from ratchet.infra.registry.log import append_event, read_events
from ratchet.infra.store.project_state import CALLS, project_folder

_LONGEST = 1000
"""Characters of name and reason."""
_ANSWERS = 20
"""Answers of an entry that are told; what is the same as any of them, to the same case, is not learned again."""


def forget_entries(project: str, entries: Sequence[MemoryEntry], *, by: str, reason: str) -> list[Forgotten]:
    """Write down that these are to be forgotten; what already is stays as it was told first.

    Returns:
        Those that are new.

    Raises:
        BadInput: nobody's name or no reason.
    """
    if not by.strip() or not reason.strip():
        raise BadInput(f"by {by!r}, reason {reason!r}: to forget needs a name (--by) and a reason (--reason)")
    if len(by) + len(reason) > _LONGEST:
        raise BadInput(
            f"name and reason have {len(by) + len(reason)} characters, at most {_LONGEST} are kept: shorten them"
        )
    known = {one.entry_id for one in forgotten(project).entries}
    fresh = [
        Forgotten(
            entry_id=e.entry_id,
            case_id=e.case_id,
            said=e.said[:_ANSWERS],
            at=datetime.now(UTC),
            by=by,
            reason=reason,
        )
        for e in entries
        if e.entry_id not in known
    ]
    with mlflow_errors(f"forgetting {len(fresh)} entries"):
        connection = connect(project)
        for one in fresh:
            append_event(
                connection,
                "forgotten",
                one.to_json(),
                about="What people told the agent to forget; each version is one entry, none is deleted.",
                said=f"{one.entry_id}, by {one.by}: {one.reason}",
            )
    forget_all(project_folder(project) / CALLS)
    return fresh


def forgotten(project: str) -> Oblivion:
    """All that people told the agent to forget, oldest first.

    Raises:
        CorruptRecord: the log was changed.
    """
    with mlflow_errors("reading what was forgotten"):
        texts = read_events(connect(project), "forgotten")
    return Oblivion(
        Forgotten.from_json(text, where=f"{project}-forgotten version {n}") for n, text in enumerate(texts, 1)
    )
