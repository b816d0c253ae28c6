"""Which tokens of a conversation are the agent's own: only these are learned.

Decision: the text is exactly what the model's own chat template makes, and the mask comes from the template where it
marks what is generated. SmolLM2's ships without marks and without tools, so it is trained with one that has both and
makes the same bytes where there are no tools. Of any other template without marks the mask is found by what each of
the agent's turns adds to the text; a template that rewrites earlier turns is refused, since then no token is surely
the agent's. Source: TRL, `assistant_only_loss`; SmolLM2's tool format is Hermes' `<tool_call>`.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from ratchet.agent.errors import BadInput
from ratchet.agent.record import Json

SMOLLM2: Final = (
    "{%- set greeting = 'You are a helpful AI assistant named SmolLM, trained by Hugging Face' %}"
    "{%- set has_system = messages[0]['role'] == 'system' %}"
    "{%- if tools or not has_system %}"
    "{{- '<|im_start|>system\\n' + ((messages[0]['content'] or '') if has_system else greeting) }}"
    "{%- if tools %}"
    "{{- '\\n\\nYou can call these functions. <tools>' }}"
    "{%- for tool in tools %}{{- '\\n' + (tool | tojson) }}{%- endfor %}"
    "{{- '\\n</tools>\\nTo call one, write <tool_call>"
    '{"name": its name, "arguments": a JSON object}'
    "</tool_call>.' }}"
    "{%- endif %}"
    "{{- '<|im_end|>\\n' }}"
    "{%- endif %}"
    "{%- for message in messages %}"
    "{%- if loop.first and has_system and tools %}"
    "{%- elif message['role'] == 'assistant' %}"
    "{{- '<|im_start|>assistant\\n' }}"
    "{%- generation %}"
    "{{- message['content'] or '' }}"
    "{%- for call in message['tool_calls'] or [] %}"
    "{%- set call = call['function'] or call %}"
    "{{- '\\n' if (message['content'] or not loop.first) else '' }}"
    "{{- '<tool_call>{\"name\": ' + (call['name'] | tojson) + ', \"arguments\": ' }}"
    "{{- (call['arguments'] if call['arguments'] is string else (call['arguments'] or {}) | tojson) }}"
    "{{- '}</tool_call>' }}"
    "{%- endfor %}"
    "{{- '<|im_end|>' }}"
    "{%- endgeneration %}"
    "{{- '\\n' }}"
    "{%- else %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + (message['content'] or '') + '<|im_end|>\\n' }}"
    "{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
"""SmolLM2's template with tools, and with the marks of what the agent says."""
_MARK: Final = "{% generation"
_SHIPPED: Final = "trained by Hugging Face<|im_end|>"


class Encoded(NamedTuple):
    """A conversation as the model reads it."""

    ids: list[int]
    """Token ids [n]."""
    own: list[bool]
    """Whether each is the agent's own, [n]."""


def template_of(tokenizer: Any) -> str:
    """The template to train with.

    Raises:
        BadInput: the model has none.
    """
    own = tokenizer.chat_template
    if not isinstance(own, str) or not own:
        raise BadInput(
            f"the tokenizer of {tokenizer.name_or_path} has no chat template: train an instruction-tuned model, "
            "or put its chat_template.jinja beside the weights"
        )
    return SMOLLM2 if _SHIPPED in own and "named SmolLM" in own else own


def encode(tokenizer: Any, messages: Sequence[Mapping[str, Json]], tools: Sequence[Json] | None) -> Encoded:
    """The conversation's tokens, and which of them are the agent's.

    Raises:
        BadInput: no turn is the agent's, or the template does not let one tell which tokens are.
    """
    turns = [_readable(message, tokenizer.all_special_tokens) for message in messages]
    if not any(turn["role"] == "assistant" for turn in turns):
        raise BadInput(
            f"a conversation of {len(turns)} messages has no turn of the agent's: there is nothing to learn"
        )
    template = template_of(tokenizer)
    if _MARK in template.replace("{%-", "{%"):
        out = tokenizer.apply_chat_template(
            turns,
            tools=list(tools) if tools else None,
            chat_template=template,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        return Encoded(list(out["input_ids"]), [bool(one) for one in out["assistant_masks"]])
    return _by_difference(tokenizer, turns, tools, template)


def rendered_turn(
    tokenizer: Any, messages: Sequence[Mapping[str, Json]], tools: Sequence[Json] | None
) -> tuple[str, str]:
    """What the model reads before the last message, which is its own, and what it says, end of turn included.

    Raises:
        BadInput: the template does not let one tell.
    """
    turns = [_readable(message, tokenizer.all_special_tokens) for message in messages]
    template = template_of(tokenizer)
    before = _text(tokenizer, turns[:-1], tools, template, invite=True)
    whole = _text(tokenizer, turns, tools, template, invite=False)
    if not whole.startswith(before):
        raise BadInput(
            f"the chat template of {tokenizer.name_or_path} writes what was asked otherwise once it is answered: "
            "its tokens cannot be told"
        )
    start = tokenizer.bos_token or ""
    if start and before.startswith(start) and tokenizer("")["input_ids"]:  # it adds one by itself
        before, whole = before[len(start) :], whole[len(start) :]
    return before, whole[len(before) :].rstrip("\n")


def _text(
    tokenizer: Any,
    turns: Sequence[dict[str, Any]],
    tools: Sequence[Json] | None,
    template: str,
    *,
    invite: bool,
) -> str:
    return str(
        tokenizer.apply_chat_template(
            list(turns),
            tools=list(tools) if tools else None,
            chat_template=template,
            tokenize=False,
            add_generation_prompt=invite,
        )
    )


def _by_difference(
    tokenizer: Any, turns: Sequence[dict[str, Any]], tools: Sequence[Json] | None, template: str
) -> Encoded:
    """Each of the agent's turns is what the text grows by, after the words that invite it to speak."""

    def text(upto: int, invite: bool) -> str:
        return _text(tokenizer, turns[:upto], tools, template, invite=invite)

    whole, spans = text(len(turns), invite=False), []
    for index, turn in enumerate(turns):
        if turn["role"] != "assistant":
            continue
        before, after = text(index, invite=True), text(index + 1, invite=False)
        if not after.startswith(before) or not whole.startswith(after):
            raise BadInput(
                f"the chat template of {tokenizer.name_or_path} writes turn {index + 1} of {len(turns)} otherwise "
                "once more turns follow, so its tokens cannot be told: mark what is generated in the template "
                "({% generation %}), or train on conversations of one answer"
            )
        spans.append((len(before), len(after)))
    out = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
    own = [
        any(start < last and first < end for start, end in spans) and first < last
        for first, last in out["offset_mapping"]
    ]
    return Encoded(list(out["input_ids"]), own)


def _readable(message: Mapping[str, Json], control: Sequence[str]) -> dict[str, Any]:
    """The message with every field that a template asks for, arguments as objects; what it says is data."""

    def data(value: Json) -> Json:
        for token in control if isinstance(value, str) else ():
            value = value.replace(token, " ")
        return value

    turn = {"content": "", **{name: data(value) for name, value in message.items()}}
    calls = []
    for call in message.get("tool_calls") or ():
        asked = dict(call.get("function") or call)
        if isinstance(asked.get("arguments"), str):
            with suppress(ValueError):  # kept as the agent wrote it
                asked["arguments"] = json.loads(data(asked["arguments"]))
        calls.append({**{k: v for k, v in call.items() if k == "id"}, "type": "function", "function": asked})
    if calls:
        turn["tool_calls"] = calls
    return turn
