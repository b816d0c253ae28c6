"""The texts of an agent that an LM may write anew, by name, whatever kind of agent it is.

Why prompts and tool descriptions alike: what a model is told of a tool is an instruction as well.
"""

from collections.abc import Mapping
from typing import Final

from ratchet.agent.candidate import Candidate, Predictor, ToolOverride
from ratchet.agent.kinds.program import CHOOSE
from ratchet.agent.kinds.tool_overrides import override_of

PROMPT: Final = "prompt "
TOOL: Final = "tool "
CHARS_A_TOKEN: Final = 4
"""About, in English."""


def texts_of(candidate: Candidate) -> dict[str, str]:
    """`prompt NAME` and `tool NAME` → text.

    Of the built-in agent the prompts that decide, its own or its roles' (arguments are filled apart, and nobody
    scores them here), and the tools of which it says something itself.
    """
    prompts = {f"{PROMPT}{name}": candidate.predictors[name].instructions for name in _deciding(candidate)}
    tools = {f"{TOOL}{name}": override_of(candidate.tools, name).description for name in candidate.tools}
    return prompts | {name: text for name, text in tools.items() if text is not None}


def with_texts(candidate: Candidate, texts: Mapping[str, str]) -> Candidate:
    """The candidate with these texts instead of its own; examples, names and schemas stay."""
    predictors: dict[str, Predictor] = dict(candidate.predictors)
    tools: dict[str, str | ToolOverride] = dict(candidate.tools)
    for name, text in texts.items():
        if name.startswith(PROMPT):
            own = name.removeprefix(PROMPT)
            predictors[own] = predictors[own].model_copy(update={"instructions": text})
        else:
            own, old = name.removeprefix(TOOL), tools[name.removeprefix(TOOL)]
            tools[own] = text if isinstance(old, str) else old.model_copy(update={"description": text})
    return candidate.model_copy(update={"predictors": predictors, "tools": tools})


def length_told(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """What the changed texts cost at each call: `system 40 → 310 characters (about 10 → 78 tokens)`."""
    return "; ".join(
        f"{name.split(' ', 1)[1]} {len(before[name])} → {len(text)} characters "
        f"(about {_tokens(before[name])} → {_tokens(text)} tokens)"
        for name, text in after.items()
        if text != before[name]
    )


def _deciding(candidate: Candidate) -> list[str]:
    if candidate.kind != "built-in":
        return list(candidate.predictors)
    return [role.name for role in candidate.topology.roles] or [CHOOSE]


def _tokens(text: str) -> int:
    return -(-len(text) // CHARS_A_TOKEN)
