"""OpenAI's preference files (DPO): one request, the answer that a person wants and the one that they do not.

Why two conversations of one record: each is an answer that an agent gave. The preferred one counts as approved by a
person; the other is corrected to it, and is not called wrong: it is only less good.
"""

from collections.abc import Iterator
from typing import Any, Final

from ratchet.infra.traces.conversation import Assessed, Conversation
from ratchet.infra.traces.formats.chat import read_chat
from ratchet.infra.traces.formats.format import Format, one_by_one, text_in

_GOOD: Final = "preferred_output"
_BAD: Final = "non_preferred_output"
_RATER: Final = "preference file"


def _looks_like(value: Any) -> bool:
    asked = value.get("input") if isinstance(value, dict) else None
    return isinstance(asked, dict) and isinstance(value.get(_GOOD), list)


def _read(record: dict[str, Any]) -> Iterator[Conversation]:
    best = text_in([one.get("content") for one in record[_GOOD] if isinstance(one, dict)])
    for name in (_GOOD, _BAD):
        answer = record.get(name)
        if not isinstance(answer, list) or not answer:
            continue
        said = {**record["input"], "messages": [*(record["input"].get("messages") or ()), *answer]}
        around = {key: v for key, v in record.items() if key not in ("input", _GOOD, _BAD)}
        yield read_chat({**around, **said}).model_copy(
            update={"assessed": tuple(_assessed(best, name == _GOOD))}
        )


def _assessed(best: str, is_best: bool) -> Iterator[Assessed]:
    if best:
        yield Assessed(name="preferred", value=best, kind="expected", source="human", rater=_RATER)
    if is_best:
        yield Assessed(name="preferred", value=1.0, kind="score", source="human", rater=_RATER)


OPENAI_PREFERENCE: Final = Format(
    "openai-preference", "input{messages}, preferred_output[]", _looks_like, one_by_one(_read)
)
