"""A flow that the server tests deploy: it ends at once and tells which project it was given."""

from pathlib import Path

from prefect import flow


@flow
def touch(project: str = ".") -> str:
    Path(project, "touched").write_text("by the worker")
    return project
