"""Tools as the candidate presents them: other names, descriptions and argument schemas than the environment's.

Everything inside the agent (memory, examples, traces) speaks the environment's names; only what the LM reads and
answers is renamed. So an experience outlives a renaming, and the environment never sees a name that it did not give.
"""

from collections.abc import Mapping

from ratchet.agent.candidate import Predictor, ToolOverride
from ratchet.agent.environment import Observation, Option
from ratchet.agent.errors import BadInput

Overrides = Mapping[str, str | ToolOverride]


def override_of(tools: Overrides, name: str) -> ToolOverride:
    """What the candidate says of the tool with this name; a bare text is a description."""
    value = tools.get(name, ToolOverride())
    return ToolOverride(description=value) if isinstance(value, str) else value


def overridden(option: Option, tools: Overrides) -> Option:
    """The option with the candidate's description and schema, under the environment's name.

    Where the environment's tool does not take an argument that the candidate's schema has, because the tool has
    changed since, the environment's schema stays.
    """
    override = override_of(tools, option.name)
    changes: dict[str, object] = {}
    if override.description is not None:
        changes["description"] = override.description
    if override.parameters is not None:
        theirs = set(option.parameters.get("properties", {}))
        if set(override.parameters.get("properties", {})) <= theirs:
            changes["parameters"] = override.parameters
    return option.model_copy(update=changes) if changes else option


def shown_name(tools: Overrides, name: str) -> str:
    """What the LM calls the tool with this name."""
    return override_of(tools, name).name or name


def as_shown(observation: Observation, tools: Overrides) -> Observation:
    """The observation under the names that the LM reads.

    Where another option bears the new name already, the tool keeps the environment's: which tools come together is
    not known when they are renamed.
    """
    theirs = {option.name for option in observation.options}
    renamed = {name: shown_name(tools, name) for name in theirs}
    if all(name == shown or shown in theirs for name, shown in renamed.items()):
        return observation
    options = tuple(
        o if renamed[o.name] in theirs else o.model_copy(update={"name": renamed[o.name]})
        for o in observation.options
    )
    return observation.model_copy(update={"options": options})


def check_names(tools: Overrides) -> None:
    """Refuse overrides that give two tools one name.

    Raises:
        BadInput: names the two.
    """
    taken: dict[str, str] = {}
    for tool in tools:
        if (name := override_of(tools, tool).name) is None:
            continue
        if name in taken:
            raise BadInput(
                f"tools {taken[name]!r} and {tool!r} would both be called {name!r}: rename one of them"
            )
        taken[name] = tool


def predictor_as_shown(predictor: Predictor, tools: Overrides) -> Predictor:
    """The predictor with its demos' answers under the names that the LM reads."""
    if not predictor.demos or not any(isinstance(value, ToolOverride) for value in tools.values()):
        return predictor
    demos = tuple(d.model_copy(update={"output": shown_name(tools, d.output)}) for d in predictor.demos)
    return predictor.model_copy(update={"demos": demos})
