"""People, as the gate needs them: what they are asked where versions differ, and what their answers come to."""

import inspect
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property

from ratchet.agent.errors import BadInput
from ratchet.agent.project import Project
from ratchet.agent.record import content_hash
from ratchet.evaluation.data.raters import RaterSettings
from ratchet.evaluation.data.scorers import same as same_text
from ratchet.evaluation.gate.plays import Same
from ratchet.evaluation.gate.questions import Question, Reply, Settled
from ratchet.evaluation.gate.replies import people_wanted, settle_replies
from ratchet.evaluation.gate.standing import Standing, standing
from ratchet.evaluation.gate.trial import TrialState
from ratchet.infra.registry.gate_cases import read_open_test
from ratchet.infra.registry.ledger import read_ledger
from ratchet.infra.review.back_end import back_end


class People:
    """Who answers for one project; what they said is read once, at the first question."""

    def __init__(
        self,
        name: str,
        rules: RaterSettings,
        same: Same = same_text,
        same_id: str = "",
        *,
        alone: bool = True,
    ) -> None:
        self.name, self.rules, self.same, self.same_id, self.alone = name, rules, same, same_id, alone
        """`same_id`: hash of a project's own `same`; a test keeps the one that it began with. `alone`: nothing else
        scores an answer."""
        self._worth = ""
        self._back_end = back_end(rules)
        self._looked_at: set[str] = set()

    @staticmethod
    def of(project: Project, rules: RaterSettings) -> "People":
        """Those of a project, with its own word on which answers are the same."""
        scorers = project.score, project.labelled_environment
        alone = not project.scores_itself and all(one is None for one in scorers)
        if project.same is None:
            return People(project.name, rules, alone=alone)
        return People(project.name, rules, project.same, _hash(project.same), alone=alone)

    @property
    def answer_days(self) -> float:
        """Days after which an answer comes too late for the test that asked."""
        return self.rules.answer_days

    def standings(self, gain: float) -> list[Standing]:
        """How far each open test is, as it was stored and with what people said since."""
        found = []
        for entry in read_ledger(self.name).entries:
            if entry.decision is None:
                with suppress(BadInput):  # one that cannot be read: the gate gives it up and says so
                    found += self._standing(entry.candidate, gain)
        return found

    def _standing(self, challenger: str, gain: float) -> list[Standing]:
        text = read_open_test(self.name, challenger)
        if not text:
            return []
        state = TrialState.from_json(text, where=f"the stored test of {challenger}")
        settled = self.settled({one.question_id: one for one in state.questions})
        return [standing(state, settled, self.same, datetime.now(UTC), gain=gain)]

    def look_back(self, gain: float) -> None:
        """Let what is asked from now on say what the last answers were worth."""
        self._worth = "; ".join(told for one in self.standings(gain) if (told := one.worth))

    def ask(self, questions: Sequence[Question]) -> None:
        """Put these before people; one that was asked keeps its place."""
        if self._worth:
            questions = [
                one.model_copy(update={"reason": f"{one.reason}. {self._worth}"}) for one in questions
            ]
        if questions:
            self._back_end.ask_comparisons(self.name, questions, self.rules)

    def withdraw_idle(self) -> None:
        """Take back what no open test asks: it was decided, or given up, before anybody answered."""
        waiting = {one.question_id for one in self._back_end.pending_comparisons(self.name)}
        if not waiting:  # read first: what is asked from now on, by whomever, is none of it
            return
        for entry in read_ledger(self.name).entries:
            text = read_open_test(self.name, entry.candidate) if entry.decision is None else None
            if text:
                state = TrialState.from_json(text, where=f"the stored test of {entry.candidate}")
                waiting -= {question.question_id for question in state.questions}
        if waiting:
            self._back_end.withdraw(self.name, waiting)

    def settled(self, questions: Mapping[str, Question]) -> dict[str, Settled]:
        """What people's replies to these come to, of those that are answered; what was skipped or is disputed goes
        to the next person.
        """
        if not questions:
            return {}
        now = datetime.now(UTC)
        self._pass_on(questions, now)
        return settle_replies(questions, self._replies, self.rules, now)

    def _pass_on(self, questions: Mapping[str, Question], now: datetime) -> None:
        replied = {one.question_id for one in self._replies} - self._looked_at
        open_ones = {name: one for name, one in questions.items() if name in replied}
        self._looked_at |= set(open_ones)
        wanted = people_wanted(open_ones, self._replies, self.rules, now)
        if any(wanted.values()):
            self._back_end.ask_more(self.name, wanted, self.rules)

    @cached_property
    def _replies(self) -> list[Reply]:
        return self._back_end.read_replies(self.name)


def _hash(same: Same) -> str:
    try:
        return content_hash(inspect.getsource(same))
    except (OSError, TypeError):  # without a source file its name is all there is
        return content_hash(getattr(same, "__qualname__", type(same).__qualname__))
