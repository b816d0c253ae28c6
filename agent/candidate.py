"""Everything about an agent that may change, frozen in one record whose id is its content's hash.

Why one record: what is gated, promoted, compared and rolled back is the whole agent, never a part whose
interplay with the others was not tested.
"""

from typing import Literal

from pydantic import Field

from agent.environment import Option
from agent.record import Json, Record, content_hash

SCHEMA_VERSION = 1


class Demo(Record):
    """One worked example in a prompt."""

    inputs: str
    output: str
    case_id: str | None = None
    """The case that it was taken from: the gate must never draw that case again."""


class Predictor(Record):
    """Prompt of one of the agent's predictors."""

    instructions: str
    demos: tuple[Demo, ...] = ()


class Topology(Record):
    """How the agent goes about a case."""

    attempts: int = Field(default=1, ge=1, le=10)
    """Tries within one case; retries need an environment that says that it failed."""
    recalls: int = Field(default=0, ge=0, le=20)
    """Own successes shown as examples at each step."""
    retrieval_weight: float = Field(default=0.0, ge=0, le=100)
    """Weight of lexical similarity of request and option, added to the LM's log-probability (nats)."""
    recall_weight: float = Field(default=0.0, ge=0, le=100)
    """Weight of the recalled successes' vote for an option, added to the LM's log-probability (nats)."""
    extra_bias: float = Field(default=0.0, ge=-100, le=100)
    """Added to the candidate's own extra options (nats): a small LM likes them far too much or too little."""


class Origin(Record):
    """How a candidate was made. Not part of its id: two ways to the same agent lead to the same id."""

    proposer: str = "hand"
    parameters: dict[str, Json] = Field(default_factory=dict)
    data_digest: str | None = None
    """Digest of the dataset that the proposer learned from."""
    note: str = ""
    """One sentence for a person."""


class Candidate(Record):
    """An agent, whole and frozen."""

    schema_version: Literal[1] = 1
    predictors: dict[str, Predictor]
    base_model: str
    """Name of the LM: `smollm2-135m-instruct` for the embedded one, or a LiteLLM model string."""
    adapter: str | None = None
    """Content hash of the LoRA adapter's folder; None = the base weights."""
    memory: str | None = None
    """Content hash of the experience snapshot; None = no experience."""
    tools: dict[str, str] = Field(default_factory=dict)
    """Descriptions that override those of the environment's options, by option name."""
    extra_options: tuple[Option, ...] = ()
    """Actions beside those that the environment offers, such as to abstain: learned from people's answers."""
    topology: Topology = Topology()
    parent: str | None = None
    """Id of the candidate that this one was derived from."""
    origin: Origin = Origin()

    @property
    def candidate_id(self) -> str:
        """Hash of what the agent is; its lineage and origin are left out."""
        return content_hash(self.model_dump(mode="json", exclude={"parent", "origin", "schema_version"}))
