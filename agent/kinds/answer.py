"""What a user's agent returns, as the text or JSON that an answer is.

Decision: what clients and frameworks return is read by its shape, never by its class, so that none of them need be
installed here. What has no obvious text or JSON is refused in a line that says what to return instead.
"""

from typing import Any

from pydantic_core import PydanticSerializationError, to_jsonable_python

from ratchet.agent.errors import LMFailure
from ratchet.agent.record import Json, as_json


def as_answer(value: Any) -> Json:
    """Text or JSON.

    Raises:
        LMFailure: it is neither, and nothing obvious in it is.
    """
    try:
        return as_json(to_jsonable_python(_without_wrapping(value)))
    except (PydanticSerializationError, ValueError, TypeError, RecursionError) as error:
        raise LMFailure(
            f"the agent returned {value!r:.60} ({type(value).__name__}), which is neither text nor JSON: "
            "return a text, or what JSON can hold"
        ) from error


def _without_wrapping(value: Any) -> Any:
    """The answer within what clients and frameworks return; a record of the user's own stays whole."""
    if _is_plain(value):
        return value
    if isinstance(choices := getattr(value, "choices", None), list) and choices:  # OpenAI's completion
        return choices[0].message.content
    if isinstance(text := getattr(value, "output_text", None), str):  # OpenAI's response
        return text
    if hasattr(value, "all_messages") and hasattr(value, "output"):  # PydanticAI's run
        return value.output
    if hasattr(value, "content") and (hasattr(value, "role") or hasattr(value, "response_metadata")):
        return value.content  # a message, of OpenAI's client or LangChain
    if callable(fields := getattr(value, "toDict", None)):  # DSPy's prediction: its only field, or all
        kept = fields()
        return next(iter(kept.values())) if len(kept) == 1 else kept
    return value


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | bytes | bool | int | float | list | tuple | dict)
