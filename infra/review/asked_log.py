"""Which questions of the gate people were asked, wherever they answer: a log that labelling rights do not reach.

Why a digest of each: whoever may label may rewrite what stands beside an item; a question that is not the one that
was asked judges nothing.
"""

from collections.abc import Sequence
from typing import Final

from pydantic import Field

from ratchet.agent.errors import CorruptRecord
from ratchet.agent.record import Record, content_hash
from ratchet.evaluation.gate.questions import Question
from ratchet.infra.mlflow_client import Connection
from ratchet.infra.registry.log import append_event, read_events

COMPARE: Final = "compare"
"""Name of the log of what was asked."""
_PORTION: Final = 500


class _Event(Record):
    """One line of the log."""

    asked: dict[str, str] = Field(default_factory=dict)
    """Question id → digest of the question as it was first asked, in the order of asking."""


def asked_questions(connection: Connection) -> dict[str, str]:
    """Question id → digest of all that people were ever asked, in the order of asking.

    Raises:
        CorruptRecord: the log was changed.
    """
    asked: dict[str, str] = {}
    for text in read_events(connection, COMPARE):
        event = _Event.from_json(text, where=f"{connection.project}-{COMPARE}")
        asked |= {name: digest for name, digest in event.asked.items() if name not in asked}
    return asked


def log_asked(connection: Connection, questions: Sequence[Question]) -> None:
    """Write down that these are asked; one that stands there stays as it is."""
    known = asked_questions(connection)
    new = [one for one in questions if one.question_id not in known]
    for start in range(0, len(new), _PORTION):
        event = _Event(asked={one.question_id: _digest(one) for one in new[start : start + _PORTION]})
        about = "Which answers people were asked to compare; none is deleted."
        append_event(connection, COMPARE, event.to_json(), about=about)


def checked_question(text: str, asked: str, where: str) -> Question:
    """A question as it stands beside its item.

    Raises:
        CorruptRecord: it cannot be read, or is not the one whose digest is `asked`.
    """
    question = Question.from_json(text, where=where)
    if _digest(question) != asked:
        raise CorruptRecord(f"{where}: the question was changed after it was asked; restore it from a backup")
    return question


def _digest(question: Question) -> str:
    """Of all but why it is asked: that may be said anew when a kill came between the log and the question's trace."""
    return content_hash(question.model_dump(mode="json", exclude={"reason"}))
