"""What a person or a pipeline sees: JSON on stdout, everything else on stderr, three exit codes.

Why here: every command answers in the same way, so that a CI step can branch on the exit code alone.
"""

import json
from typing import Any, Final

from pydantic import BaseModel
from rich.console import Console

YES: Final = 0
"""Promote, no drift, done."""
BAD_INPUT: Final = 2
"""The input cannot be used; one line on stderr says why and what to do."""
NO: Final = 3
"""Continue, reject, drift."""

console = Console(stderr=True, highlight=False)
"""For people: progress, tables, sentences. Never stdout, which belongs to `--json`."""


def emit_json(answer: BaseModel | dict[str, Any]) -> None:
    """Print one JSON object on stdout, and nothing else there."""
    print(answer.model_dump_json() if isinstance(answer, BaseModel) else json.dumps(answer, default=str))
