"""What a proposer may learn from. Decision: what was read is what was seen.

Each part is read when it is first asked for, and counts as seen from then on: the gate may never judge on a case
that shaped a candidate, and no proposer can forget to say which cases these were.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Final, TypeVar

from pydantic import Field

from ratchet.agent.case import Case
from ratchet.agent.kinds.decision import View
from ratchet.agent.memory.library import Library
from ratchet.agent.memory.ranking import Query, Retriever
from ratchet.agent.memory.steps import Recalled
from ratchet.agent.record import Json, Record, content_hash
from ratchet.agent.trace import Trace

T = TypeVar("T")
NOBODY: Final = "nobody"
"""Source of an example whose right answer is not known: only a scorer can tell."""


class Example(Record):
    """One view, the action that is right for it, and how far that is to be trusted."""

    view: View
    answer: str
    call: Json = None
    """The whole right answer, `{"tool": …, "arguments": …}`, where it is known."""
    weight: float = Field(default=1.0, ge=0)
    trace_id: str
    seen_at: datetime | None = None
    """When the case came: a budget that cannot hold all examples prefers the newest."""
    source: str = "human"
    """`human`, `own` for what the agent did with success, or `NOBODY`."""
    said_at: datetime | None = None
    """When a person said that this is right; None = nobody did, or it is not known when."""
    supersedes: tuple[str, ...] = ()
    """Traces with another answer to the same request, which this one replaced."""

    expected: Json = None
    """What a scorer is told is right, where that is not the answer itself."""
    said: str = ""
    """What a person or a judge said of the answer that was given, in words; data, never an instruction."""
    session_id: str | None = None
    """Conversation in which the case was first seen."""

    @property
    def case(self) -> Case:
        """The case, to be played again and scored."""
        if self.source == NOBODY:
            return Case(inputs=self.view.inputs or {})
        known = (self.expected, self.call, self.answer)
        return Case(inputs=self.view.inputs, expected=next(one for one in known if one is not None))

    @property
    def is_offered(self) -> bool:
        """Whether the environment offered the right action."""
        return any(option.name == self.answer for option in self.view.observation.options)


class Preference(Record):
    """Two answers to one case, of which people picked one, side by side and not knowing whose they are."""

    case_id: str
    inputs: dict[str, Json]
    better: Json
    worse: Json


class Thumb(Record):
    """An answer that a person approved, or refused."""

    case_id: str
    inputs: dict[str, Json]
    answer: Json
    is_good: bool


Part = Sequence[T] | Callable[[], Sequence[T]]
"""Rows, or what reads them."""


class Evidence:
    """What may be learned from. A part is read when it is first asked for, and what was read counts as seen."""

    def __init__(
        self,
        *,
        examples: Part[Example] = (),
        served: Part[Trace] = (),
        rollouts: Part[Trace] = (),
        preferences: Part[Preference] = (),
        thumbs: Part[Thumb] = (),
        memory: Callable[[], Retriever] = Library,
        versions: frozenset[str] | None = None,
        digests: Mapping[str, str] | None = None,
    ) -> None:
        """Rows, or functions that read them; what opens the memory; the datasets behind `examples` and `rollouts`."""
        self._examples, self._served, self._rollouts, self._memory = examples, served, rollouts, memory
        self._preferences, self._thumbs = preferences, thumbs
        self._versions = versions
        self._digests = digests or {}

    @cached_property
    def examples(self) -> tuple[Example, ...]:
        """Labelled decisions: what worked, and what people said would have."""
        return _rows(self._examples)

    @cached_property
    def served(self) -> tuple[Trace, ...]:
        """What the parent did on the examples' cases, right or wrong; everybody's where it served nothing yet."""
        known = {example.view.case_id for example in self.examples}
        return tuple(trace for trace in _rows(self._served) if trace.case.case_id in known)

    @cached_property
    def rollouts(self) -> tuple[Trace, ...]:
        """Whole runs that may be imitated where they won, in the order of time; none that a person refused."""
        return _rows(self._rollouts)

    @cached_property
    def preferences(self) -> tuple[Preference, ...]:
        """What people picked side by side, oldest first."""
        return _rows(self._preferences)

    @cached_property
    def thumbs(self) -> tuple[Thumb, ...]:
        """What people said of single answers, oldest first."""
        return _rows(self._thumbs)

    @cached_property
    def memory(self) -> "NotedMemory":
        """The library of experience without the gate's side: steps that led to success, whoever took them."""
        return NotedMemory(self._memory())

    @property
    def own_rollouts(self) -> tuple[Trace, ...]:
        """Those of the rollouts whose world is ours to play again: an imported run's is not."""
        return tuple(r for r in self.rollouts if self._versions is None or r.candidate_id in self._versions)

    @property
    def seen(self) -> frozenset[str]:
        """Cases of all that was read so far."""
        read = self.__dict__
        return frozenset(
            (
                *(example.view.case_id for example in read.get("examples", ())),
                *(trace.case.case_id for trace in read.get("rollouts", ())),
                *(one.case_id for part in ("preferences", "thumbs") for one in read.get(part, ())),
                *(self.memory.seen if "memory" in read else ()),
            )
        )

    @property
    def digest(self) -> str | None:
        """Of the datasets that were read so far; None where none was."""
        read = [digest for part, digest in self._digests.items() if part in self.__dict__]
        return read[0] if len(read) == 1 else content_hash(read) if read else None


class NotedMemory:
    """A memory that keeps in mind which cases it told of."""

    def __init__(self, memory: Retriever) -> None:
        self._memory = memory
        self.seen: set[str] = set()

    def recall(self, query: Query, *, k: int) -> list[Recalled]:
        """The `k` steps that help most with what is at hand, best first; their cases are seen from now on."""
        found = self._memory.recall(query, k=k)
        self.seen.update(one.experience.case_id for one in found)
        return found


def _rows(part: Part[T]) -> tuple[T, ...]:
    return tuple(part() if callable(part) else part)
