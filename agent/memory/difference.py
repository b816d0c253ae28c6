"""What one snapshot of experience remembers that another does not: what a person who approves must see."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from ratchet.agent.memory.snapshot import entry_key
from ratchet.agent.memory.steps import Experience
from ratchet.agent.record import Record

_SAID: Final = {"observation", "action", "arguments", "goal", "thought", "result", "role", "source"}
"""What an entry says; where it came from and how often it helped are no difference."""


class MemoryDifference(Record):
    """Entries by what became of them; each list in the order of its snapshot."""

    added: tuple[Experience, ...] = ()
    removed: tuple[Experience, ...] = ()
    changed: tuple[tuple[Experience, Experience], ...] = ()
    """Before and after: the same case and action, or the same place in a trajectory, that says something else."""
    kept: int = 0

    def __bool__(self) -> bool:
        """Whether anything differs."""
        return bool(self.added or self.removed or self.changed)

    @property
    def summary(self) -> str:
        """`12 added, 1 removed, 3 changed, 140 kept`."""
        counts = {"added": len(self.added), "removed": len(self.removed), "changed": len(self.changed)}
        told = [f"{n:,} {what}" for what, n in counts.items() if n]
        return ", ".join([*told, f"{self.kept:,} kept"])


def memory_difference(old: Iterable[Experience], new: Iterable[Experience]) -> MemoryDifference:
    """Compare two snapshots entry by entry, by what they say."""
    before, after = ({entry_key(one): one for one in entries} for entries in (old, new))
    both = [(before[key], one) for key, one in after.items() if key in before]
    changed = tuple(pair for pair in both if _content(pair[0]) != _content(pair[1]))
    return MemoryDifference(
        added=tuple(one for key, one in after.items() if key not in before),
        removed=tuple(one for key, one in before.items() if key not in after),
        changed=changed,
        kept=len(both) - len(changed),
    )


def share_differences(
    old: Mapping[str, Sequence[Experience]], new: Mapping[str, Sequence[Experience]]
) -> dict[str, MemoryDifference]:
    """The same for each share of the experience, by its name; one without a difference is left out."""
    names = dict.fromkeys([*old, *new])
    found = {name: memory_difference(old.get(name, ()), new.get(name, ())) for name in names}
    return {name: one for name, one in found.items() if one}


def _content(one: Experience) -> dict[str, Any]:
    return one.model_dump(mode="json", include=_SAID)
