"""Answers that people graded, by a score or by their own answer: what judges are made from and audited by.

Why never both: a judge that is asked about what it learned from looks better than it is. It learns from what was
picked because it interests and from cases that a gate used; it is audited on the picks drawn at random, by those who
were asked, and these never teach it.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from pydantic import Field

from ratchet.agent.case import Case
from ratchet.agent.record import Json, Record, as_text
from ratchet.agent.trace import Trace
from ratchet.evaluation.data.cases import answer_name
from ratchet.evaluation.data.labels import Label, one_per_rater
from ratchet.evaluation.data.scorers import same
from ratchet.evaluation.judge.agreement import Audit
from ratchet.evaluation.judge.judge import RIGHT


class Graded(Record):
    """One answer and what people say of it."""

    trace_id: str
    case: Case
    answer: Json
    score: float = Field(ge=0, le=1)
    """The lowest where they differ."""
    better: Json | None = None
    """What somebody would have answered; None = nobody said, or it is this answer."""
    at: datetime
    """When the last of them said so."""

    @property
    def is_right(self) -> bool:
        """Whether it is good enough to be called right."""
        return self.score >= RIGHT


def people_graded(traces: Sequence[Trace], labels: Sequence[Label], rubric_version: str) -> list[Graded]:
    """The answers that people graded by this version of the rubric, in the order in which they were graded.

    A trace that broke, or has no answer, is none. A person who gave both a score and an answer is heard by the score.
    """
    said: dict[str, list[Label]] = {}
    for label in one_per_rater(labels):
        if label.source == "human" and label.rubric_version == rubric_version:
            said.setdefault(label.trace_id, []).append(label)
    found = [
        _graded(trace, said[trace.trace_id])
        for trace in traces
        if trace.trace_id in said and trace.error is None and trace.action is not None
    ]
    return sorted(found, key=lambda one: (one.at, one.trace_id))


def _graded(trace: Trace, labels: Sequence[Label]) -> Graded:
    scores = [
        label.score if label.score is not None else float(_agrees(trace, label.expected)) for label in labels
    ]
    better = [one.expected for one in labels if one.expected is not None and not _agrees(trace, one.expected)]
    return Graded(
        trace_id=trace.trace_id,
        case=trace.case,
        answer=trace.answer,
        score=min(scores),
        better=better[-1] if better else None,
        at=max(label.created_at for label in labels),
    )


def _agrees(trace: Trace, expected: Json) -> bool:
    if trace.is_free:
        return same(expected, trace.answer)
    return answer_name(expected) == answer_name(trace.answer)


def lessons(graded: Sequence[Graded]) -> list[Graded]:
    """What a judge learns from: every answer, and what people would have answered as one that is right."""
    corrected = [
        one.model_copy(update={"answer": one.better, "score": 1.0, "better": None})
        for one in graded
        if one.better is not None
    ]
    return [*graded, *corrected]


def as_audits(
    graded: Sequence[Graded], grades: Mapping[str, float], propensities: Mapping[str, float] | None = None
) -> list[Audit]:
    """Audits of those that a judge graded, too.

    Args:
        graded: what people said.
        grades: the judge's, by trace.
        propensities: with which probability people were asked; left out: all alike.
    """
    return [
        Audit(
            trace_id=one.trace_id,
            at=one.at,
            judge=grades[one.trace_id],
            person=one.score,
            propensity=(propensities or {}).get(one.trace_id, 1.0),
            slice=one.case.slice,
            length=len(as_text(one.answer)),
        )
        for one in graded
        if one.trace_id in grades
    ]
