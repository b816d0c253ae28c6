"""`ratchet init DIR`: a project of the user's own that runs as it is, and is then theirs to change.

Decision: a copy of one support desk (its requests, who solved them, a scripted endpoint) and of one kind of agent for
it, and not a generator: what a newcomer reads is what was tested.
"""

import re
import shutil
from enum import StrEnum
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated, Final

import typer

from ratchet.agent.errors import BadInput
from ratchet.agent.project import load_project
from ratchet.flows.commands.options import AsJson
from ratchet.flows.commands.terminal import console, emit_json

_TEMPLATE_NAME: Final = "my_agent"
_DESK: Final = "desk"
_NAMED: Final = ("*.py", "*.toml", "*.md")
_LEFT_OUT: Final = ("__pycache__", "*.pyc", ".ratchet")


class AgentKind(StrEnum):
    """What answers: one folder of the template each."""

    options = "options"
    """Ratchet's own agent, which picks one of the given options."""
    callable = "callable"
    """A Python function that calls an LM by OpenAI's client."""
    dspy = "dspy"
    """A `dspy.Module`."""
    gateway = "gateway"
    """Any OpenAI-compatible client, by its base URL; no Python."""


def init(
    folder: Annotated[Path, typer.Argument(help="Where the project will lie; new, or empty.")],
    name: Annotated[str | None, typer.Option(help="Name in MLflow; by default the folder's.")] = None,
    kind: Annotated[AgentKind, typer.Option(help="What answers.")] = AgentKind.options,
    as_json: AsJson = False,
) -> None:
    """Make a project of your own that runs as it is.

    An agent that sends support requests to the team that solves them.
    """
    chosen = _project_name(name, folder)
    _refuse_occupied(folder)
    copy_template(folder, kind, chosen)
    project = load_project(folder)
    if as_json:
        emit_json({"folder": str(folder.resolve()), "project": project.name, "kind": kind.value})
        return
    console.print(f"[green]✓[/] {project.name}: a project in {folder}; README.md there says how to run it")
    console.print(f"next: `cd {folder}` and {_NEXT[kind]}")


_NEXT: Final = {
    AgentKind.options: "`ratchet improve`",
    AgentKind.callable: "`python scripted_llm.py &`, `python support.py`, `ratchet improve`",
    AgentKind.dspy: "`python scripted_llm.py &`, `python support.py`, `ratchet improve`",
    AgentKind.gateway: "`python scripted_llm.py &`, `ratchet serve`",
}


def copy_template(folder: Path, kind: AgentKind = AgentKind.options, name: str = _TEMPLATE_NAME) -> None:
    """The desk, and the agent for it, as they lie in the package, under the project's own name."""
    with as_file(files("ratchet.flows") / "template") as template:
        for part in (_DESK, kind.value):
            ignored = shutil.ignore_patterns(*_LEFT_OUT)
            shutil.copytree(template / part, folder, dirs_exist_ok=True, ignore=ignored)
    for path in (path for pattern in _NAMED for path in folder.glob(pattern)):
        path.write_text(path.read_text(encoding="utf-8").replace(_TEMPLATE_NAME, name), encoding="utf-8")


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
