"""What a decision is taken from, and what it is: the records between the loop and whoever decides."""

from typing import NamedTuple

import numpy as np
from pydantic import Field

from ratchet.agent.environment import Action, Observation
from ratchet.agent.record import Json, Record
from ratchet.agent.trace import Contribution, Usage


class View(Record):
    """What a decision is taken from."""

    case_id: str
    observation: Observation
    inputs: dict[str, Json] = Field(default_factory=dict)
    """The case's, for agents that answer it whole."""
    goal: str = ""
    """What the case is for, in words: steps of trajectories are recalled by it as well."""
    reflections: tuple[str, ...] = ()
    tried: tuple[str, ...] = ()
    """Actions that already failed at this case, or that were repeated too often: not taken again."""
    done: tuple[str, ...] = ()
    """What was done last in this attempt, oldest first."""
    seconds_left: float | None = None
    """Of the time that the case may take; None = no limit says."""


class Decision(Record):
    """What the agent does, and how sure it is."""

    action: Action
    actor: str = "agent"
    """The role that decided."""
    parts: tuple[Contribution, ...] = ()
    """What the members of a team said before."""
    confidence: float | None = None
    recalled: tuple[str, ...] = ()
    """Trace ids of the experiences that it was shown or that voted."""
    usage: Usage = Usage()


class Scored(NamedTuple):
    """How much the embedded LM, and what stands beside it, favours each option."""

    names: tuple[str, ...]
    """The environment's names of the options, the candidate's own extra ones last."""
    log_scores: np.ndarray
    """Log-probability plus prior, float64 [n_options]; not normalized."""
    recalled: tuple[str, ...]
    """Trace ids of the experiences that were shown or voted."""
    input_tokens: int
