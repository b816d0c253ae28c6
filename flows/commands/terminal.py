"""What a person or a pipeline sees: JSON on stdout, everything else on stderr, three exit codes.

Why here: every command answers in the same way, so that a CI step can branch on the exit code alone. And a request
in a trace can hold control sequences, which a terminal obeys: text from outside passes through `outside`.
"""

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from datetime import datetime
from typing import Any, Final, TextIO

from pydantic import BaseModel
from rich.console import Console
from rich.text import Text

YES: Final = 0
"""Proven, no drift, done."""
BAD_INPUT: Final = 2
"""The input cannot be used; one line on stderr says why and what to do."""
NO: Final = 3
"""Not yet, refused, drift."""

console = Console(stderr=True, highlight=False)
"""For people: progress, tables, sentences. Never stdout, which belongs to `--json`."""


def outside(text: object, limit: int = 400) -> Text:
    """Text that somebody else wrote, without control characters and markup, cut to `limit` characters."""
    plain = re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "", str(text)).strip()
    return Text(plain if len(plain) <= limit else plain[: limit - 1] + "…")


def moment(at: datetime) -> str:
    """Local time to the minute."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M")


def emit_json(answer: BaseModel | dict[str, Any]) -> None:
    """Print one JSON object on stdout, and nothing else there."""
    text = answer.model_dump_json() if isinstance(answer, BaseModel) else json.dumps(answer, default=str)
    print(text, file=_answers[-1] if _answers else sys.stdout, flush=True)


_answers: list[TextIO] = []
"""Where the answer goes while everything else is kept from stdout."""


@contextmanager
def only_the_answer_on_stdout() -> Iterator[None]:
    """Send to stderr what libraries print, and what processes that we start print, on stdout."""
    with _own_copy(sys.stdout) as answers, redirect_stdout(sys.stderr):
        _answers.append(answers)
        try:
            yield
        finally:
            _answers.pop()


@contextmanager
def _own_copy(stdout: TextIO) -> Iterator[TextIO]:
    """Stdout under another number, and its own number for stderr; where it is no file, stdout itself."""
    if (stdout, sys.stderr) != (sys.__stdout__, sys.__stderr__):
        yield stdout
        return
    theirs = sys.stderr.fileno()
    stdout.flush()
    kept = os.dup(stdout.fileno())
    os.dup2(theirs, stdout.fileno())
    try:
        with os.fdopen(os.dup(kept), "w", encoding="utf-8") as answers:
            yield answers
    finally:
        os.dup2(kept, stdout.fileno())
        os.close(kept)
