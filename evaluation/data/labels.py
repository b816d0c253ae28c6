"""A verdict on a trace, or a correction of it, with who gave it and how it came to be asked for.

Why propensity from the first day: labels that were picked where they are worth most are not a random sample;
the gate can correct for that only if the probability was written down when the pick was made. Why it is not what
the label itself says: whoever may label may write anything; what was picked is in a log of its own
(`ratchet.infra.review.answers.effective_labels`), and only who was asked there may judge. Others teach at most.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal, Self

from pydantic import Field, model_validator

from ratchet.agent.record import Json, Record, content_hash
from ratchet.evaluation.data.scorers import same

Source = Literal["human", "judge", "environment"]

ANONYMOUS: Final = "default"
"""Whom MLflow names where nobody logs in: one rater, whoever that was."""


BRIEF: Final = 3
"""Words up to which a free answer is a value or a name, which is right or wrong as it is."""


class Label(Record):
    """Either a score, or the expected answer, or both."""

    schema_version: Literal[1] = 1
    trace_id: str
    score: float | None = Field(default=None, ge=0, le=1)
    """How good the answer was; None = only the expected answer was given."""
    expected: Json | None = None
    """What the answer should have been; None = only a score was given."""
    over: Json | None = Field(default=None, exclude_if=lambda answer: answer is None)
    """The answer that people saw beside `expected` and did not pick."""
    source: Source
    rater: str
    """Who: a person's account, a judge's hash, an environment's name."""
    rubric_version: str = "1"
    propensity: float | None = Field(default=None, gt=0, le=1)
    """Probability with which this trace was picked for labelling; None = nobody was asked about it."""
    asked: bool = False
    """Whether this rater was asked about this trace and answered there; only such an answer may judge."""
    comment: str = ""
    created_at: datetime

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.score is None and self.expected is None:
            raise ValueError("a label needs a score or an expected answer; both are missing")
        if self.asked and self.propensity is None:
            raise ValueError("a label on a trace that was asked about needs the propensity of its pick")
        return self

    @property
    def label_id(self) -> str:
        """Hash of what was said by whom about which trace; the time is left out, so a re-read is the same."""
        return content_hash(self.model_dump(mode="json", exclude={"created_at", "asked"}))


def one_per_rater(labels: Sequence[Label]) -> list[Label]:
    """Labels, oldest first, with each person's newest answer and newest score to a trace only.

    All anonymous people are one rater, who is not heard where somebody with a name answered the same trace. What
    judges and environments said is left as it is.
    """
    named = {_subject(one) for one in labels if one.source == "human" and not _is_anonymous(one)}
    heard: set[tuple[str, str, str]] = set()
    kept = []
    for label in sorted(labels, key=lambda one: (one.created_at, one.label_id), reverse=True):
        if label.source != "human":
            kept.append(label)
            continue
        if _is_anonymous(label) and _subject(label) in named:
            continue
        says = {kind: (label.trace_id, _name(label), kind) for kind in _kinds(label)}
        new = [kind for kind, key in says.items() if key not in heard]
        heard |= set(says.values())
        if new:
            kept.append(label.model_copy(update={kind: None for kind in says if kind not in new}))
    return kept[::-1]


def contradict(one: Json, other: Json, *, free: bool) -> bool:
    """Whether two right answers exclude each other.

    Args:
        one: an answer.
        other: another person's.
        free: they are text or JSON: two sentences may well be both right, and only values, names and JSON of which
            each says something else contradict each other.
    """
    if not free:
        return bool(one != other)
    return not same(one, other) and _is_brief(one) and _is_brief(other)


def _is_brief(answer: Json) -> bool:
    return not isinstance(answer, str) or len(answer.split()) <= BRIEF


def people_said(labels: Sequence[Label]) -> dict[str, float]:
    """People's score of each trace, each rater's newest, the lowest where they differ."""
    scores: dict[str, float] = {}
    for label in one_per_rater(labels):
        if label.source == "human" and label.score is not None:
            scores[label.trace_id] = min(label.score, scores.get(label.trace_id, 1.0))
    return scores


def _kinds(label: Label) -> list[str]:
    return [kind for kind in ("score", "expected") if getattr(label, kind) is not None]


def _subject(label: Label) -> tuple[str, ...]:
    return (label.trace_id, *_kinds(label))


def _name(label: Label) -> str:
    return label.rater.strip().casefold() or ANONYMOUS


def _is_anonymous(label: Label) -> bool:
    return _name(label) == ANONYMOUS
