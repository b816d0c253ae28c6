"""What an agent is asked: one record, known by the hash of its inputs."""

from datetime import datetime

from ratchet.agent.record import Json, Record, content_hash


class Case(Record):
    """One input that the agent may face."""

    inputs: dict[str, Json]
    expected: Json | None = None
    """The right answer as a person or ground truth gives it; None = not known (yet)."""
    slice: str | None = None
    """Channel, language, tenant…: the gate looks for harm in each."""
    seen_at: datetime | None = None

    @property
    def case_id(self) -> str:
        """Hash of the inputs alone: the same request is the same case, labelled or not."""
        return content_hash(self.inputs)
