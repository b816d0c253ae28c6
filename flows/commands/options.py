"""Options that mean the same in every command."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

Folder: TypeAlias = Annotated[
    Path, typer.Option("--project", help="Folder with project.py, or ratchet.toml.")
]
Name: TypeAlias = Annotated[
    str | None, typer.Option("--name", help="Name in MLflow, instead of a folder; the demo's is `demo`.")
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Person: TypeAlias = Annotated[
    str, typer.Option("--by", envvar=["RATCHET_USER", "USER"], help="Who decides; recorded for good.")
]

CURRENT_FOLDER = Path()
"""Where a command looks for `project.py` unless told otherwise."""
