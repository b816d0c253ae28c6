"""One test from its registration to its verdict, over as many rounds as it takes, and what people have yet to say.

Why a record of its own: a test that was killed goes on after the last case that was stored. Bets that were made are
not made again (an agent that answers otherwise the second time would get a second chance), and the order is kept.

Why the evidence is computed twice where questions wait: an unanswered one is a loss where promotion is asked, and a
win where harm is. The bets stand in the order in which people were asked and not in that of their answers, so neither
who answers first nor who never answers can lead to a promotion (dropping them: 7–29 % false ones at a nominal 5 %).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from pydantic import Field
from scipy.stats import binomtest

from ratchet.agent.candidate import Kind
from ratchet.agent.kinds.chat_request import screens
from ratchet.agent.record import Record
from ratchet.evaluation.data.cases import LabelledCase
from ratchet.evaluation.data.intervals import Interval
from ratchet.evaluation.data.labels import Label
from ratchet.evaluation.gate.anytime import anytime_interval
from ratchet.evaluation.gate.betting import NO_PRIOR, TrustPrior
from ratchet.evaluation.gate.failures import Played
from ratchet.evaluation.gate.gate import Gate, GatePolicy
from ratchet.evaluation.gate.judged import JudgePlan
from ratchet.evaluation.gate.order import Place, go_on, newest
from ratchet.evaluation.gate.pairs import Pair, pair_up
from ratchet.evaluation.gate.plays import Compared, Play, Same, Unanswered, as_bet, compared, side_result
from ratchet.evaluation.gate.provenance import Registration
from ratchet.evaluation.gate.questions import Question, Settled
from ratchet.evaluation.gate.verdict import Verdict, WealthPoint, screened, with_unanswered

_TOLD: Final = 2
"""Kinds of cases that were no full test which a verdict names."""
MOST_UNLIKE: Final = 0.1
"""Share of the answers that count as the same in which people may see a difference; shown to be above it (95 %), the
test promotes nothing."""
_NEVER: Final = 1e-300
"""Error rate of a decision that is not asked for."""


class TrialState(Record):
    """What is stored of a test."""

    champion: str
    challenger: str
    opened_at: datetime
    """As in its entry of the ledger: another test of the same challenger is another entry."""
    same: str = ""
    """Hash of what says whether two answers are the same: another one in the middle would choose what people see."""
    answer_days: float = 14.0
    """Days after which an answer comes too late for this test."""
    judge: JudgePlan | None = Field(default=None, exclude_if=lambda plan: plan is None)
    plays: tuple[Play, ...] = ()
    open_pairs: tuple[Pair, ...] = ()
    """Those of the last plays, from the first on that waits for a person."""
    questions: tuple[Question, ...] = ()
    """What people were asked and have not said."""
    rest: tuple[Place, ...]
    """What it will play, in order."""
    gate: str
    """Up to the first case that waits for a person."""
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
    open_pairs: list[Pair] = field(default_factory=list)
    questions: dict[str, Question] = field(default_factory=dict)
    path: list[WealthPoint] = field(default_factory=list)
    kind: Kind = "built-in"
    """Of the agent: of a chat endpoint a case may be one call out of a conversation."""
    same: str = ""
    answer_days: float = 14.0
    judge: JudgePlan | None = None
    _verdict: Verdict | None = None
    """Until something comes that may change it: it costs milliseconds, and every case asks for it."""

    @staticmethod
    def begin(
        champion: str,
        challenger: str,
        opened_at: datetime,
        policy: GatePolicy,
        cases: Sequence[LabelledCase],
        most: int,
        kind: Kind = "built-in",
        same: str = "",
        answer_days: float = 14.0,
        judge: JudgePlan | None = None,
        trust: TrustPrior = NO_PRIOR,
    ) -> "Trial":
        """A test of the newest `most` cases that has not played any; `cases` in the order in which it will."""
        by = judge.judge_id if judge else None
        gate = Gate(policy, Registration(champion=champion, challenger=challenger, judge=by, trust=trust))
        rest = newest(cases, most)
        return Trial(
            champion,
            challenger,
            opened_at,
            gate,
            rest,
            kind=kind,
            same=same,
            answer_days=answer_days,
            judge=judge,
        )

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
        room, mine = max(most - len(played), 0), {case_id for case_id, _ in state.rest}
        own, new = [c for c in rest if c.case_id in mine][:room], [c for c in rest if c.case_id not in mine]
        return Trial(
            state.champion,
            state.challenger,
            state.opened_at,
            Gate.from_json(state.gate),
            own + newest(new, room - len(own)),
            list(state.plays),
            list(state.open_pairs),
            {question.question_id: question for question in state.questions},
            list(state.path),
            kind,
            state.same,
            state.answer_days,
            state.judge,
        )

    def state(self) -> TrialState:
        """What to store."""
        return TrialState(
            champion=self.champion,
            challenger=self.challenger,
            opened_at=self.opened_at,
            same=self.same,
            answer_days=self.answer_days,
            judge=self.judge,
            plays=tuple(self.plays),
            open_pairs=tuple(self.open_pairs),
            questions=tuple(self.questions.values()),
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
        """As the evidence stands, unanswered questions counted, and whether it is that of full runs."""
        if self._verdict is None:
            self._verdict = self._full_or_screened(self._standing())
        return self._verdict

    def _full_or_screened(self, verdict: Verdict) -> Verdict:
        why = Counter(play.screens for play in self.plays if play.is_evidence and play.screens)
        if not why:
            return verdict
        told = "; ".join(f"{n} of {len(self.used)} cases with {words}" for words, n in why.most_common(_TOLD))
        return screened(verdict, told)

    def _standing(self) -> Verdict:
        counts = {
            "labelled": sum(play.challenger is not None for play in self.plays),
            "alike": sum(play.alike for play in self.plays),
            "waiting": sum(play.waits for play in self.plays),
        }
        blocked = self._audit()
        if not self.open_pairs:
            return with_unanswered(self.gate.verdict(), None, **counts, blocked=blocked)
        low = self._with_open("loss", reject_alpha=_NEVER, slice_alpha=_NEVER).verdict()
        high = self._with_open("win").verdict()
        return with_unanswered(low, high, **counts, blocked=blocked, gain=self._known_gain())

    def _audit(self) -> tuple[str, ...]:
        """Why answers that count as the same are none, where people saw a difference too often."""
        seen = [play.audited for play in self.plays if play.audited is not None]
        differ = sum(gain != 0 for gain in seen)
        if not differ or binomtest(differ, len(seen)).proportion_ci(0.9).low <= MOST_UNLIKE:
            return ()
        return (
            f"of {len(seen)} answers that count as the same people saw a difference in {differ}: let the project's "
            "`same` tell them apart",
        )

    def _known_gain(self) -> float | None:
        """Mean over the sessions of which all is known; what is not answered says nothing here."""
        sessions: dict[str, list[float | None]] = {}
        for play in self.plays:
            if play.is_evidence:
                sessions.setdefault(play.session_id or f"case {play.case_id}", []).append(play.gain)
        known = [[g for g in gains if g is not None] for gains in sessions.values() if None not in gains]
        return sum(sum(gains) / len(gains) for gains in known) / len(known) if known else None

    def _with_open(
        self, unanswered: Unanswered, in_flight: Unanswered | None = None, **policy: float
    ) -> Gate:
        """The gate after the open plays too, the unanswered ones taken as losses or as wins.

        `in_flight`: what those count as that may still be answered, where that differs. With a judge, and without
        that, the first question that may still be answered ends it.
        """
        gate = self.gate.copy(**policy)
        n = len(self.open_pairs) if in_flight else self._n_final()
        plays = self.plays[len(self.plays) - len(self.open_pairs) :]
        gate.extend(
            as_bet(pair, play, in_flight if in_flight and play.question in self.questions else unanswered)
            for pair, play in zip(self.open_pairs[:n], plays[:n], strict=True)
        )
        gate.finish()
        return gate

    def _n_final(self) -> int:
        """Open pairs that may be bet on. A judge's ρ follows from past labels, and a later answer to an earlier
        question would change it: so with a judge none after the first question that may still be answered.
        """
        n, first = 0, len(self.plays) - len(self.open_pairs)
        while n < len(self.open_pairs):
            session = self._session_at(first + n)
            if self.judge and any(play.waits and play.question in self.questions for play in session):
                break
            n += len(session)
        return n

    @property
    def e_at_closing(self) -> float:
        """What the evidence is worth where the test ends without a verdict; with a judge nothing while questions are
        open, for who closes has seen answers that the bets do not count yet.
        """
        return 0.0 if self.judge and self._n_final() < len(self.open_pairs) else self.verdict.e_value

    @property
    def in_flight_decides(self) -> bool:
        """Whether answers that may still come could decide: then nothing more is asked."""
        if not self.questions or not self.open_pairs:
            return False
        won = self._with_open("loss", "win", reject_alpha=_NEVER, slice_alpha=_NEVER).verdict()
        return won.decision == "promote" or self._with_open("win", "loss").verdict().decision == "reject"

    @property
    def used(self) -> list[str]:
        """Cases that a bet was made on: they can never judge again."""
        return [play.case_id for play in self.plays if play.is_evidence]

    @property
    def accuracy(self) -> Interval | None:
        """The challenger's mean score, in an interval that holds at any stop; None where a score is unknown."""
        evidence = [play for play in self.plays if play.is_evidence]
        if not evidence or any(play.challenger is None for play in evidence):
            return None
        sessions = [play.session_id for play in self.plays]
        return anytime_interval([play.challenger for play in self.plays], sessions)

    def compare(
        self, batch: Sequence[LabelledCase], ours: Played, theirs: Played, same: Same
    ) -> list[Compared]:
        """What both sides did at these cases; no bet is made."""
        sides = ({case.case_id: side_result(side[case.case_id]) for case in batch} for side in (ours, theirs))
        found = []
        for case, pair in zip(batch, pair_up(*sides), strict=True):
            one = compared(self._placed(pair, case), case, (ours[case.case_id], theirs[case.case_id]), same)
            why = screens(case.case.inputs) if self.kind == "chat" else ""
            found.append(one._replace(play=one.play.model_copy(update={"screens": why})))
        return found

    def bet(self, sides: Sequence[Compared], questions: Sequence[Question] = ()) -> None:
        """Take these, whole sessions, with what people were asked about them."""
        for one in sides:
            self.open_pairs.append(one.pair)
            self.plays.append(one.play)
        self.questions |= {question.question_id: question for question in questions}
        ids = {one.play.case_id for one in sides}
        self.rest = [case for case in self.rest if case.case_id not in ids]
        self._settle()

    def hear(self, settled: Mapping[str, Settled], same: Same, now: datetime) -> None:
        """Take what people said; what they say after the deadline comes too late for this test."""
        for n, play in enumerate(self.plays):
            said = settled.get(play.question)
            if (
                play.question in self.questions
                and said is not None
                and said.settled_at <= self._deadline(play)
            ):
                self.plays[n] = play.heard(said, self.questions[play.question], same)
        over = {
            play.question
            for play in self.plays
            if play.question and (play.raters or now > self._deadline(play))
        }
        self.questions = {one: question for one, question in self.questions.items() if one not in over}
        self._settle()

    def labels(self, now: datetime) -> list[Label]:
        """What people named as right, as labels of the traces in which the cases came up: what they may teach."""
        return [
            Label(
                trace_id=play.trace_id,
                expected=play.right,
                over=play.wrong,
                source="human",
                rater=play.raters[0],
                comment="said where two versions answered differently",
                created_at=now,
            )
            for play in self.plays
            if play.right is not None and play.trace_id
        ]

    def _deadline(self, play: Play) -> datetime:
        assert play.asked_at is not None
        return play.asked_at + timedelta(days=self.answer_days)

    def _settle(self) -> None:
        """Bet for good on the open plays before the first session that waits for a person."""
        self._verdict = None
        while self.open_pairs:
            first = len(self.plays) - len(self.open_pairs)
            session = self._session_at(first)
            if any(play.waits for play in session):
                return
            for pair, play in zip(self.open_pairs, session, strict=False):
                self.gate.update(as_bet(pair, play, "loss"))
                self._note_point()
            self.gate.finish()
            self._note_point()
            del self.open_pairs[: len(session)]

    def _session_at(self, first: int) -> list[Play]:
        """The plays from `first` on that are one bet."""
        session = self.plays[first].session_id
        if session is None:
            return [self.plays[first]]
        together = []
        for play in self.plays[first:]:
            if play.session_id != session:
                break
            together.append(play)
        return together

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
