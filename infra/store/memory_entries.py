"""What a version remembers and what the library holds, as entries for people, with what came of showing each."""

from pathlib import Path

from ratchet.agent.memory.entries import MemoryEntry, entries_of
from ratchet.agent.memory.snapshot import read_snapshot
from ratchet.agent.memory.steps import Credit, Experience
from ratchet.infra.registry.registry import fetch_files
from ratchet.infra.store.experience import open_library


def is_memory(label: str) -> bool:
    """Whether a version's file of this name is a share of its memory."""
    return label == "memory" or label.startswith("memory.")


def remembered_by(project: str, candidate_id: str) -> list[MemoryEntry]:
    """The entries that a version recalls, worst first.

    Raises:
        CorruptRecord: a file is not what was registered.
    """
    steps = steps_of(fetch_files(project, candidate_id))
    ids = list({step.trace_id for several in steps.values() for step in several})
    with open_library(project) as library:
        credits = library.credits(ids)
    return entries_of(steps, credits)


def steps_of(files: dict[str, Path]) -> dict[str, list[Experience]]:
    """What each share of a version's memory holds, by the share's name."""
    return {label: read_snapshot(path)[1] for label, path in files.items() if is_memory(label)}


def library_entries(project: str, n: int, text: str = "") -> tuple[list[MemoryEntry], int]:
    """The `n` worst entries of the library that have a text, and how many have it."""
    with open_library(project) as library:
        steps, total = library.worst(n, text)
        credits = library.credits([step.trace_id for step in steps])
    return entries_of({"": steps}, credits), total


def library_entries_named(project: str, text: str) -> list[MemoryEntry]:
    """The library's entries whose id begins with this."""
    with open_library(project) as library:
        steps = library.begin_with(text.removeprefix("tr-").lower())
        return entries_of({"": steps}, library.credits(list({step.trace_id for step in steps})))


def recalls_of(project: str, entry_id: str) -> dict[str, Credit]:
    """The runs that were shown this entry, with what came of it."""
    with open_library(project) as library:
        return library.recalls(entry_id)
