"""Where MLflow is reached: one connection per project, and one place that says that it did not answer.

Why every adapter goes through here: an MLflow that is down, locked or full must look the same to all of them,
`ServiceUnavailable`, so that the caller can keep what it was about to send.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.entities import PagedList
from mlflow.tracing import context
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from ratchet.agent.errors import BadInput, ServiceUnavailable, said
from ratchet.infra.settings import Settings, prepare_environment
from ratchet.infra.stack.mlflow_database import ensure_database

FoundT = TypeVar("FoundT")

_DATABASES: Final = ("sqlite", "postgresql", "mysql", "mssql")
_CALLER_AT_FAULT: Final = {
    "INVALID_PARAMETER_VALUE",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
    "INVALID_STATE",
    "PERMISSION_DENIED",
    "CUSTOMER_UNAUTHORIZED",
    "UNAUTHENTICATED",
}


@dataclass(frozen=True)
class Connection:
    """MLflow's client for one project; the project's experiment exists."""

    project: str
    experiment_id: str
    client: MlflowClient
    settings: Settings

    @property
    def is_server(self) -> bool:
        """Behind http(s), as opposed to a database that this process writes itself."""
        return self.settings.tracking_uri.startswith("http")

    @property
    def is_sqlite(self) -> bool:
        """A SQLite file that this process writes itself."""
        return self.settings.tracking_uri.startswith("sqlite")

    @property
    def n_parallel(self) -> int:
        """How many calls at a time are worth it: SQLite takes one writer."""
        return 8 if self.is_server else 1


def connect(project: str) -> Connection:
    """Reach MLflow and make sure that the project's experiment is there; call it in `mlflow_errors`."""
    prepare_environment()
    settings = Settings()
    uri = settings.tracking_uri
    if not uri.startswith(("http://", "https://", *_DATABASES)):
        raise BadInput(
            f"tracking URI {without_password(uri)!r} is neither a server (http, https) nor a database "
            f"({', '.join(_DATABASES)}): set MLFLOW_TRACKING_URI, or unset it for the local default"
        )
    settings.made_home()
    ensure_database(settings)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    client = MlflowClient(uri, uri)
    return Connection(project, _experiment(client, project, settings), client, settings)


def _experiment(client: MlflowClient, project: str, settings: Settings) -> str:
    known = client.get_experiment_by_name(project)
    if known is not None:
        return str(known.experiment_id)
    local = settings.tracking_uri.startswith("sqlite")
    location = (settings.home / "artifacts" / project).as_uri() if local else None
    try:
        return str(client.create_experiment(project, artifact_location=location))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        other = client.get_experiment_by_name(project)  # another process was first
        if other is None:
            raise
        return str(other.experiment_id)


def all_pages(search: Callable[..., PagedList[FoundT]], *given: Any, **asked: Any) -> list[FoundT]:
    """What one of MLflow's searches finds, page by page to the last."""
    page = search(*given, **asked)
    found = list(page)
    while page.token:
        page = search(*given, **asked, page_token=page.token)
        found += page
    return found


def untraced() -> AbstractContextManager[None]:
    """Within, MLflow keeps no trace, whoever makes one."""
    return context(enabled=False)


@contextmanager
def mlflow_errors(doing: str) -> Iterator[None]:
    """Turn MLflow's exceptions into ours; `doing` completes "while …".

    Raises:
        ServiceUnavailable: MLflow, its database or its disk did not take the call; it may be repeated.
        BadInput: MLflow refused what was given.
    """
    try:
        yield
    except MlflowException as error:
        if error.error_code in _CALLER_AT_FAULT:
            raise BadInput(f"MLflow refused while {doing}: {said(error)}") from error
        raise _unavailable(doing, error) from error
    except (SQLAlchemyError, OSError) as error:
        raise _unavailable(doing, error) from error


def _unavailable(doing: str, error: Exception) -> ServiceUnavailable:
    return ServiceUnavailable(
        f"MLflow at {without_password(Settings().tracking_uri)} did not answer while {doing}: {said(error)}; "
        "see that it runs and its disk has room (`ratchet doctor`), then repeat"
    )


def without_password(uri: str) -> str:
    """The URI without its password."""
    if uri.startswith("http"):
        scheme, _, rest = uri.partition("://")
        return f"{scheme}://{rest.rpartition('@')[2]}"
    if not uri.startswith(_DATABASES):
        return uri
    return make_url(uri).render_as_string(hide_password=True)
