"""What is known after a window of messages."""

from pydantic import BaseModel, ConfigDict

from ratchet.evaluation.drift.message import GROUPS, Group


class DriftState(BaseModel):
    """What is known after a window."""

    model_config = ConfigDict(frozen=True)

    alarm: bool
    e_value: float
    """Shiryaev–Roberts sum R; without drift its mean is the number of windows seen."""
    threshold: float
    """1/alpha: the alarm is R ≥ threshold."""
    since: int | None
    """First message of the window in which the drift is thought to have begun, counted from 0 at the start of
    the monitor; None without an alarm."""
    n_seen: int
    """Messages seen since the reference."""
    n_windows: int
    input: float
    """R of what people ask."""
    behaviour: float
    """R of what the agent does."""
    outcome: float
    """R of how well it goes."""
    families: dict[str, float]
    """R of each detector."""
    embedding: str = ""
    """Name of what texts were read by; empty in a state from before it was kept."""

    @property
    def groups(self) -> tuple[Group, ...]:
        """Groups whose own evidence passes the threshold, strongest first."""
        strongest = sorted(GROUPS, key=lambda group: -float(getattr(self, group)))
        return tuple(group for group in strongest if float(getattr(self, group)) >= self.threshold)
