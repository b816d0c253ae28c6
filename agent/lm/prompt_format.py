"""A lean prompt for small models: 60–170 tokens where DSPy's default chat format takes 700 and more.

Order: what recurs stands first (instructions, demos, tools), what is new stands last (recalled experience,
reflections, request), so that the LM can share the work on the first part between requests.
What a user, a tool or a trace says is data: it is cut to a length, stripped of control tokens, and stands
on its own labelled line, never among the instructions. How long depends on who reads: the embedded LM is lost in a
long prompt, and an endpoint's LM needs the whole case.
"""

import re
from collections.abc import Sequence

import json_repair

from ratchet.agent.candidate import Demo, Predictor
from ratchet.agent.environment import Observation, Option
from ratchet.agent.lm.lm import Prompt, Room
from ratchet.agent.record import as_json

USER = "<|im_start|>user\n"
ASSISTANT = "<|im_end|>\n<|im_start|>assistant\n"
LINE = "\n"
OPTIONS = "\nOptions:\n"
"""What stands between instructions and demos, which recur with any options, and the options."""
DESCRIPTION_CHARS = 80
REQUEST_CHARS = 400
RECALL_CHARS = 120


SMALL = Room(REQUEST_CHARS, DESCRIPTION_CHARS, RECALL_CHARS)
LARGE = Room(request=100_000, description=2_000, recall=4_000)
"""A bound all the same: a request without end must not cost without end."""


def in_words(prompt: Prompt) -> str:
    """The prompt for an LM that has a chat format of its own and writes the option that it picks."""
    text = prompt.prefix.removeprefix(USER) + prompt.suffix.removesuffix(ASSISTANT)
    return f"{text}\nAnswer with the name of one option and nothing else." if prompt.choices else text


def choice_prompt(
    predictor: Predictor,
    observation: Observation,
    *,
    recalled: Sequence[Demo] = (),
    reflections: Sequence[str] = (),
    done: Sequence[str] = (),
    room: Room = SMALL,
    n_extra: int = 0,
) -> Prompt:
    """Prompt whose admissible continuations are the names of the observation's options.

    Args:
        predictor: instructions and demos.
        observation: request and options.
        recalled: own successes on similar requests, most similar last.
        reflections: what the agent concluded from failed attempts; the last three are shown.
        done: what was done so far in this attempt, oldest first.
        room: how much the LM reads.
        n_extra: of the options the last ones, which others who are asked the same do not have.
    """
    lines = [predictor.instructions]
    lines += [f"Example: {_demo(demo, room)}" for demo in predictor.demos]
    if observation.options:
        lines += [OPTIONS.strip(), *(_option(option, room) for option in observation.options)]
    new = [f"Before: {_demo(demo, room)}" for demo in recalled]
    new += [f"Note: {data(text, room.recall)}" for text in reflections[-3:]]
    if done:
        new.append(f"Done: {'; '.join(data(text, room.description) for text in done)}")
    new.append(f"Request: {data(observation.text, room.request)}")
    known = f"{USER}{LINE.join(lines[:-n_extra])}\n" if n_extra else ""
    return Prompt(
        prefix=f"{USER}{LINE.join(lines)}\n",
        suffix=f"{LINE.join(new)}{ASSISTANT}",
        choices=tuple(option.name for option in observation.options),
        recurs=len(known),
    )


def argument_prompt(predictor: Predictor, observation: Observation, option: Option) -> Prompt:
    """Prompt after which the LM writes the option's arguments as a JSON object, begun for it."""
    properties = option.parameters.get("properties", {})
    lines = [predictor.instructions, f"Function: {data(option.name, RECALL_CHARS)}", "Parameters:"]
    for name, schema in properties.items():
        need = "required" if name in option.parameters.get("required", []) else "optional"
        schema = schema if isinstance(schema, dict) else {}
        kind = schema.get("type", "any")
        choices = f" one of {schema['enum']}" if schema.get("enum") else ""
        head = data(f"{name} ({kind}, {need}){choices}", RECALL_CHARS)
        lines.append(f"- {head}: {data(str(schema.get('description', '')), DESCRIPTION_CHARS)}")
    return Prompt(
        prefix=f"{USER}{LINE.join(lines)}\n",
        suffix=f"Request: {data(observation.text, REQUEST_CHARS)}{ASSISTANT}{{",
    )


def parse_arguments(text: str, option: Option) -> dict[str, object] | None:
    """The JSON object that the LM wrote after `{`, reduced to the option's parameters; None if it is not JSON."""
    end = text.find("}\n")
    value = json_repair.loads("{" + (text if end < 0 else text[: end + 1]))
    if not isinstance(value, dict):
        return None
    known = option.parameters.get("properties", {})
    try:
        return {name: as_json(value[name]) for name in value if name in known}
    except ValueError:  # NaN, which Python reads as a number
        return None


def data(text: str, limit: int) -> str:
    """Text from outside as one line of at most `limit` characters, without the chat format's control tokens."""
    flat = re.sub(r"<\|[^|>]*\|>", " ", text)
    flat = re.sub(r"\s+", " ", flat).strip()
    return flat if len(flat) <= limit else flat[: limit - 1].rstrip() + "…"


def _demo(demo: Demo, room: Room) -> str:
    return f"{data(demo.inputs, room.recall)} -> {data(demo.output, room.recall)}"


def _option(option: Option, room: Room) -> str:
    return f"- {data(option.name, room.recall)}: {data(option.description, room.description)}"
