"""Which format a log file has, by what its records hold: the table of all that are read.

Why the order: a record of a special format often looks like one of a general format, too; the special ones are asked
first. Why one format a file: a record that does not fit is a fault that must be named, not another format.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ratchet.agent.errors import BadInput
from ratchet.infra.files import cells
from ratchet.infra.traces.formats.anthropic import ANTHROPIC
from ratchet.infra.traces.formats.atif import ATIF
from ratchet.infra.traces.formats.chat import OPENAI_CHAT
from ratchet.infra.traces.formats.claude_code import CLAUDE_CODE
from ratchet.infra.traces.formats.exports import LANGFUSE, LANGSMITH, MLFLOW, OTLP
from ratchet.infra.traces.formats.format import Format
from ratchet.infra.traces.formats.openai_preference import OPENAI_PREFERENCE
from ratchet.infra.traces.formats.sharegpt import SHAREGPT
from ratchet.infra.traces.formats.swe_agent import MINI_SWE_AGENT, SWE_AGENT
from ratchet.infra.traces.formats.tau import TAU2_BENCH, TAU_BENCH

FORMATS: Final[tuple[Format, ...]] = (
    OTLP,
    MLFLOW,
    LANGFUSE,
    LANGSMITH,
    ATIF,
    CLAUDE_CODE,
    SWE_AGENT,
    MINI_SWE_AGENT,
    TAU2_BENCH,
    TAU_BENCH,
    OPENAI_PREFERENCE,
    SHAREGPT,
    ANTHROPIC,
    OPENAI_CHAT,
)
"""The special ones first."""
LOOKED_AT: Final = 50
"""Records at the beginning of a file by which its format is told."""
_NAMED: Final = 8


def format_named(name: str) -> Format:
    """The format of that name.

    Raises:
        BadInput: there is none.
    """
    found = next((one for one in FORMATS if one.name == name), None)
    if found is None:
        raise BadInput(
            f"format {name!r} is none of {', '.join(one.name for one in FORMATS)}; or leave --format out"
        )
    return found


def is_record(value: Any) -> bool:
    """Whether a JSON value is a record of any format, rather than what holds records."""
    return any(one.looks_like(value) for one in FORMATS)


def detect(path: Path, records: Sequence[Any]) -> Format:
    """The format of the first of these records that is of any.

    Raises:
        BadInput: none is; names what was looked for and what was found.
    """
    for record in records:
        for one in FORMATS:
            if one.looks_like(record):
                return one
    raise BadInput(
        f"{path}: of no format that is read: its first record is {_found(records[0])}; looked for {wanted()}; "
        "rename its fields, or name the format with --format"
    )


def wanted(told: Format | None = None) -> str:
    """What a record should hold, as an error lists it."""
    return ", ".join(f"{one.name} ({one.fields})" for one in ([told] if told else FORMATS))


def _found(record: Any) -> str:
    if not isinstance(record, dict):
        return cells.kind(record)
    names = [cells.excerpt(name, 30).strip("'") for name in list(record)[:_NAMED]]
    more = f" and {len(record) - _NAMED} more" if len(record) > _NAMED else ""
    return f"an object of {', '.join(names)}{more}" if names else "an empty object"
