"""A verdict on a trace, or a correction of it, with who gave it and how it came to be asked for.

Why propensity from the first day: labels that were picked where they are worth most are not a random sample;
the gate can correct for that only if the probability was written down when the pick was made.
"""

from datetime import datetime
from typing import Literal, Self

from pydantic import Field, model_validator

from agent.record import Json, Record, content_hash

Source = Literal["human", "judge", "environment"]


class Label(Record):
    """Either a score, or the expected answer, or both."""

    schema_version: Literal[1] = 1
    trace_id: str
    score: float | None = Field(default=None, ge=0, le=1)
    """How good the answer was; None = only the expected answer was given."""
    expected: Json | None = None
    """What the answer should have been; None = only a score was given."""
    source: Source
    rater: str
    """Who: a person's account, a judge's hash, an environment's name."""
    rubric_version: str = "1"
    propensity: float = Field(default=1.0, gt=0, le=1)
    """Probability with which this trace was picked for labelling."""
    comment: str = ""
    created_at: datetime

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.score is None and self.expected is None:
            raise ValueError("a label needs a score or an expected answer; both are missing")
        return self

    @property
    def label_id(self) -> str:
        """Hash of what was said by whom about which trace; the time is left out, so a re-read is the same."""
        return content_hash(self.model_dump(mode="json", exclude={"created_at"}))
