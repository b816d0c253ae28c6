"""Whose failure it was: what broke is played once more by both sides, and only then does it count.

Why both play again where one broke: the second run of the side that answered shows whether what both run on is
alive. If it answers and the other breaks again, the failure is the other's own, its 0; if it breaks now, too,
the case says nothing about either and is left out. Which cases are left out therefore depends on what both run
on, and hardly on a version (leaving out what the challenger alone broke on promoted 7–28 % of equal ones): of a
version's own failures the share that is left out is the chance that the other side blinks in its second run.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from ratchet.agent.trace import Trace

MOST_UNUSABLE: Final = 0.25
"""Share of a batch without evidence above which the test stops before that batch: it would only burn cases."""

Played = Mapping[str, Trace]
"""Case id to what one version did there."""


def broke(trace: Trace) -> bool:
    """Whether it ended because something failed that it runs on, or that it acted upon."""
    return trace.error is not None and trace.error.kind == "infrastructure"


def to_repeat(ours: Played, theirs: Played) -> list[str]:
    """Ids of the cases at which either side broke, in order."""
    return [case_id for case_id, trace in ours.items() if broke(trace) or broke(theirs[case_id])]


def unbroken_runs(first: tuple[Trace, Trace], second: tuple[Trace, Trace]) -> tuple[Trace, Trace]:
    """What counts of champion's and challenger's two runs: the first that did not break."""
    if all(broke(trace) for trace in second):
        return second
    ours, theirs = (again if broke(once) else once for once, again in zip(first, second, strict=True))
    return ours, theirs


def unusable(ours: Played, theirs: Played) -> str | None:
    """Why a batch is too poor in evidence to bet on; None if it is not.

    Where the champion broke everywhere, too, though a challenger did not: the champion's own endpoint is gone.
    """
    pairs = [(trace, theirs[case_id]) for case_id, trace in ours.items()]
    if all(broke(champion) for champion, _ in pairs):
        return f"the champion could not be run at any of {len(pairs)} cases ({_error(pairs[0][0])})"
    both = [champion for champion, challenger in pairs if broke(champion) and broke(challenger)]
    if len(both) <= MOST_UNUSABLE * len(pairs):
        return None
    return f"at {len(both)} of {len(pairs)} cases what both versions run on failed ({_error(both[0])})"


def not_run(traces: Sequence[Trace]) -> str | None:
    """Why no test of this champion can give evidence; None if one can."""
    if all(broke(trace) for trace in traces):
        return f"the champion could not be run at any of {len(traces)} cases ({_error(traces[0])})"
    return None


def _error(trace: Trace) -> str:
    return trace.error.message[:160] if trace.error else ""
