"""Where people answer the gate's questions: MLflow's Review page, or Label Studio, as `raters.backend` says."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from ratchet.evaluation.data.raters import RaterSettings
from ratchet.evaluation.gate.questions import Question, Reply
from ratchet.infra.review import comparisons
from ratchet.infra.review.label_studio import InLabelStudio


class BackEnd(Protocol):
    """What each of them can do; the words are those of `ratchet.infra.review.comparisons`."""

    def ask_comparisons(
        self, project: str, questions: Sequence[Question], rules: RaterSettings | None = None
    ) -> None:
        """Ask people; what was asked before keeps its place."""

    def ask_more(self, project: str, wanted: Mapping[str, int], rules: RaterSettings) -> int:
        """Ask so many more people; returns how many items were opened."""

    def withdraw(self, project: str, question_ids: Collection[str]) -> None:
        """Ask these of nobody any more."""

    def pending_comparisons(self, project: str, rater: str = "") -> list[Question]:
        """What waits, for this person or for anybody."""

    def read_replies(self, project: str, question_ids: Collection[str] | None = None) -> list[Reply]:
        """What people said, oldest first."""

    def reply(self, project: str, said: Reply) -> None:
        """Say it for a person."""


def back_end(rules: RaterSettings) -> BackEnd:
    """The one that the project chose."""
    return InLabelStudio() if rules.backend == "label-studio" else comparisons
