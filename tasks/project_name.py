"""The name under which a project's folder is known in MLflow."""

from pathlib import Path

from ratchet.agent.project import load_project


def name_of(folder: str) -> str:
    """Read `project.py` in the folder."""
    return load_project(Path(folder)).name
