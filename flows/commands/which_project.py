"""Which project, and which of its versions, a command speaks of.

Why a name is enough: what was learned lies in MLflow, and must be readable where the user's code is not.
"""

from pathlib import Path

from ratchet.agent.errors import BadInput
from ratchet.agent.project import PROJECT_FILE, has_project, load_project
from ratchet.flows.commands.options import CURRENT_FOLDER
from ratchet.infra.known_projects import known_projects
from ratchet.infra.registry.version import Version


def which_project(folder: Path, name: str | None) -> str:
    """The project's name in MLflow: as given, or of `project.py`, or of the only one that there is.

    Raises:
        BadInput: no such project, or several and none was named; says which there are.
    """
    if name is None and (folder != CURRENT_FOLDER or has_project(folder)):
        return load_project(folder).name
    known = known_projects()
    if name is not None and name not in known:
        raise BadInput(f"no project {name!r} in MLflow; {_listed(known)}")
    if name is None and len(known) != 1:
        raise BadInput(
            f"no {PROJECT_FILE} in {folder.resolve()}, and {_listed(known)}: "
            "go to your project's folder, or give --project DIR or --name NAME"
        )
    return name or known[0]


def _listed(known: list[str]) -> str:
    return f"known: {', '.join(known)}" if known else "nothing was registered yet"


def which_version(versions: list[Version], text: str) -> Version:
    """The version with this number (`3` or `v3`), candidate id, or beginning of one.

    Raises:
        BadInput: none, or several.
    """
    number = text.removeprefix("v")
    found = [v for v in versions if v.candidate_id == text or str(v.number) == number]
    if not found and len(text) >= 4:
        found = [v for v in versions if v.candidate_id.startswith(text)]
    if len(found) != 1:
        what = "several candidates begin with" if found else "no candidate is"
        raise BadInput(f"{what} {text!r}: see `ratchet history`")
    return found[0]


def called(version: Version) -> str:
    """A version's short name: `v3 1a2b3c4d`."""
    return f"v{version.number} {version.candidate_id[:8]}"
