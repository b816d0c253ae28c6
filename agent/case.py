"""What an agent is asked: one record, known by the hash of its inputs."""

from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from typing import Any, Self

from ratchet.agent.record import Json, Record, content_hash


class Case(Record):
    """One input that the agent may face."""

    inputs: dict[str, Json]
    expected: Json | None = None
    """The right answer as a person or ground truth gives it; None = not known (yet)."""
    slice: str | None = None
    """Channel, language, tenant…: the gate looks for harm in each."""
    seen_at: datetime | None = None

    @cached_property
    def case_id(self) -> str:
        """Hash of the inputs alone: the same request is the same case, labelled or not."""
        return content_hash(self.inputs)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """The case with other fields; of other inputs the hash is another one, too."""
        copied = super().model_copy(update=update, deep=deep)
        if update and "inputs" in update:
            copied.__dict__.pop("case_id", None)
        return copied
