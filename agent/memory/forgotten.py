"""What a person had forgotten, and what is the same as it: neither is learned again."""

from collections.abc import Iterable

from pydantic import AwareDatetime

from ratchet.agent.record import Record


class Forgotten(Record):
    """One entry that a person had forgotten."""

    entry_id: str
    """Trace of the run that left it behind."""
    case_id: str
    said: tuple[str, ...]
    """What it answered, as text; of a run of several steps each, and then only the run itself is forgotten."""
    at: AwareDatetime
    by: str
    reason: str


class Oblivion:
    """What must not be learned again: the forgotten runs, and the same answer to the same case in any other."""

    def __init__(self, entries: Iterable[Forgotten] = ()) -> None:
        """Of these; none = nothing was forgotten."""
        self.entries = tuple(entries)
        self._runs = {one.entry_id for one in self.entries}
        self._answers = {(one.case_id, one.said[0]) for one in self.entries if len(one.said) == 1}

    def covers(self, trace_id: str, case_id: str, said: str | None = None) -> bool:
        """Whether this run was forgotten, or this whole answer (as text) to this case."""
        return trace_id in self._runs or (said is not None and (case_id, said) in self._answers)
