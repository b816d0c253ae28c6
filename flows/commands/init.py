"""`ratchet init DIR`: a project of the user's own that runs as it is, and is then theirs to change.

Decision: a copy of one support desk (its requests, who solved them, a scripted endpoint) and of one agent for it, and
not a generator: what a newcomer reads is what was tested.
"""

import re
import shutil
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated, Final

import typer

from ratchet.agent.errors import BadInput
from ratchet.agent.project import PROJECT_FILE, load_project
from ratchet.flows.commands.options import AsJson
from ratchet.flows.commands.terminal import console, emit_json

_TEMPLATE_NAME: Final = "my_agent"
_DESK: Final = "desk"
_LEFT_OUT: Final = ("__pycache__", "*.pyc", ".ratchet")


def init(
    folder: Annotated[Path, typer.Argument(help="Where the project will lie; new, or empty.")],
    name: Annotated[str | None, typer.Option(help="Name in MLflow; by default the folder's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a project of your own that runs as it is.

    An agent that sends support requests to the team that solves them.
    """
    chosen = _project_name(name, folder)
    _refuse_occupied(folder)
    copy_template(folder)
    path = folder / PROJECT_FILE
    path.write_text(path.read_text().replace(f'"{_TEMPLATE_NAME}"', f'"{chosen}"'))
    project = load_project(folder)
    if as_json:
        emit_json({"folder": str(folder.resolve()), "project": project.name})
        return
    console.print(f"[green]✓[/] {project.name}: {len(project.traffic())} requests wait in {folder}")
    console.print(f"next: `cd {folder} && ratchet improve`; README.md there says how to make it yours")


def copy_template(folder: Path) -> None:
    """The desk, and the agent for it, as they lie in the package."""
    with as_file(files("ratchet.flows") / "template") as template:
        for part in (_DESK, "options"):
            ignored = shutil.ignore_patterns(*_LEFT_OUT)
            shutil.copytree(template / part, folder, dirs_exist_ok=True, ignore=ignored)


def _project_name(name: str | None, folder: Path) -> str:
    """As given, or the folder's name as MLflow takes it."""
    text = folder.resolve().name if name is None else name
    allowed = re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-_")[:63]
    if not allowed or name not in (None, allowed):
        hint = f": {allowed!r} would do" if allowed else ""
        raise BadInput(
            f"{text!r} is no project name{hint}; --name takes 1–63 lower-case letters, digits, - and _"
        )
    return allowed


def _refuse_occupied(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder} is not empty: nothing was written; give a new folder")
