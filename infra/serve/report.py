"""What the process that speaks with MLflow tells the one that answers, and the last of it on disk.

Why it is kept: a process that starts while MLflow is down serves what served last, instead of nothing.
"""

from pathlib import Path
from typing import Final

from pydantic import Field, ValidationError

from ratchet.agent.candidate import Candidate
from ratchet.agent.lm.probe import Probe
from ratchet.agent.record import Record

_LAST: Final = "served.json"


class Served(Record):
    """A version that is to answer, with its files on this machine."""

    number: int
    candidate: Candidate
    files: dict[str, Path]
    probes: dict[str, Probe] = Field(default_factory=dict)
    """What proves that its adapters answer, where a server has them."""


class SenderArguments(Record):
    """What the process that answers tells the sender, on its command line."""

    project: str
    folder: Path
    """Where the project's journals and the last report lie."""
    journal: Path
    poll_s: float
    first: Candidate
    """What serves where nothing ever did."""


class Report(Record):
    """One line: what has changed."""

    served: dict[str, Served] | None = None
    """By alias; None = as before."""
    pointed: tuple[int, ...] = ()
    """With `served`: numbers of the versions that any alias names."""
    sent: int | None = None
    """Lines of this process's journal that MLflow has."""
    warning: str | None = None
    """What a person should know."""


def write_last(folder: Path, report: Report) -> None:
    """Keep it for a start without MLflow."""
    new = folder / f"{_LAST}.new"
    new.write_text(report.to_json())
    new.replace(folder / _LAST)


def read_last(folder: Path) -> Report | None:
    """What was kept; None where nothing was, or its files are gone."""
    try:
        report = Report.model_validate_json((folder / _LAST).read_bytes())
    except (OSError, ValidationError):
        return None
    files = [path for one in (report.served or {}).values() for path in one.files.values()]
    return report if all(path.exists() for path in files) else None
