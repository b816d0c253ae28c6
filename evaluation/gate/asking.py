"""Which of a batch's cases people are asked about, for all open tests at once.

A shared case updates every test that played it at the same moment, and what is asked about it is one question.
Nothing is asked for a test that answers still to come could decide; it leaves the case, and takes it later.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from ratchet.agent.record import content_hash
from ratchet.evaluation.data.cases import LabelledCase
from ratchet.evaluation.gate.plays import Compared, Same, places_in, question_of
from ratchet.evaluation.gate.questions import Question
from ratchet.evaluation.gate.trial import Trial

_DIFFER: Final = "versions of the agent answer this differently, and which is better decides between them"
_AUDIT: Final = "these count as the same answer: a random share of them is checked"

Sides = dict[str, Compared]
"""What both did, by case id."""


class Asking:
    """One batch of cases, as all open tests played it."""

    def __init__(self, same: Same, audit_share: float, salt: str) -> None:
        """`salt`: decides by hash which answers stand left, and which cases that are alike are audited."""
        self._same, self._share, self._salt = same, audit_share, salt
        self._tests: list[tuple[Trial, Sides]] = []

    def lay(self, trial: Trial, sides: Sequence[Compared]) -> None:
        """What a test's two sides did at the cases of the batch that it has still to take."""
        self._tests.append((trial, {one.play.case_id: one for one in sides}))

    def take(self, session: Sequence[LabelledCase]) -> list[Question]:
        """Let every test that may bet on this session, or one case; returns what people are asked."""
        here = {case.case_id for case in session}
        tests = [(trial, sides) for trial, sides in self._tests if trial.is_open and here & sides.keys()]
        questions = {case.case_id: found for case in session if (found := self._question(case, tests))}
        for case_id, question in questions.items():
            for _, sides in tests:
                if case_id in sides:
                    sides[case_id] = self._named(sides[case_id], question)
        held = {id(trial) for trial, sides in tests if self._waits(session, sides)}
        if held and all(trial.in_flight_decides for trial, _ in tests if id(trial) in held):
            tests = [one for one in tests if id(one[0]) not in held]
        asked: dict[str, Question] = {}
        for trial, sides in tests:
            mine = [sides[case.case_id] for case in session if case.case_id in sides]
            about = [questions[one.play.case_id] for one in mine if one.play.question]
            trial.bet(mine, about)
            asked |= {question.question_id: question for question in about}
        return list(asked.values())

    def _waits(self, session: Sequence[LabelledCase], sides: Sides) -> bool:
        return any(sides[case.case_id].play.waits for case in session if case.case_id in sides)

    def _question(self, case: LabelledCase, tests: Sequence[tuple[Trial, Sides]]) -> Question | None:
        here = [sides[case.case_id] for _, sides in tests if case.case_id in sides]
        differing = [one for one in here if one.differs]
        if differing:
            return question_of(case, differing, self._same, salt=self._salt, reason=_DIFFER)
        worded = [one for one in here if one.is_worded_otherwise]
        drawn = int(content_hash(["audit", self._salt, case.case_id], length=8), 16) < self._share * 16**8
        if not worded or not drawn:
            return None
        return question_of(case, worded[:1], self._same, salt=self._salt, reason=_AUDIT, audit=True)

    def _named(self, side: Compared, question: Question) -> Compared:
        """The same with its place in the question, where it is about this one."""
        places = places_in(question, side, self._same)
        if places is None:
            return side
        named = {"question": question.question_id, "places": places, "asked_at": datetime.now(UTC)}
        return side._replace(play=side.play.model_copy(update=named))
