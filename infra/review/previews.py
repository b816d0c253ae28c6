"""What MLflow's Review page shows of a trace: its two previews, as Markdown, written when somebody is asked about it.

Why then: what MLflow derives from a span is one message, cut at 1,000 characters; who is asked needs the conversation
before it, and why he is asked. Why `start_trace`: the one call that takes previews; of a trace that is there it
changes nothing else that it is not given.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final

from mlflow.entities import TraceInfo
from mlflow.tracing.client import TracingClient

from ratchet.infra.mlflow_client import Connection
from ratchet.infra.traces.markdown import as_markdown, cut, transcript

_LONGEST_IN_A_FILE: Final = 20_000
_RULE: Final = "\n\n---\n\n"
_EARLIER: Final = "… (its beginning is in the full trace)\n\n"
_LEAST: Final = 80
"""Characters of an earlier conversation below which it is left out."""


def longest_preview(connection: Connection) -> int:
    """Characters that fit: of what is too long for PostgreSQL's column the whole trace would lose its tags."""
    return _LONGEST_IN_A_FILE if connection.is_sqlite else connection.settings.preview_chars


def request_preview(messages: Sequence[Mapping[str, str]], limit: int) -> str:
    """What is to be answered: the last that a user said."""
    users = [one["content"] for one in messages if one["role"] == "user"]
    return cut((users or [messages[-1]["content"]])[-1], limit)


def response_preview(messages: Sequence[Mapping[str, str]], answer: str, reason: str, limit: int) -> str:
    """What was said before, a rule, the answer, and why it is asked; too long, it loses its beginning first.

    Args:
        messages: what was asked, in Markdown.
        answer: what is to be judged, in Markdown; it is cut where it alone is too long.
        reason: why a person is asked.
        limit: in characters.
    """
    why = f"\n\n*Why you are asked: {as_markdown(reason[: limit // 3])}*" if reason else ""
    shown = cut(answer, limit - len(why)) + why
    last = max((n for n, one in enumerate(messages) if one["role"] == "user"), default=0)
    earlier = [one for n, one in enumerate(messages) if n != last and one["role"] != "system"]
    before = _ending(transcript(earlier), limit - len(shown) - len(_RULE))
    return f"{before}{_RULE}{shown}" if before else shown


def _ending(text: str, room: int) -> str:
    """The end of a conversation, in as much room as there is."""
    if len(text) <= room:
        return text
    kept = room - len(_EARLIER)
    return _EARLIER + text[-kept:] if kept > _LEAST else ""


def write_previews(
    connection: Connection,
    info: TraceInfo,
    *,
    request: str | None,
    response: str | None,
    tags: Mapping[str, str],
) -> None:
    """Make these the trace's previews (None = as they are), and set these tags; it is made where it is not there."""
    given = dataclasses.replace(
        info, request_preview=request, response_preview=response, tags=dict(tags), assessments=[]
    )
    TracingClient(connection.settings.tracking_uri).start_trace(given)
