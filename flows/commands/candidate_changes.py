"""What differs between two candidates, worded for the person who approves one of them."""

import json
from typing import NamedTuple

from ratchet.agent.candidate import Candidate


class Change(NamedTuple):
    """One thing that is not the same."""

    what: str
    old: str
    new: str


def changes(old: Candidate, new: Candidate) -> list[Change]:
    """Prompt, demos, tools, weights, memory and topology, one row each; the same is left out."""
    before, after = _rows(old), _rows(new)
    names = dict.fromkeys([*before, *after])
    return [
        Change(what, before.get(what, "none"), after.get(what, "none"))
        for what in names
        if before.get(what, "none") != after.get(what, "none")
    ]


def _rows(candidate: Candidate) -> dict[str, str]:
    rows = {
        "LM": candidate.base_model,
        "LM's address": candidate.api_base or "none",
        "adapter": candidate.adapter or "none",
        "memory": candidate.memory or "none",
    }
    for name, predictor in candidate.predictors.items():
        rows[f"{name}: instructions"] = predictor.instructions
        for demo in predictor.demos:
            rows[f"{name}: demo {demo.inputs[:60]!r}"] = demo.output
    topology = candidate.topology.model_dump(mode="json", exclude={"roles"})
    rows |= {f"topology: {name}": json.dumps(value) for name, value in topology.items()}
    rows |= {f"role {role.name}": role.to_json() for role in candidate.topology.roles}
    rows |= {
        f"tool {name}": tool if isinstance(tool, str) else tool.model_dump_json(exclude_none=True)
        for name, tool in candidate.tools.items()
    }
    rows |= {f"extra option {option.name}": option.description for option in candidate.extra_options}
    return rows
