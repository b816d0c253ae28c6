"""The cases that a challenger won and lost against the champion, as a person who approves reads them.

Why the lost ones first: a mean hides what got worse, and that is what a person answers for.
"""

from collections.abc import Sequence
from typing import NamedTuple

from ratchet.agent.record import Record
from ratchet.evaluation.data.cases import case_text
from ratchet.evaluation.gate.plays import Play
from ratchet.evaluation.gate.trial import TrialState
from ratchet.infra.registry.gate_cases import read_open_test
from ratchet.infra.traces.lookup import FoundTrace, look_up_traces


class ComparedCase(Record):
    """One case at which the two versions did not score the same."""

    case_id: str
    request: str
    """Empty where its trace is not in MLflow any more."""
    champion: float
    challenger: float
    shown: tuple[str, str] | None = None
    """The champion's and the challenger's answer; None where an older version did not keep them."""
    expected: str | None = None
    label_by: str
    """Whose word the scores are."""

    @property
    def gain(self) -> float:
        """The challenger's score less the champion's."""
        return self.challenger - self.champion


class ComparedCases(NamedTuple):
    """What the test that decided came to, case by case."""

    lost: tuple[ComparedCase, ...]
    """The worst first; at most as many as were asked for."""
    won: tuple[ComparedCase, ...]
    n_lost: int
    n_won: int
    n_same: int
    """Cases at which both scored the same, or answered the same."""


def compared_cases(project: str, candidate_id: str, champion: str, *, most: int = 10) -> ComparedCases:
    """The cases of the newest stored test of `candidate_id` against `champion`, at most `most` of each kind.

    Raises:
        ServiceUnavailable: MLflow did not answer.
        CorruptRecord: the stored test is not what was stored.
    """
    text = read_open_test(project, candidate_id)
    state = TrialState.from_json(text, where=f"the stored test of {candidate_id}") if text else None
    plays = state.plays if state is not None and state.champion == champion else ()
    known = [play for play in plays if play.champion is not None and play.challenger is not None]
    alike = sum(play.alike for play in plays)
    by_gain = sorted(known, key=_gain)
    lost = [play for play in by_gain if _gain(play) < 0]
    won = [play for play in reversed(by_gain) if _gain(play) > 0]
    told = [*lost[:most], *won[:most]]
    traces = look_up_traces(project, [play.trace_id for play in told if play.trace_id]).traces if told else {}
    return ComparedCases(
        lost=tuple(_compared(play, traces.get(play.trace_id)) for play in lost[:most]),
        won=tuple(_compared(play, traces.get(play.trace_id)) for play in won[:most]),
        n_lost=len(lost),
        n_won=len(won),
        n_same=len(known) - len(lost) - len(won) + alike,
    )


def _gain(play: Play) -> float:
    return (play.challenger or 0.0) - (play.champion or 0.0)


def _compared(play: Play, found: FoundTrace | None) -> ComparedCase:
    return ComparedCase(
        case_id=play.case_id,
        request=case_text(found.trace.case) if found else "",
        champion=play.champion or 0.0,
        challenger=play.challenger or 0.0,
        shown=play.shown,
        expected=play.expected,
        label_by=", ".join(play.raters or _raters(found)) or "the environment",
    )


def _raters(found: FoundTrace | None) -> Sequence[str]:
    """People who said what is right there."""
    return list(dict.fromkeys(one.rater for one in found.labels if one.source == "human")) if found else []
