"""Labels as MLflow assessments, and back.

Written are two names only, feedback `score` and expectation `expected`; read are all that the project names
(`FeedbackNames`), and anything else is reported, never guessed at and never dropped. Whether somebody was asked, and
with which propensity, is not read from here: whoever may label may write it.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from mlflow.entities import Assessment, AssessmentSource, Expectation, Feedback, TraceInfo
from pydantic import ValidationError

from ratchet.agent.record import Record
from ratchet.agent.trace import Trace
from ratchet.evaluation.data.labels import ANONYMOUS, Label, Source, one_per_rater
from ratchet.infra.traces.feedback import COMMENT, EXPECTED, SCORE, FeedbackNames, plain_answer
from ratchet.infra.traces.spans import mlflow_id, own_id

OUTCOME: Final = "outcome"
"""The environment's own score, known when the trace was written; part of the trace, not a label."""
ASKED: Final = "ratchet.asked"
"""Trace tag: the pick for review as a person sees it on the trace; what counts is in the log of picks."""
OVER: Final = "over"
"""In an expectation's metadata, as JSON: what people saw beside it and did not pick."""
_TYPES: Final[dict[Source, str]] = {"human": "HUMAN", "judge": "LLM_JUDGE", "environment": "CODE"}
_SOURCES: Final[dict[str, Source]] = {value: key for key, value in _TYPES.items()}


class Problem(Record):
    """Something in MLflow that could not be used; it is still there."""

    trace_id: str
    reason: str


def outcome_assessment(trace: Trace) -> Assessment | None:
    """The trace's outcome for the UI; None where the environment could not tell."""
    if trace.score is None:
        return None
    return Feedback(
        trace_id=mlflow_id(trace.trace_id),
        name=OUTCOME,
        value=trace.score,
        source=AssessmentSource("CODE", "environment"),
        rationale=trace.attempts[-1].outcome.feedback or None,
    )


def outcome_of(info: TraceInfo) -> Assessment | None:
    """The outcome that stands at the trace; the newest, should there be two."""
    found = [one for one in info.assessments or [] if one.name == OUTCOME and one.valid is not False]
    return max(found, key=_arrived_ms, default=None)


def score_of(info: TraceInfo) -> float | None:
    """The outcome's score; None where it is not known."""
    said = outcome_of(info)
    return None if said is None else float(_value(said))


def to_assessments(label: Label) -> list[Assessment]:
    """One assessment for the score, one for the expected answer, tied by the label's id."""
    shared: dict[str, Any] = {
        "trace_id": mlflow_id(label.trace_id),
        "source": AssessmentSource(_TYPES[label.source], label.rater),
        "metadata": {
            "label_id": label.label_id,
            "rubric_version": label.rubric_version,
            "created_at": label.created_at.isoformat(),
            "comment": label.comment,
        },
    }
    said: list[Assessment] = []
    if label.score is not None:
        said.append(Feedback(name=SCORE, value=label.score, rationale=label.comment or None, **shared))
    if label.expected is not None:
        if label.over is not None:
            shared["metadata"] = shared["metadata"] | {OVER: json.dumps(label.over, ensure_ascii=False)}
        said.append(Expectation(name=EXPECTED, value=label.expected, **shared))
    return said


def labels_arrived_ms(info: TraceInfo) -> int:
    """When the trace's newest assessment was written or changed; 0 = it has none."""
    return max((_arrived_ms(one) for one in info.assessments or []), default=0)


def _arrived_ms(assessment: Assessment) -> int:
    return assessment.last_update_time_ms or assessment.create_time_ms or 0


def to_labels(
    info: TraceInfo,
    *,
    after_ms: int = 0,
    names: FeedbackNames | None = None,
    others: Counter[str] | None = None,
) -> tuple[list[Label], list[Problem]]:
    """Labels in the trace's valid assessments from `after_ms` on, a person's newest only, and what is no label.

    Args:
        info: the trace.
        after_ms: since when, in ms since 1970.
        names: which names are read; None = the usual ones.
        others: counts, by name, what programs and judges wrote under names that are not read.
    """
    trace_id, known = own_id(info.trace_id), names or FeedbackNames()
    valid = [one for one in info.assessments or [] if one.valid is not False and one.name != OUTCOME]
    remarks = {one.source.source_id: str(_value(one)) for one in valid if one.name == COMMENT}
    groups: dict[str, list[Assessment]] = defaultdict(list)
    problems = []
    for assessment in valid:
        if _arrived_ms(assessment) < after_ms:
            continue
        if known.kind(assessment.name) is not None:
            tie = (assessment.metadata or {}).get("label_id") or assessment.assessment_id
            groups[f"{assessment.source.source_type} {assessment.source.source_id} {tie}"].append(assessment)
        elif assessment.source.source_type != "HUMAN":
            if others is not None:
                others[assessment.name] += 1
        elif assessment.name != COMMENT:
            told = f"{assessment.source.source_id} wrote {known.unread(assessment.name, _value(assessment))}"
            problems.append(Problem(trace_id=trace_id, reason=told))
    labels = []
    for said in groups.values():
        try:
            labels.append(_label(trace_id, said, remarks, known))
        except (ValidationError, ValueError) as error:
            problems.append(Problem(trace_id=trace_id, reason=_unusable(said[0], error)))
    return one_per_rater(labels), problems


def _label(
    trace_id: str, said: Sequence[Assessment], remarks: dict[str | None, str], names: FeedbackNames
) -> Label:
    first = said[0]
    metadata = first.metadata or {}
    scores = (names.score(one.name, _value(one)) for one in said if names.kind(one.name) == "score")
    answers = (plain_answer(_value(one)) for one in said if names.kind(one.name) == "expected")
    return Label(
        trace_id=trace_id,
        score=next(scores, None),
        expected=next(answers, None),
        over=next((json.loads(text) for one in said if (text := (one.metadata or {}).get(OVER))), None),
        source=_source(first),
        rater=first.source.source_id or ANONYMOUS,
        rubric_version=metadata.get("rubric_version", "1"),
        comment=metadata.get("comment") or first.rationale or remarks.get(first.source.source_id, ""),
        created_at=_said_at(first),
    )


def _source(assessment: Assessment) -> Source:
    kind = assessment.source.source_type
    if kind not in _SOURCES:
        raise ValueError(f"source type {kind!r} is none of {', '.join(_SOURCES)}")
    return _SOURCES[kind]


def _said_at(assessment: Assessment) -> datetime:
    """When it says that it was made, for it may have waited in a spool; but no later than it arrived."""
    arrived = datetime.fromtimestamp(_arrived_ms(assessment) / 1000, UTC)
    made = (assessment.metadata or {}).get("created_at")
    if made is None:
        return arrived
    at = datetime.fromisoformat(made)
    return min(at if at.tzinfo is not None else at.replace(tzinfo=UTC), arrived)


def _unusable(assessment: Assessment, error: ValueError) -> str:
    why = str(error.errors()[0]["msg"]) if isinstance(error, ValidationError) else str(error)
    return f"{assessment.source.source_id} wrote {assessment.name!r} = {_value(assessment)!r}: {why}"


def _value(assessment: Assessment) -> Any:
    """What it says; an error or an issue says nothing."""
    return getattr(assessment, "value", None)
