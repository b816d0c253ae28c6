"""The desk's ticket system: what customers asked, and afterwards the team that solved it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def requests() -> Iterator[dict[str, Any]]:
    """`ticket`, `channel` and `request` of each, read again each time: append to the file as they come in."""
    return _rows("requests.jsonl")


def solved_by(request: str) -> str | None:
    """The team that solved it in the end; None = not solved yet."""
    teams = {row["ticket"]: row["team"] for row in _rows("solved.jsonl")}
    return next((teams.get(row["ticket"]) for row in requests() if row["request"] == request), None)


def _rows(file: str) -> Iterator[dict[str, Any]]:
    return map(json.loads, (HERE / file).read_text(encoding="utf-8").splitlines())
