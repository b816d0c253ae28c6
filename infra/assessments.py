"""Labels as MLflow assessments, and back.

Why two names only: feedback `score` and expectation `expected` are what people, judges and environments can
say about a trace; anything else that a person wrote is reported, never guessed at and never dropped.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from mlflow.entities import Assessment, AssessmentSource, Expectation, Feedback, TraceInfo
from pydantic import ValidationError

from agent.record import Json, Record
from agent.trace import Trace
from evaluation.label import Label, Source
from infra.trace_spans import mlflow_id, own_id

SCORE: Final = "score"
EXPECTED: Final = "expected"
COMMENT: Final = "comment"
"""What the Review page asks beside the answer."""
OUTCOME: Final = "outcome"
"""The environment's own score, known when the trace was written; part of the trace, not a label."""
ASKED: Final = "ratchet.asked"
"""Trace tag: the pick for review, with the propensity that counts for answers from the Review page."""
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


def to_assessments(label: Label) -> list[Assessment]:
    """One assessment for the score, one for the expected answer, tied by the label's id."""
    shared: dict[str, Any] = {
        "trace_id": mlflow_id(label.trace_id),
        "source": AssessmentSource(_TYPES[label.source], label.rater),
        "metadata": {
            "label_id": label.label_id,
            "rubric_version": label.rubric_version,
            "propensity": repr(label.propensity),
            "created_at": label.created_at.isoformat(),
            "comment": label.comment,
        },
    }
    said: list[Assessment] = []
    if label.score is not None:
        said.append(Feedback(name=SCORE, value=label.score, rationale=label.comment or None, **shared))
    if label.expected is not None:
        said.append(Expectation(name=EXPECTED, value=label.expected, **shared))
    return said


def labels_arrived_ms(info: TraceInfo) -> int:
    """When the trace's newest assessment was written or changed; 0 = it has none."""
    return max((_arrived_ms(one) for one in info.assessments or []), default=0)


def _arrived_ms(assessment: Assessment) -> int:
    return assessment.last_update_time_ms or assessment.create_time_ms or 0


def to_labels(info: TraceInfo, *, after_ms: int = 0) -> tuple[list[Label], list[Problem]]:
    """Labels in the trace's valid assessments from `after_ms` on, and what a person wrote that is none."""
    trace_id = own_id(info.trace_id)
    valid = [one for one in info.assessments or [] if one.valid is not False and one.name != OUTCOME]
    remarks = {one.source.source_id: str(_value(one)) for one in valid if one.name == COMMENT}
    groups: dict[str, list[Assessment]] = defaultdict(list)
    problems = []
    for assessment in valid:
        if _arrived_ms(assessment) < after_ms:
            continue
        if assessment.name in (SCORE, EXPECTED):
            key = (assessment.metadata or {}).get("label_id") or assessment.assessment_id
            groups[str(key)].append(assessment)
        elif assessment.source.source_type == "HUMAN" and assessment.name != COMMENT:
            problems.append(Problem(trace_id=trace_id, reason=_unknown_name(assessment)))
    labels = []
    for said in groups.values():
        try:
            labels.append(_label(trace_id, said, info.tags, remarks))
        except (ValidationError, ValueError) as error:
            problems.append(Problem(trace_id=trace_id, reason=_unusable(said[0], error)))
    return sorted(labels, key=lambda label: (label.created_at, label.label_id)), problems


def _label(
    trace_id: str, said: Sequence[Assessment], tags: dict[str, str], remarks: dict[str | None, str]
) -> Label:
    first = said[0]
    metadata = first.metadata or {}
    written = datetime.fromtimestamp(_arrived_ms(first) / 1000, UTC)
    asked = json.loads(tags.get(ASKED, "{}"))
    return Label(
        trace_id=trace_id,
        score=next((_score(_value(one)) for one in said if one.name == SCORE), None),
        expected=next((_plain(_value(one)) for one in said if one.name == EXPECTED), None),
        source=_SOURCES[first.source.source_type],
        rater=first.source.source_id or "default",
        rubric_version=metadata.get("rubric_version", "1"),
        propensity=float(metadata.get("propensity", asked.get("propensity", 1.0))),
        comment=metadata.get("comment") or first.rationale or remarks.get(first.source.source_id, ""),
        created_at=datetime.fromisoformat(metadata["created_at"]) if "created_at" in metadata else written,
    )


def _score(value: Any) -> float:
    if isinstance(value, bool | int | float):
        return float(value)
    raise ValueError(f"score is {value!r}, not a number in [0, 1] or pass/fail")


def _plain(value: Any) -> Json:
    return value.strip() if isinstance(value, str) else value


def _unknown_name(assessment: Assessment) -> str:
    return (
        f"{assessment.source.source_id} wrote {assessment.name!r} = {_value(assessment)!r}: "
        f"only {SCORE!r} and {EXPECTED!r} are read as labels; repeat it under one of these names"
    )


def _unusable(assessment: Assessment, error: ValueError) -> str:
    why = str(error.errors()[0]["msg"]) if isinstance(error, ValidationError) else str(error)
    return f"{assessment.source.source_id} wrote {assessment.name!r} = {_value(assessment)!r}: {why}"


def _value(assessment: Assessment) -> Any:
    """What it says; an error or an issue says nothing."""
    return getattr(assessment, "value", None)
