"""What people read of a memory: one entry for all that one run left behind, with what came of showing it.

Decision: an entry is named by the trace that its steps come from, since that is what a trace says of what it was
shown (`Attempt.recalled`); whole trajectories are kept or left, so a person forgets one whole, too.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Literal

from pydantic import Field

from ratchet.agent.errors import BadInput
from ratchet.agent.memory.steps import Credit, Experience
from ratchet.agent.record import Record

_SHORTEST = 4
"""Characters of an id that name an entry at least."""


class MemoryEntry(Record):
    """What one run left behind."""

    entry_id: str
    """The run's trace."""
    case_id: str
    source: Literal["own", "human"]
    imported_from: str = ""
    request: str
    """What was asked, as far as the first step knows."""
    said: tuple[str, ...] = Field(min_length=1)
    """What was answered or done, in order."""
    recorded_at: datetime | None = None
    where: tuple[str, ...] = ()
    """Shares of the memory that it stands in (`memory`, `memory.<prompt>`); empty = in the library alone."""
    supersedes: tuple[str, ...] = ()
    """Entries with another answer to the same request that it replaced."""
    credit: Credit = Credit()

    @property
    def worth(self) -> float:
        """Share of the runs shown this that won, in (0, 1), drawn towards one half where there were few."""
        return (self.credit.led_to_success + 1) / (self.credit.shown + 2)


def entries_of(steps: Mapping[str, Iterable[Experience]], credits: Mapping[str, Credit]) -> list[MemoryEntry]:
    """The entries of a memory, worst first; those of equal worth in the order of age and id.

    Args:
        steps: by where they stand; an empty name is the library's.
        credits: what came of showing each, by id.
    """
    found: dict[str, list[tuple[str, Experience]]] = {}
    for where, several in steps.items():
        for step in several:
            found.setdefault(step.trace_id, []).append((where, step))
    entries = [_entry(placed, credits.get(entry_id, Credit())) for entry_id, placed in found.items()]
    return sorted(
        entries, key=lambda e: (e.worth, e.recorded_at.timestamp() if e.recorded_at else 0.0, e.entry_id)
    )


def _entry(placed: Sequence[tuple[str, Experience]], credit: Credit) -> MemoryEntry:
    steps = sorted((step for _, step in placed), key=lambda step: (step.attempt, step.index or 0, step.role))
    first = steps[0]
    return MemoryEntry(
        entry_id=first.trace_id,
        case_id=first.case_id,
        source="human" if any(step.source == "human" for step in steps) else "own",
        imported_from=first.imported_from,
        request=first.asked,
        said=tuple(dict.fromkeys(step.said for step in steps)),
        recorded_at=first.recorded_at,
        where=tuple(sorted({where for where, _ in placed if where})),
        supersedes=tuple(sorted({one for step in steps for one in step.supersedes})),
        credit=credit,
    )


def with_text(entries: Iterable[MemoryEntry], text: str) -> list[MemoryEntry]:
    """Those whose request or answer has the text, in whatever case."""
    wanted = text.casefold()
    return [e for e in entries if wanted in "\n".join((e.request, *e.said)).casefold()]


def entry_named(entries: Sequence[MemoryEntry], text: str) -> MemoryEntry:
    """The entry with this id, or the beginning of one.

    Raises:
        BadInput: none, or several.
    """
    wanted = text.removeprefix("tr-").lower()
    found = [e for e in entries if len(wanted) >= _SHORTEST and e.entry_id.startswith(wanted)]
    if len(found) != 1:
        what = f"{len(found)} entries begin" if found else "no entry of the memory begins"
        raise BadInput(
            f"{what} with {text!r:.80}: give an id, or its first {_SHORTEST} characters or more, "
            "as `ratchet memory list` shows them"
        )
    return found[0]
