"""One production message as drift detection sees it: what was asked, what the agent did, how well it went.

Every field may be missing: a detector uses what it was given, and nothing stands in for what it was not.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

Group = Literal["input", "behaviour", "outcome"]
"""What people ask (then label), what the agent does (investigate), how well it goes (roll back)."""

GROUPS: Final[tuple[Group, ...]] = ("input", "behaviour", "outcome")


class Message(BaseModel):
    """One message with what the agent did about it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    text: str | None = None
    """What the person or caller asked."""
    session: str | None = None
    """Messages of one conversation are one bet: they are not independent."""
    at: datetime | None = None
    slice: str | None = None
    """Channel, language, tenant…: for attribution only."""
    tool: str | None = None
    """Tool, intent or route that the agent chose."""
    steps: int | None = Field(default=None, ge=0)
    retries: int | None = Field(default=None, ge=0)
    latency_s: float | None = Field(default=None, ge=0)
    cost_usd: float | None = Field(default=None, ge=0)
    confidence: float | None = None
    """The agent's own confidence, any scale; higher is surer."""
    outcome: float | None = Field(default=None, ge=0, le=1)
    """Score of the environment or a person in [0, 1]; None is unscored, never 0."""
    judge: float | None = Field(default=None, ge=0, le=1)
    """Score of the judge in [0, 1]."""
    categories: Mapping[str, str] = Field(default_factory=dict)
    """Further categorical columns of what the agent did."""
    numbers: Mapping[str, float] = Field(default_factory=dict)
    """Further numeric columns of what the agent did."""


MessageBatch = Sequence[str] | Sequence[Message] | NDArray[np.floating]
"""Texts, records, or an array (messages, dimensions) of ready embeddings."""

BEHAVIOUR_NUMBERS: Final = ("steps", "retries", "latency_s", "cost_usd", "confidence")
OUTCOME_NUMBERS: Final = ("outcome", "judge")
HARMLESS_FALLS: Final = ("latency_s", "cost_usd", "repeated_words", "repeated_pairs", "repeated_answers")
"""Numbers of which only a rise is drift."""


def as_messages(batch: MessageBatch) -> list[Message]:
    """Records of a batch of texts or records; an array of embeddings becomes records without a field."""
    if isinstance(batch, np.ndarray):
        return [Message() for _ in range(len(batch))]
    return [row if isinstance(row, Message) else Message(text=row) for row in batch]


def numeric_column(rows: Sequence[Message], name: str) -> NDArray[np.float64]:
    """Values (messages,) of a numeric column; NaN where it was not given."""
    if name in Message.model_fields:
        values = [getattr(row, name) for row in rows]
    else:
        values = [row.numbers.get(name) for row in rows]
    return np.array([np.nan if value is None else float(value) for value in values])


def category_column(rows: Sequence[Message], name: str) -> list[str | None]:
    """Values of a categorical column; None where it was not given."""
    return [row.tool if name == "tool" else row.categories.get(name) for row in rows]


def session_groups(rows: Sequence[Message]) -> NDArray[np.int64]:
    """Number (messages,) of each message's session in order of first appearance; no session is its own."""
    seen: dict[object, int] = {}
    return np.array(
        [seen.setdefault(i if row.session is None else row.session, len(seen)) for i, row in enumerate(rows)],
        dtype=np.int64,
    )
