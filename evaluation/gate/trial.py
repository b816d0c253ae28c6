"""One challenger's test as it stands, whole in one text: its order, its bets, and what each side scored.

Why in one text: a test that was killed goes on exactly where it was. Bets that were made are not made again
(an agent that answers otherwise the second time would get a second chance), and the order stays its own.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from pydantic import Field

from ratchet.agent.candidate import Kind
from ratchet.agent.kinds.chat_request import screens
from ratchet.agent.record import Record, as_text
from ratchet.agent.trace import Trace
from ratchet.evaluation.data.cases import LabelledCase, answer_name
from ratchet.evaluation.data.intervals import Interval
from ratchet.evaluation.gate.anytime import anytime_interval
from ratchet.evaluation.gate.failures import Played
from ratchet.evaluation.gate.gate import Gate, GatePolicy
from ratchet.evaluation.gate.order import Place, batches, go_on, in_order
from ratchet.evaluation.gate.pairs import Pair, SideResult, pair_up
from ratchet.evaluation.gate.provenance import Registration
from ratchet.evaluation.gate.verdict import Verdict, WealthPoint, screened

_LONGEST_ANSWER: Final = 2000
_TOLD: Final = 2
"""Kinds of cases that were no full test which a verdict names."""


class Play(Record):
    """One case of the test, as both sides played it."""

    case_id: str
    session_id: str | None = None
    champion: float | None = None
    """A side that failed scored 0; None = the case is no evidence, and stays free for other tests."""
    challenger: float | None = None
    expected: str | None = None
    """The right answer's name, where one is known; None of free answers, which have no names to be confused."""
    chosen: str | None = None
    """What the challenger did first."""
    screens: str = Field(default="", exclude_if=lambda why: not why)
    """Why this case is no full test, in words; not written where it is one."""
    trace_id: str = Field(default="", exclude_if=lambda trace_id: not trace_id)
    """Production trace in which the case came up."""
    shown: tuple[str, str] | None = Field(default=None, exclude_if=lambda shown: shown is None)
    """The champion's and the challenger's answer as a person reads them, cut where long; empty = none came."""

    @property
    def is_evidence(self) -> bool:
        """Whether a bet was made on it."""
        return self.challenger is not None


class TrialState(Record):
    """What is stored of a test."""

    champion: str
    challenger: str
    opened_at: datetime
    """As in its entry of the ledger: another test of the same challenger is another entry."""
    plays: tuple[Play, ...] = ()
    rest: tuple[Place, ...]
    """What it will play, in order."""
    gate: str
    path: tuple[WealthPoint, ...] = ()


@dataclass
class Trial:
    """A test under way."""

    champion: str
    challenger: str
    opened_at: datetime
    gate: Gate
    rest: list[LabelledCase]
    plays: list[Play] = field(default_factory=list)
    path: list[WealthPoint] = field(default_factory=list)
    kind: Kind = "built-in"
    """Of the agent: of a chat endpoint a case may be one call out of a conversation."""

    @staticmethod
    def begin(
        champion: str,
        challenger: str,
        opened_at: datetime,
        policy: GatePolicy,
        cases: Sequence[LabelledCase],
        most: int,
        kind: Kind = "built-in",
    ) -> "Trial":
        """A test of at most `most` cases that has not played any."""
        gate = Gate(policy, Registration(champion=champion, challenger=challenger))
        return Trial(champion, challenger, opened_at, gate, in_order(cases)[:most], kind=kind)

    @staticmethod
    def resume(
        state: TrialState,
        known: Sequence[LabelledCase],
        fresh: Sequence[LabelledCase],
        most: int,
        kind: Kind = "built-in",
    ) -> "Trial":
        """Go on with a stored test; `fresh` cases that it does not know come last.

        Raises:
            BadInput: the gate's state is of another version of Ratchet, or corrupt.
        """
        played: list[Place] = [(play.case_id, play.session_id) for play in state.plays]
        ids = {case_id for case_id, _ in played}
        rest = [c for c in go_on([*played, *state.rest], known, fresh) if c.case_id not in ids]
        return Trial(
            state.champion,
            state.challenger,
            state.opened_at,
            Gate.from_json(state.gate),
            rest[: max(most - len(played), 0)],
            list(state.plays),
            list(state.path),
            kind,
        )

    def state(self) -> TrialState:
        """What to store."""
        return TrialState(
            champion=self.champion,
            challenger=self.challenger,
            opened_at=self.opened_at,
            plays=tuple(self.plays),
            rest=tuple((case.case_id, case.session_id) for case in self.rest),
            gate=self.gate.to_json(),
            path=tuple(self.path),
        )

    @property
    def is_open(self) -> bool:
        """Whether more cases can change the verdict."""
        return self.verdict.decision == "continue"

    @property
    def verdict(self) -> Verdict:
        """As the evidence stands, and whether it is that of full runs."""
        verdict, why = self.gate.verdict(), Counter[str]()
        for play in self.plays:
            if play.is_evidence and play.screens:
                why[play.screens] += 1
        if not why:
            return verdict
        told = "; ".join(f"{n} of {len(self.used)} cases with {words}" for words, n in why.most_common(_TOLD))
        return screened(verdict, told)

    @property
    def used(self) -> list[str]:
        """Cases that a bet was made on: they can never judge again."""
        return [play.case_id for play in self.plays if play.is_evidence]

    @property
    def accuracy(self) -> Interval | None:
        """The challenger's mean score, with an interval that holds wherever the test stops."""
        if not self.used:
            return None
        sessions = [play.session_id for play in self.plays]
        return anytime_interval([play.challenger for play in self.plays], sessions)

    def next_batch(self, size: int) -> list[LabelledCase]:
        """The next cases to play, whole sessions; empty when none are left."""
        return next(batches(self.rest, size), [])

    def bet(self, batch: Sequence[LabelledCase], ours: Played, theirs: Played) -> None:
        """Look after every case of the next batch."""
        sides = ({case.case_id: side_result(side[case.case_id]) for case in batch} for side in (ours, theirs))
        for case, pair in zip(batch, pair_up(*sides), strict=True):
            self.gate.update(self._placed(pair, case))
            self._note_point()
            play = _play(pair, case, (ours[case.case_id], theirs[case.case_id]))
            why = screens(case.case.inputs) if self.kind == "chat" else ""
            self.plays.append(play.model_copy(update={"screens": why}))
        self.gate.finish()  # no batch cuts a session
        self._note_point()
        self.rest = self.rest[len(batch) :]

    def _placed(self, pair: Pair, case: LabelledCase) -> Pair:
        placed = {
            "slice": case.case.slice,
            "cluster": case.session_id,
            "champion_id": self.champion,
            "challenger_id": self.challenger,
        }
        return pair.model_copy(update=placed)

    def _note_point(self) -> None:
        point = self.gate.snapshot()
        if point is not None and (not self.path or point.n_bets > self.path[-1].n_bets):
            self.path.append(point)


def _play(pair: Pair, case: LabelledCase, runs: tuple[Trace, Trace]) -> Play:
    champion, challenger = pair.labels
    free, did = any(run.is_free for run in runs), runs[1].first_action
    known = champion is not None and challenger is not None
    return Play(
        case_id=case.case_id,
        session_id=case.session_id,
        champion=champion if known else None,
        challenger=challenger if known else None,
        expected=None if free or case.answer is None else answer_name(case.answer),
        chosen=None if free or did is None else did.name,
        trace_id=case.trace_id,
        shown=(_readable(runs[0]), _readable(runs[1])),
    )


def _readable(run: Trace) -> str:
    if run.error is not None:
        return f"failed: {run.error.message}"[:_LONGEST_ANSWER]
    return "" if run.answer is None else as_text(run.answer)[:_LONGEST_ANSWER]


def side_result(trace: Trace) -> SideResult:
    """What the gate needs of a run; a run that broke says on which side."""
    return SideResult(
        score=None if trace.error else trace.score,
        failed=trace.error.kind if trace.error else None,
        cost=float(trace.usage.input_tokens + trace.usage.output_tokens),
        latency=trace.latency_s,
    )
