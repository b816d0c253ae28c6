"""The golden set: cases with known right answers that people froze, played by both versions at every promotion.

Why beside the gate: its cases are drawn anew for each test, so that what it proves holds for the traffic, and a case
that must never break need not be among them. These are always the same, so they prove nothing (a version that is
chosen by them fits them); they can only stop what no person looks at. One case lost is enough for that.
"""

from collections.abc import Mapping, Sequence

from pydantic import AwareDatetime, Field

from ratchet.agent.case import Case
from ratchet.agent.record import Record
from ratchet.agent.trace import Trace
from ratchet.evaluation.data.scorers import exact
from ratchet.evaluation.gate.failures import broke


class GoldenCase(Record):
    """One frozen case."""

    case: Case
    """With the right answer."""
    trace_id: str
    """Where it came up."""
    at: AwareDatetime
    by: str
    reason: str

    @property
    def case_id(self) -> str:
        """Hash of the inputs."""
        return self.case.case_id


class GoldenResult(Record):
    """A challenger beside the champion on the golden set."""

    champion: str
    """Candidate id."""
    set_version: int = Field(ge=1)
    """How many cases had been frozen when it was played."""
    n_right: int = Field(ge=0)
    """Cases that the challenger gets right."""
    n_champion_right: int = Field(ge=0)
    won: tuple[str, ...] = ()
    """Cases (ids) at which it scores more than the champion."""
    lost: tuple[str, ...] = ()
    unplayed: tuple[str, ...] = ()
    """Cases that say nothing: one side broke on what it runs on, or nobody could score it."""

    @property
    def regressed(self) -> bool:
        """Whether no policy may let it serve: it lost a case, or some could not be played."""
        return bool(self.lost or self.unplayed)

    @property
    def words(self) -> str:
        """One sentence for a person."""
        told = (
            f"golden set of {self.set_version}: right on {self.n_right}, the champion on {self.n_champion_right}; "
            f"{len(self.won)} won, {len(self.lost)} lost"
        )
        return told + (f", {len(self.unplayed)} could not be played" if self.unplayed else "")


def golden_result(
    cases: Sequence[GoldenCase], champion: str, ours: Mapping[str, Trace], theirs: Mapping[str, Trace]
) -> GoldenResult:
    """What the two came to.

    Args:
        cases: the whole set.
        champion: candidate id of the one that serves.
        ours: its plays by case id.
        theirs: the challenger's.
    """
    scores = {one.case_id: (_score(ours, one), _score(theirs, one)) for one in cases}
    known = {i: (a, b) for i, (a, b) in scores.items() if a is not None and b is not None}
    return GoldenResult(
        champion=champion,
        set_version=len(cases),
        n_right=sum(b >= 1 for _, b in known.values()),
        n_champion_right=sum(a >= 1 for a, _ in known.values()),
        won=tuple(i for i, (a, b) in known.items() if b > a),
        lost=tuple(i for i, (a, b) in known.items() if b < a),
        unplayed=tuple(i for i in scores if i not in known),
    )


def _score(plays: Mapping[str, Trace], golden: GoldenCase) -> float | None:
    """By the environment where it tells, else by the frozen answer; an agent's own failure is its 0."""
    trace = plays.get(golden.case_id)
    if trace is None or broke(trace):
        return None
    if trace.error is not None or trace.action is None:
        return 0.0
    return trace.score if trace.score is not None else exact(golden.case, trace.answer)
