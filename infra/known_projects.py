"""Which projects the store knows, and where people review; looking creates nothing.

Why not `connect`: that makes the project's experiment, and a mistyped name must not become one.
"""

from pathlib import Path
from typing import Final, get_args

from mlflow import MlflowClient
from sqlalchemy.engine import make_url

from ratchet.infra.mlflow_client import all_pages, connect, mlflow_errors
from ratchet.infra.registry.log import LogName
from ratchet.infra.settings import Settings, prepare_environment

LOCAL_SERVER: Final = "http://127.0.0.1:5001"
"""Where `ratchet up` serves MLflow unless told otherwise."""


def known_projects() -> list[str]:
    """Names of the projects with a registered version, in alphabetical order; their logs are left out."""
    prepare_environment()
    uri = Settings().tracking_uri
    if uri.startswith("sqlite") and not _database_exists(uri):
        return []
    with mlflow_errors("listing the projects"):
        found = all_pages(MlflowClient(uri, uri).search_registered_models, max_results=1000)
    names = {model.name for model in found}
    return sorted(names - {f"{name}-{log}" for name in names for log in get_args(LogName)})


def _database_exists(uri: str) -> bool:
    path = make_url(uri).database
    return path is not None and Path(path).exists()


def review_page(project: str, server: str | None = None) -> str:
    """Address of the project's Review page in MLflow's own pages.

    Args:
        project: whose queue.
        server: where MLflow's pages are; by default the tracking server, or that of `ratchet up`.
    """
    with mlflow_errors("finding the Review page"):
        connection = connect(project)
    uri = connection.settings.tracking_uri
    base = server or (uri if connection.is_server else LOCAL_SERVER)
    return f"{base.rstrip('/')}/#/experiments/{connection.experiment_id}/review-queue"
