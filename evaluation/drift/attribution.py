"""What changed: which evidence, since when, in which messages, under which name, and where.

Description, not decision: the alarm is `drift`'s alone, and nothing here is corrected for having looked.
"""

from datetime import datetime

from pydantic import Field

from ratchet.agent.record import Record
from ratchet.evaluation.drift.message import Group


class ChangePoint(Record):
    """When the drift began: the most likely message and a 95 % interval, as message numbers from 0."""

    message: int
    low: int
    high: int
    at: datetime | None = None
    """Time of the first message of the most likely window, where messages carry times."""

    @property
    def words(self) -> str:
        """As it stands in an attribution's sentence."""
        return f"message {self.message:,} ({self.low:,} to {self.high:,})"


class StrangeMessage(Record):
    """One of the messages that weigh most."""

    text: str
    message: int
    """Number of the message, from 0."""
    family: str
    """Evidence in which it is strangest."""
    p: float
    """Its rank there among all earlier messages, in (0, 1]."""
    slice: str | None = None


class Cluster(Record):
    """Messages that came together since the change point, and much less before."""

    name: str
    """The most typical of them, cut short; the pieces that recur in them where a script has no blanks."""
    size: int
    share: float
    """Of the messages since the change point, in [0, 1]."""
    usual_share: float
    """Of the messages of the reference, in [0, 1]."""
    known: bool
    """Whether the reference asks the same: a surge, not something new."""
    examples: tuple[str, ...]
    messages: tuple[int, ...] = ()
    """Numbers of the messages that lie in it, since the onset: where labels are worth most."""


class SliceDrift(Record):
    """How strange the messages of one slice are since the change point."""

    slice: str
    n: int
    strange_share: float
    """Share of its messages among the strangest tenth; 0.1 without drift."""
    low: float
    high: float
    """95 % interval of the share (Wilson)."""


class Attribution(Record):
    """What is known about the drift of an alarm."""

    kinds: tuple[Group, ...]
    """Groups whose own evidence passes the threshold, the cause first."""
    surge: bool = False
    """Known requests came more often; nothing new was asked."""
    families: dict[str, float] = Field(default_factory=dict)
    """Share of the evidence that each detector carries, in [0, 1]."""
    onset: ChangePoint
    top_messages: tuple[StrangeMessage, ...] = ()
    clusters: tuple[Cluster, ...] = ()
    slices: tuple[SliceDrift, ...] = ()
    reason: str
    """One sentence for the person on call."""
