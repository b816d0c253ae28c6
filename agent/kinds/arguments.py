"""The arguments of a chosen action, written by the LM.

A step of its own after the choice: writing costs the embedded LM twenty times what scoring does, so it is done
only where somebody asks for it, in one batch, and counted apart.
"""

from collections.abc import Sequence

from ratchet.agent.environment import Action
from ratchet.agent.kinds.program import ARGUMENTS, Decision, Program, View
from ratchet.agent.kinds.tool_overrides import overridden, shown_name
from ratchet.agent.lm.prompt_format import argument_prompt, parse_arguments

ARGUMENT_TOKENS = 64


def fill_arguments(program: Program, views: Sequence[View], decisions: Sequence[Decision]) -> list[Decision]:
    """The decisions with their actions' arguments, and what writing them took; None where it is no JSON object."""
    predictor, tools = program.candidate.predictors.get(ARGUMENTS), program.candidate.tools
    chosen = [
        (i, overridden(option, tools), view)
        for i, (view, decision) in enumerate(zip(views, decisions, strict=True))
        for option in view.observation.options
        if option.name == decision.action.name and option.parameters.get("properties")
    ]
    if predictor is None or not chosen or not program.lm.completes:
        return list(decisions)
    prompts = [
        argument_prompt(
            predictor, view.observation, option.model_copy(update={"name": shown_name(tools, option.name)})
        )
        for _, option, view in chosen
    ]
    written = program.lm.complete(prompts, max_tokens=ARGUMENT_TOKENS)
    filled = list(decisions)
    for (i, option, _), (text, usage) in zip(chosen, written, strict=True):
        action = Action(name=option.name, arguments=parse_arguments(text, option))
        filled[i] = filled[i].model_copy(update={"action": action, "usage": filled[i].usage + usage})
    return filled
