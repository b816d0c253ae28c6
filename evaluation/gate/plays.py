"""What both sides did at one case of a test, and what it is worth: scored, answered alike, or for people to say.

Where a scorer knows, its two scores are the bet. Where nobody does, the same answer is a difference of 0, whatever it
is worth; only where the answers differ is a person asked, and until somebody said which is right the case counts as a
loss (for harm: as a win), which no delay and no silence can turn to the challenger's good.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final, Literal, NamedTuple

from pydantic import Field

from ratchet.agent.record import Json, Record, as_text
from ratchet.agent.trace import Trace
from ratchet.evaluation.data.cases import LabelledCase, answer_name
from ratchet.evaluation.gate.pairs import Pair, SideResult, pair_up
from ratchet.evaluation.gate.questions import Question, Settled

Same = Callable[[Json, Json], bool]
"""Whether two answers say the same, so that people need not compare them."""
Unanswered = Literal["loss", "win"]
_LONGEST_ANSWER: Final = 2000
_KNOWN_ALIKE: Final = 0.5
"""Any score will do: of two equal ones only the difference, 0, is used."""


class Play(Record):
    """One case of the test, as both sides played it."""

    case_id: str
    session_id: str | None = None
    champion: float | None = None
    """Score; a side that failed scored 0. None = not known, or the case is no evidence and stays free."""
    challenger: float | None = None
    alike: bool = Field(default=False, exclude_if=lambda alike: not alike)
    """Both answered the same and nobody scored it: a difference of 0."""
    undrawn: bool = Field(default=False, exclude_if=lambda undrawn: not undrawn)
    """In a test with a judge: people are not asked here, and only the judge's scores count."""
    question: str = Field(default="", exclude_if=lambda one: not one)
    """Id of what people are asked about it; empty = nothing, or only whether `alike` is true."""
    places: tuple[int, int] | None = Field(default=None, exclude_if=lambda one: one is None)
    """Where champion's and challenger's answers stand among those of the question."""
    asked_at: datetime | None = Field(default=None, exclude_if=lambda one: one is None)
    raters: tuple[str, ...] = Field(default=(), exclude_if=lambda who: not who)
    """Who said what is right."""
    right: Json | None = Field(default=None, exclude_if=lambda one: one is None)
    """The one right answer, where people named one."""
    wrong: Json | None = Field(default=None, exclude_if=lambda one: one is None)
    """The other side's answer, where people picked one of the two."""
    audited: float | None = Field(default=None, exclude_if=lambda one: one is None)
    """The difference that people saw where both sides are said to be `alike`."""
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
        """Whether a bet is made on it."""
        return self.challenger is not None or self.alike or self.waits or self.undrawn

    @property
    def waits(self) -> bool:
        """Whether a person was asked and has not said."""
        return bool(self.question) and not self.alike and self.challenger is None

    @property
    def gain(self) -> float | None:
        """Challenger − champion; None where it is not known."""
        if self.champion is None or self.challenger is None:
            return 0.0 if self.alike else None
        return self.challenger - self.champion

    def heard(self, settled: Settled, question: Question, same: Same) -> "Play":
        """The same with what people said; a side that failed gave no answer, and is not right whatever they said."""
        assert self.places is not None
        right = []
        for place in self.places:
            answer = question.answers[place]
            said_so = place in settled.good if settled.better is None else same(settled.better, answer)
            right.append(float(answer is not None and said_so))
        champion, challenger = right
        only = question.answers[settled.good[0]] if len(settled.good) == 1 else None
        other = self.places[right.index(0.0)] if sorted(right) == [0.0, 1.0] else None
        said: dict[str, object] = {
            "raters": settled.raters,
            "right": only if settled.better is None else settled.better,
            "wrong": None if other is None else question.answers[other],
        }
        if self.alike:
            return self.model_copy(update=said | {"audited": challenger - champion})
        return self.model_copy(update=said | {"champion": champion, "challenger": challenger})


class Compared(NamedTuple):
    """One case right after both sides played it."""

    pair: Pair
    play: Play
    answers: tuple[Json, Json]
    """The champion's and the challenger's; None of a side that failed."""

    @property
    def differs(self) -> bool:
        """Whether only a person can say which is better."""
        play = self.play
        return play.challenger is None and not (play.alike or play.undrawn or self.pair.is_broken)

    @property
    def is_worded_otherwise(self) -> bool:
        """Whether the two answers count as the same, though they are not equal."""
        return self.play.alike and self.answers[0] != self.answers[1]


def as_bet(pair: Pair, play: Play, unanswered: Unanswered) -> Pair:
    """The pair with what is known of it by now; an unanswered one is a loss or a win."""
    if play.challenger is not None:
        scores = {"champion": play.champion, "challenger": play.challenger}
    elif play.alike:
        scores = {"champion": _KNOWN_ALIKE, "challenger": _KNOWN_ALIKE}
    elif play.waits:
        won = float(unanswered == "win")
        scores = {"champion": 1 - won, "challenger": won}
    else:
        return pair
    return pair.model_copy(update=scores)


def compared(pair: Pair, case: LabelledCase, runs: tuple[Trace, Trace], same: Same) -> Compared:
    """A case right after both played it: scored, alike, or for people to say."""
    champion, challenger = pair.labels
    free, did = any(run.is_free for run in runs), runs[1].first_action
    known = champion is not None and challenger is not None
    ours, theirs = (None if run.error else answer_of_run(run) for run in runs)
    alike = (
        not known and not pair.is_broken and ours is not None and theirs is not None and same(ours, theirs)
    )
    play = Play(
        case_id=case.case_id,
        session_id=case.session_id,
        champion=champion if known else None,
        challenger=challenger if known else None,
        alike=alike,
        expected=None if free or case.answer is None else answer_name(case.answer),
        chosen=None if free or did is None else did.name,
        trace_id=case.trace_id,
        shown=(_readable(runs[0]), _readable(runs[1])),
    )
    return Compared(pair, play, (ours, theirs))


def question_of(
    case: LabelledCase,
    sides: Sequence[Compared],
    same: Same,
    *,
    salt: str,
    reason: str,
    audit: bool = False,
) -> Question:
    """What people are asked about one case, for all tests that played it.

    Args:
        case: all played it.
        sides: of each test.
        same: answers that say the same are shown once.
        salt: decides the order in which the answers are shown.
        reason: why this case, for the person who is asked.
        audit: the answers are said to be alike, and each wording is shown.
    """
    distinct: list[Json] = []
    for one in sides:
        for answer in one.answers:
            if place_of(answer, distinct, same, exactly=audit) is None:
                distinct.append(answer)
    return Question.shuffled(case.case, case.trace_id, distinct, salt=salt, reason=reason, audit=audit)


def places_in(question: Question, side: Compared, same: Same) -> tuple[int, int] | None:
    """Where champion's and challenger's answers stand in the question; None where it is not about both."""
    if not (side.is_worded_otherwise if question.audit else side.differs):
        return None
    ours, theirs = (place_of(one, question.answers, same, exactly=question.audit) for one in side.answers)
    return None if ours is None or theirs is None else (ours, theirs)


def place_of(said: Json, answers: Sequence[Json], same: Same, *, exactly: bool = False) -> int | None:
    """Where an answer stands among others; a side that gave none is only like another that gave none."""

    def is_it(one: Json) -> bool:
        if exactly or one is None or said is None:
            return bool(one == said)
        return same(one, said)

    return next((place for place, one in enumerate(answers) if is_it(one)), None)


def gains_at(
    cases: Sequence[LabelledCase], ours: Mapping[str, Trace], theirs: Mapping[str, Trace], same: Same
) -> dict[str, float | None]:
    """Challenger − champion at cases that no test bets on; None where it is not known, or something broke."""
    gains: dict[str, float | None] = {}
    for case in cases:
        runs = ours[case.case_id], theirs[case.case_id]
        sides = ({case.case_id: side_result(run)} for run in runs)
        (pair,) = pair_up(*sides)
        gains[case.case_id] = compared(pair, case, runs, same).play.gain
    return gains


def side_result(trace: Trace) -> SideResult:
    """What the gate needs of a run; a run that broke says on which side."""
    return SideResult(
        score=None if trace.error else trace.score,
        failed=trace.error.kind if trace.error else None,
        cost=float(trace.usage.input_tokens + trace.usage.output_tokens),
        latency=trace.latency_s,
    )


def answer_of_run(run: Trace) -> Json:
    """What people compare: the answer; of several steps what was done at each, of an action with arguments both."""
    if not run.attempts or not run.attempts[-1].steps:
        return None
    steps = run.attempts[-1].steps
    done: list[Json] = [
        step.action.said
        if step.action.is_free or not step.action.arguments
        else {"tool": step.action.name, "arguments": step.action.arguments}
        for step in steps
    ]
    return done[0] if len(done) == 1 else done


def _readable(run: Trace) -> str:
    if run.error is not None:
        return f"failed: {run.error.message}"[:_LONGEST_ANSWER]
    answer = answer_of_run(run)
    return "" if answer is None else as_text(answer)[:_LONGEST_ANSWER]
