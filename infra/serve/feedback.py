"""`/v1/feedback`: what somebody says of an answer becomes a label, by the same durable way as the answer's trace."""

from datetime import UTC, datetime
from typing import Any, Final

import orjson
from pydantic import Field, ValidationError

from ratchet.agent.record import Json, Record
from ratchet.evaluation.data.labels import ANONYMOUS, Label
from ratchet.infra.serve.http import Refused

_SHOWN: Final = 80


class Feedback(Record):
    """What is sent: a score, the right answer, or both, and a comment."""

    trace_id: str = Field(pattern=r"^[0-9a-f]{32}$")
    """As in the answer's header `x-ratchet-trace`."""
    score: float | None = Field(default=None, ge=0, le=1)
    correction: Json | None = None
    """What the answer should have been, text or JSON."""
    comment: str = ""
    rater: str = ANONYMOUS
    """Who says so; the newest word of each counts."""


def label_of(body: dict[str, Any]) -> Label:
    """The label; Refused (400) names the field, what stands there, and what may."""
    try:
        said = Feedback.model_validate(body)
        return Label(
            trace_id=said.trace_id,
            score=said.score,
            expected=said.correction,
            source="human",
            rater=said.rater,
            comment=said.comment,
            created_at=datetime.now(UTC),
        )
    except ValidationError as error:
        raise Refused(400, "bad_feedback", _line(error)) from error


def label_line(label: Label) -> bytes:
    """As the journal keeps it."""
    return orjson.dumps({"label": label.model_dump(mode="json")}, option=orjson.OPT_APPEND_NEWLINE)


def _line(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    if not name:
        return "nothing is said of the answer: give score (0 to 1), correction, or both"
    if first["type"] == "extra_forbidden":
        return f"{name}: there is {', '.join(Feedback.model_fields)}"
    return f"{name} = {str(first['input'])[:_SHOWN]!r}: {first['msg']}"
