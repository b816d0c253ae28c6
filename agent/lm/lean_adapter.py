"""The lean prompt format as a `dspy.Adapter`, so that DSPy's modules and optimizers run on small models.

Where a signature has an `options` input, the answer is one of them: the embedded LM scores them; an endpoint
is asked to write one, and what it writes is matched to them.
"""

import difflib
import re
from typing import Any

import dspy
from dspy.lm15 import Config, Message, Request, TextPart
from dspy.utils.exceptions import AdapterParseError

from ratchet.agent.candidate import Demo, Predictor
from ratchet.agent.environment import Observation, Option
from ratchet.agent.errors import BadInput
from ratchet.agent.lm.embedded import CHOICES_KEY, PRIOR_KEY, EmbeddedEngine
from ratchet.agent.lm.lm import Prompt, Room
from ratchet.agent.lm.prompt_format import ASSISTANT, LARGE, SMALL, USER, choice_prompt, data, in_words

FIELD_CHARS = 2000


class LeanAdapter(dspy.Adapter):  # type: ignore[misc]  # dspy ships no types
    """40–190 tokens a call, where the default chat format takes 700 and more."""

    def __call__(
        self,
        lm: dspy.BaseLM,
        lm_kwargs: dict[str, Any],
        signature: type[dspy.Signature],
        demos: list[dict[str, Any]],
        inputs: dict[str, Any],
    ) -> list[dict[str, Any]]:
        """Format, ask, parse: one completion."""
        prompt = self.prompt(signature, demos, inputs, lm.engine.lm.room if _is_embedded(lm) else LARGE)
        response = lm(self.request(lm, lm_kwargs, prompt, inputs.get("prior")))
        return [self.answer(signature, response.message.text or "", prompt.choices)]

    def prompt(
        self,
        signature: type[dspy.Signature],
        demos: list[dict[str, Any]],
        inputs: dict[str, Any],
        room: Room = SMALL,
    ) -> Prompt:
        """The same text that the batched path makes of a candidate."""
        if "options" in signature.input_fields:
            output = _only_output(signature)
            predictor = Predictor(
                instructions=signature.instructions,
                demos=tuple(Demo(inputs=str(d["request"]), output=str(d[output])) for d in demos),
            )
            observation = Observation(
                text=inputs["request"], options=tuple(Option.model_validate(o) for o in inputs["options"])
            )
            return choice_prompt(
                predictor,
                observation,
                recalled=inputs.get("before", ()),
                reflections=inputs.get("notes", ()),
                room=room,
            )
        limit = FIELD_CHARS if room == SMALL else room.request
        lines = [signature.instructions, *(f"Example: {_fields(demo, limit)}" for demo in demos)]
        if len(signature.output_fields) > 1:
            lines.append(
                "Answer with one line each: " + ", ".join(f"`{n}: …`" for n in signature.output_fields)
            )
        return Prompt(USER + "\n".join(lines) + "\n", _fields(inputs, limit) + ASSISTANT)

    def request(
        self, lm: dspy.BaseLM, lm_kwargs: dict[str, Any], prompt: Prompt, prior: list[float] | None = None
    ) -> Request:
        """A canonical request; choices travel beside the prompt to the embedded LM, and in it to an endpoint."""
        embedded = _is_embedded(lm)
        settings = {**getattr(lm, "kwargs", {}), **lm_kwargs}
        config = Config(
            max_tokens=settings.get("max_tokens"),
            temperature=settings.get("temperature"),
            extensions={CHOICES_KEY: list(prompt.choices), PRIOR_KEY: prior}
            if prompt.choices and embedded
            else None,
        )
        texts = [prompt.prefix.removeprefix(USER), prompt.suffix.removesuffix(ASSISTANT)]
        parts = [TextPart(text) for text in (texts if embedded else [in_words(prompt)])]
        return Request(model=lm.model, messages=(Message.user(parts),), config=config)

    def answer(self, signature: type[dspy.Signature], text: str, choices: tuple[str, ...]) -> dict[str, Any]:
        """The output fields.

        Raises:
            AdapterParseError: nothing usable was answered.
        """
        text = text.strip()
        names = list(signature.output_fields)
        if choices:
            if (choice := nearest(text, choices)) is not None:
                return {names[0]: choice}
        elif len(names) == 1 and text:
            return {names[0]: text}
        elif text:
            lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
            found = {name: lines[key].strip() for name in names for key in lines if key.strip("`*- ") == name}
            if len(found) == len(names):
                return found
        raise AdapterParseError(adapter_name="LeanAdapter", signature=signature, lm_response=text)


def _only_output(signature: type[dspy.Signature]) -> str:
    names = [str(name) for name in signature.output_fields]
    if len(names) != 1:
        raise BadInput(
            f"signature {signature.__name__} has `options` and {len(names)} outputs ({', '.join(names)}): "
            "an option answers one output; take `options` out, or ask for the others in a signature of their own"
        )
    return names[0]


def nearest(text: str, choices: tuple[str, ...]) -> str | None:
    """The choice that a free answer means; None if it means none of them."""
    word = text.strip().strip("`'\". ")
    if word in choices:
        return word
    longest_first = "|".join(re.escape(choice) for choice in sorted(choices, key=len, reverse=True))
    named = set(re.findall(rf"(?<!\w)(?:{longest_first})(?!\w)", text))
    if len(named) == 1:
        return str(named.pop())
    if named:
        return None
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.8)
    return close[0] if close else None


def _is_embedded(lm: dspy.BaseLM) -> bool:
    return isinstance(getattr(lm, "engine", None), EmbeddedEngine)


def _fields(values: Any, limit: int) -> str:
    return "\n".join(f"{name}: {data(str(value), limit)}" for name, value in dict(values).items())
