"""A predictor's fields as text and back: what was asked and answered, as memories, examples and traces hold it.

One field is its text, several are one JSON object by the fields' names. What reads back to the fields is shown as a
DSPy example; what does not fit them any more is told in words, within the instructions.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import dspy
from pydantic_core import to_jsonable_python

from ratchet.agent.candidate import Demo, Predictor
from ratchet.agent.record import Json, as_text


def text_of_fields(values: Mapping[str, Any], names: Iterable[str]) -> str:
    """These fields as one text."""
    kept = {name: to_jsonable_python(values[name], fallback=str) for name in names if name in values}
    return as_text(next(iter(kept.values())) if len(kept) == 1 else kept)


def demo_fields(signature: type[dspy.Signature], demo: Demo) -> dict[str, Json] | None:
    """The example as the signature's fields; None where it does not fit them."""
    given = _read(demo.inputs, list(signature.input_fields))
    said = _read(demo.output, list(signature.output_fields))
    return None if given is None or said is None else {**given, **said}


def demo_of_fields(signature: type[dspy.Signature], example: Mapping[str, Any]) -> Demo:
    """A DSPy example as one of a candidate's."""
    return Demo(
        inputs=text_of_fields(example, signature.input_fields),
        output=text_of_fields(example, signature.output_fields),
    )


def exact_demo(signature: type[dspy.Signature], example: Mapping[str, Any]) -> Demo | None:
    """The same, such that `demo_fields` reads the very fields; None where DSPy would not show it."""
    kept = {
        name: to_jsonable_python(example[name], fallback=str)
        for name in signature.fields
        if example.get(name) is not None
    }
    asked = {name: kept[name] for name in signature.input_fields if name in kept}
    said = {name: kept[name] for name in signature.output_fields if name in kept}
    if not asked or not said:
        return None
    demo = Demo(inputs=text_of_fields(asked, asked), output=text_of_fields(said, said))
    if demo_fields(signature, demo) == kept:
        return demo
    return Demo(inputs=json.dumps(asked, ensure_ascii=False), output=json.dumps(said, ensure_ascii=False))


def dspy_examples(signature: type[dspy.Signature], demos: Iterable[Demo]) -> list[dspy.Example]:
    """Those of the examples that fit the signature, as DSPy shows them."""
    fitting = (demo_fields(signature, demo) for demo in demos)
    return [dspy.Example(**fields).with_inputs(*signature.input_fields) for fields in fitting if fields]


def _read(text: str, names: list[str]) -> dict[str, Json] | None:
    """One JSON object by these names; a plain text is the only one, or the one after the reasoning."""
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    if isinstance(value, dict) and value and set(value) <= set(names):
        return value
    if len(names) == 1 or (names[:1] == ["reasoning"] and len(names) == 2):
        return {names[-1]: value if isinstance(value, dict | list) else text}
    return None


def first_predictor(predictor: dspy.Predict) -> Predictor:
    """What the code says of a predictor: its instructions, and the examples that it was compiled with."""
    signature = predictor.signature
    demos = tuple(demo_of_fields(signature, dict(demo.items())) for demo in predictor.demos)
    return Predictor(instructions=signature.instructions, demos=demos)
