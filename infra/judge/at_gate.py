"""The judge in the gate's tests: frozen at their opening by its hash, asked about answers that differ, and about no
other.

Where it cannot be asked it has no score, which costs labels and nothing else.
"""

from functools import cache
from typing import Final

from ratchet.agent.case import Case
from ratchet.agent.errors import BadInput, LMFailure
from ratchet.agent.record import Json, content_hash
from ratchet.evaluation.gate.betting import TrustPrior
from ratchet.evaluation.gate.judged import JudgePlan
from ratchet.evaluation.judge.judge import Judge, judge_scores
from ratchet.evaluation.judge.settings import JudgeSettings
from ratchet.infra.judge.kinds import judge_of
from ratchet.infra.judge.material import Material
from ratchet.infra.judge.store import load_judge_document, read_licence
from ratchet.infra.store.collected import newest_labels

_PAIRS: Final = 50
"""Audited answers, with what people would have answered, from which the trust in a judge begins."""


class GateJudge:
    """The judges of one project's tests."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._judge = cache(self._loaded)

    def plan(self, share: float, salt: str) -> tuple[JudgePlan, TrustPrior] | None:
        """For a test that opens now; None where no judge was made yet.

        Args:
            share: of the cases at which people are asked.
            salt: decides which; the same for all tests that are open, which then share their questions.
        """
        judge_id = read_licence(self.name).judge_id
        if judge_id is None:
            return None
        return JudgePlan(judge_id=judge_id, share=share, salt=salt), self._prior(judge_id)

    def scores(self, judge_id: str, case: Case, answers: tuple[Json, Json]) -> tuple[float, float] | None:
        """The judge's grades of both answers; None where it failed."""
        try:
            ours, theirs = judge_scores(self._judge(judge_id), case, answers)
        except (LMFailure, BadInput):  # no answer, or no address any more
            return None
        return ours, theirs

    def _loaded(self, judge_id: str) -> Judge:
        return judge_of(load_judge_document(self.name, judge_id))

    def _prior(self, judge_id: str) -> TrustPrior:
        """From audited answers beside people's better ones, each pair turned by its hash, else all would be −1."""
        document = load_judge_document(self.name, judge_id)
        settings = JudgeSettings(rubric_version=document.rubric_version)
        audited = Material(self.name, newest_labels(self.name), settings, 0.5, 0).audited
        people, judge = [], []
        for one in [one for one in audited if one.better is not None][-_PAIRS:]:
            grades = self.scores(judge_id, one.case, (one.answer, one.better))
            if grades is not None:
                turn = 1 if int(content_hash(one.trace_id), 16) % 2 else -1
                people.append(turn * (1.0 - one.score))
                judge.append(turn * (grades[1] - grades[0]))
        return TrustPrior.of(people, judge)
