"""Everything about an agent that may change, frozen in one record whose id is its content's hash.

Why one record: what is gated, promoted, compared and rolled back is the whole agent, never a part whose
interplay with the others was not tested. Ids are recorded for good, so a field that came after the first schema
enters the id only where it is set.
"""

import re
from typing import Final, Literal

from pydantic import Field

from ratchet.agent.environment import Option
from ratchet.agent.record import Json, Record, content_hash

ADDRESS = r"^(vendor|https?://[^\s@?#]+)$"
"""Without user, password or query: these hold keys, and an address is recorded."""


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


class OptionWeights(Record):
    """What stands beside the LM where an option is chosen."""

    recalls: int = Field(default=0, ge=0, le=20)
    """Own successes shown as examples at each step."""
    retrieval_weight: float = Field(default=0.0, ge=0, le=1000)
    """Weight of lexical similarity of request and option, added to the LM's log-probability (nats)."""
    recall_weight: float = Field(default=0.0, ge=0, le=100)
    """Weight of the recalled successes' vote for an option, added to the LM's log-probability (nats)."""
    extra_bias: float = Field(default=0.0, ge=-100, le=100)
    """Added to the candidate's own extra options (nats): a small LM likes them far too much or too little."""
    extra_where_known: bool = False
    """Whether extra options are chosen, and voted for, by what the memory knows of the options at hand alone: of
    those that were never met nobody has said that they do not fit."""


Duty = Literal["plan", "solve", "criticize", "judge"]
"""`plan` narrows the options or writes a plan; `solve` picks one (the worker behind a planner); `criticize` says
right or wrong of what was picked; `judge` picks among what is left, knowing what the others said."""


class Role(OptionWeights):
    """One member of a team; its prompt is the candidate's predictor of this name."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,30}$")
    duty: Duty
    weight: float = Field(default=1.0, ge=0, le=100)
    """Factor of this role's log-probabilities where the team's are added up."""
    adapter: str | None = None
    """Content hash of this role's LoRA adapter; None = the base weights."""
    memory: str | None = None
    """Content hash of this role's share of the experience; None = no experience."""


class Topology(OptionWeights):
    """How the agent goes about a case."""

    attempts: int = Field(default=1, ge=1, le=10)
    """Tries within one case; retries need an environment that says that it failed."""
    reflections: int = Field(default=3, ge=0, le=3)
    """What was concluded from failed attempts that a retry reads, the last so many; 0 = it tries again without."""
    roles: tuple[Role, ...] = ()
    """A team, in the order in which its members speak; empty = one agent."""


class ToolOverride(Record):
    """What the candidate says of a tool instead of what the environment says; None = as the environment has it."""

    name: str | None = None
    """What the LM reads and answers; the environment gets its own name."""
    description: str | None = None
    parameters: dict[str, Json] | None = None
    """JSON schema; the arguments' names stay the environment's."""


Kind = Literal["built-in", "callable", "module", "chat"]
"""What answers: our own program in an environment, a Python callable, a `dspy.Module`, or a chat endpoint."""
IN_CODE: Final = "in the agent's code"
"""Instead of an LM's name: the agent's own code says which LM it asks."""


def plain_name(part: str) -> str:
    """A part's name for files, tags and labels: letters, digits, `_`, `-` and `.` alone; two names stay two.

    A predictor of a module may be called `agents[0].predict`.
    """
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", part).strip("-.")
    return part if plain == part else f"{plain}-{content_hash(part, length=4)}"


def share_label(part: str) -> str:
    """Label of the file with this prompt's own share of the experience."""
    return f"memory.{plain_name(part)}"


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
    kind: Kind = "built-in"
    predictors: dict[str, Predictor]
    """By name; of a callable its prompt parts, of a module its predictors, of a chat endpoint `system`."""
    base_model: str
    """Name of the LM: `smollm2-135m-instruct` for the embedded one, a LiteLLM model string, or `IN_CODE`."""
    api_base: str | None = Field(default=None, pattern=ADDRESS)
    """Where an endpoint's LM is asked unless another address is set; `vendor` = the vendor's own host."""
    adapter: str | None = None
    """Content hash of the LoRA adapter's folder; None = the base weights."""
    memory: str | None = None
    """Content hash of the experience snapshot; None = no experience."""
    memories: dict[str, str] = Field(default_factory=dict)
    """Predictor → content hash of its own share of the experience, where an agent has several prompts."""
    models: dict[str, str] = Field(default_factory=dict)
    """Model part → what the code asks instead of its default."""
    tools: dict[str, str | ToolOverride] = Field(default_factory=dict)
    """What overrides the environment's options, by their name there; a text is a description. Of a callable its
    tool descriptions."""
    replaces: str = ""
    """Of a chat endpoint the system message that clients sent on the first day: the prompt takes its place."""
    extra_options: tuple[Option, ...] = ()
    """Actions beside those that the environment offers, such as to abstain: learned from people's answers."""
    topology: Topology = Topology()
    parent: str | None = None
    """Id of the candidate that this one was derived from."""
    origin: Origin = Origin()

    @property
    def candidate_id(self) -> str:
        """Hash of what the agent is; its lineage and origin are left out."""
        content = _set_or_first(self, FIRST) | {"topology": _set_or_first(self.topology, FIRST_OF_TOPOLOGY)}
        return content_hash({name: content[name] for name in content if name not in NOT_CONTENT})


NOT_CONTENT = frozenset(("parent", "origin", "schema_version"))
FIRST = frozenset(("predictors", "base_model", "adapter", "memory", "tools", "extra_options", "topology"))
"""Fields of the first schema enter the id even at their defaults."""
FIRST_OF_TOPOLOGY = frozenset(("attempts", "recalls", "retrieval_weight", "recall_weight", "extra_bias"))


def _set_or_first(record: Record, first: frozenset[str]) -> dict[str, Json]:
    later = record.model_dump(mode="json", exclude=set(first), exclude_defaults=True)
    return later | record.model_dump(mode="json", include=set(first))
