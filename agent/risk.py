"""How far a change reaches, which decides who may approve it: memory < prompt < adapter < topology.

Why by content and not by who proposed it: a proposer may change anything, and what a person answers for is what will
serve. A field that nobody placed counts as the riskiest.
"""

from collections.abc import Iterable
from typing import Final, Literal

from ratchet.agent.candidate import NOT_CONTENT, Candidate, OptionWeights, Role, Topology

Risk = Literal["memory", "prompt", "adapter", "topology"]
"""`memory`: examples and how far they are heard; `prompt`: instructions and what is said of tools; `adapter`: which
weights answer, a model's name and address too; `topology`: attempts, roles, what it may do, another kind of agent."""

RISKS: Final[tuple[Risk, ...]] = ("memory", "prompt", "adapter", "topology")
"""From the smallest to the greatest."""

RISK_OF: Final[dict[str, Risk]] = {
    "memory": "memory",
    "memories": "memory",
    "tools": "prompt",
    "replaces": "prompt",
    "base_model": "adapter",
    "api_base": "adapter",
    "adapter": "adapter",
    "models": "adapter",
    "kind": "topology",
    "extra_options": "topology",
}
"""Fields of a candidate that change as a whole; `predictors` and `topology` are looked into."""

_WEIGHTS: Final = frozenset(OptionWeights.model_fields)
_OF_ROLE: Final[dict[str, Risk]] = {"memory": "memory", "adapter": "adapter"}


def risk_of(old: Candidate, new: Candidate) -> Risk:
    """The greatest risk among what is not the same in both; `memory` where nothing differs."""
    return max(_risks(old, new), key=RISKS.index, default="memory")


def _risks(old: Candidate, new: Candidate) -> Iterable[Risk]:
    for name in Candidate.model_fields:
        if name in NOT_CONTENT or getattr(old, name) == getattr(new, name):
            continue
        if name == "predictors":
            yield from _of_predictors(old, new)
        elif name == "topology":
            yield from _of_topology(old.topology, new.topology)
        else:
            yield RISK_OF.get(name, "topology")


def _of_predictors(old: Candidate, new: Candidate) -> Iterable[Risk]:
    for name in {*old.predictors, *new.predictors}:
        before, after = old.predictors.get(name), new.predictors.get(name)
        if before is None or after is None:
            yield "topology"
        elif before.instructions != after.instructions:
            yield "prompt"
        elif before != after:
            yield "memory"


def _of_topology(old: Topology, new: Topology) -> Iterable[Risk]:
    for name in Topology.model_fields:
        if name != "roles" and getattr(old, name) != getattr(new, name):
            yield "memory" if name in _WEIGHTS else "topology"
    if [role.name for role in old.roles] != [role.name for role in new.roles]:
        yield "topology"
        return
    for before, after in zip(old.roles, new.roles, strict=True):
        for name in Role.model_fields:
            if getattr(before, name) != getattr(after, name):
                yield "memory" if name in _WEIGHTS else _OF_ROLE.get(name, "topology")
