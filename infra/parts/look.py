"""One look at MLflow for a process that serves: whose parts these are, which versions the aliases point to.

Why not `connect`: this is the user's process. Nothing global of MLflow's changes in it (tracking address, limits),
and nothing is created there but the cache below the home.
"""

import json
import logging
import os
import tempfile
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import Final

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from ratchet.agent.candidate import plain_name
from ratchet.agent.part_values import PartValues, load_memories
from ratchet.infra.mlflow_client import Connection, all_pages
from ratchet.infra.parts.serving import Asked, Known, ServedVersion, Serving
from ratchet.infra.registry.alias_moves import current_aliases
from ratchet.infra.registry.alias_names import CHALLENGER, CHAMPION
from ratchet.infra.registry.prompts import part_tag, prompts_of
from ratchet.infra.registry.version import numbered, read_candidate
from ratchet.infra.registry.version_files import files_of
from ratchet.infra.settings import Settings
from ratchet.infra.text_embedding import embedding_named

_ANSWER: Final = (CHAMPION, CHALLENGER)
_BY_NAME: Final = ("model", "examples")
"""Kinds of part that no version needs to name: the project's of that name, or of the process's other parts."""
logger = logging.getLogger(__name__)


def look_at_mlflow(settings: Settings, asked: Collection[Asked], known: Known) -> Known:
    """What MLflow says now; of what is known, projects and versions are kept, as they do not change."""
    client = _client(settings.tracking_uri, os.getpid())
    projects = {one: known.projects.get(one) or _project_of(client, settings, one) for one in sorted(asked)}
    others = set(projects.values()) - {None}
    if len(others) == 1:
        projects |= {
            one: next(iter(others)) for one in projects if one.kind in _BY_NAME and not projects[one]
        }
    serving = {}
    for name in others:
        if name is not None and (found := _serving(client, settings, name, known.serving.get(name))):
            serving[name] = found
    return Known(projects, serving)


def open_store(uri: str) -> None:
    """Get ready to ask: a database is looked through and set up by MLflow when it is first asked for anything."""
    _opened(uri, os.getpid())


@lru_cache(maxsize=2)
def _opened(uri: str, pid: int) -> None:
    client = _client(uri, pid)
    if not uri.startswith("http"):
        client.search_registered_models(max_results=1)


@lru_cache(maxsize=2)
def _client(uri: str, pid: int) -> MlflowClient:
    """`pid`: a client's connections do not outlive a fork."""
    return MlflowClient(uri, uri)


def _project_of(client: MlflowClient, settings: Settings, asked: Asked) -> str | None:
    if settings.project:
        return settings.project
    if asked.kind == "module":
        return asked.name
    having = f"tags.`{part_tag(asked.name)}` LIKE '%'"
    found = [model.name for model in all_pages(client.search_registered_models, having)]
    if not found and asked.kind in _BY_NAME:
        found = [
            model.name
            for model in all_pages(client.search_registered_models, f"name = '{plain_name(asked.name)}'")
        ]
    if len(found) > 1 and (here := _experiment(client)) in found:
        found = [here]
    if len(found) > 1:
        _warn_ambiguous(asked, tuple(sorted(found)))
    return found[0] if len(found) == 1 else None


def _experiment(client: MlflowClient) -> str:
    """The experiment that this process logs to, as it said in the environment or by `mlflow.set_experiment`."""
    if name := os.environ.get("MLFLOW_EXPERIMENT_NAME"):
        return name
    number = os.environ.get("MLFLOW_EXPERIMENT_ID")
    return str(client.get_experiment(number).name) if number else ""


@lru_cache(maxsize=100)
def _warn_ambiguous(asked: Asked, projects: tuple[str, ...]) -> None:
    """Once for each part."""
    logger.warning(
        "part %r keeps its default: projects %s have a part of that name; set RATCHET_PROJECT to yours",
        asked.name,
        " and ".join(projects),
    )


def _serving(
    client: MlflowClient, settings: Settings, project: str, before: Serving | None
) -> Serving | None:
    """None where the project has no version yet."""
    experiment = client.get_experiment_by_name(project)
    if experiment is None:
        return None
    connection = Connection(project, str(experiment.experiment_id), client, _with_cache(settings))
    try:
        aliases = current_aliases(connection)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    kept = {} if before is None else before.versions
    pointed = {aliases[alias] for alias in _ANSWER if alias in aliases}
    return Serving(project, aliases, {n: kept.get(n) or _version(connection, n) for n in pointed})


def _version(connection: Connection, number: int) -> ServedVersion:
    found = numbered(connection, number)
    candidate = read_candidate(connection, found)
    files = files_of(connection, found, candidate, below="memory")
    linked = [{"name": name, "version": str(version)} for name, version in prompts_of(found).items()]
    memories = load_memories(candidate, files, embedding_named)
    return ServedVersion(number, PartValues(candidate, memories), json.dumps(linked), files)


def _with_cache(settings: Settings) -> Settings:
    """With a home that can be written: a container's disk may be read-only."""
    try:
        settings.made_home()
        with tempfile.TemporaryFile(dir=settings.home):
            return settings
    except OSError:
        return settings.model_copy(update={"home": _scratch(os.getpid())})


@lru_cache(maxsize=1)
def _scratch(pid: int) -> Path:
    return Path(tempfile.mkdtemp(prefix=f"ratchet-{pid}-"))
