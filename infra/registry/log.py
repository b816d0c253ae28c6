"""Append-only logs in MLflow: the versions of a registered model, each of which is one event.

Why a registered model: the number of a version is the database's primary key, so two writers at the same moment
get two different places, on every backend and without a lock. Why its `source`: tags may be rewritten by whoever
may label, a version's source by nobody, so the digest of each event stands there and a rewritten one is noticed.
A deleted version keeps its number, so that is noticed as a gap.
"""

import time
from typing import Any, Final, Literal

from mlflow.exceptions import MlflowException

from ratchet.agent.errors import CorruptRecord, ServiceUnavailable
from ratchet.agent.record import content_hash
from ratchet.infra.mlflow_client import Connection, all_pages

LogName = Literal["ledger", "asked", "watch", "forgotten", "golden", "compare", "judge"]
"""Every log that a project has."""

_EVENT: Final = "event"
_SOURCE: Final = "ratchet-log:///"
_BEFORE_DIGESTS: Final = "ratchet-ledger:///event"
"""Source of the events of an older version; the chain of `event_log` covers them."""
_ATTEMPTS: Final = 10
_PAGE: Final = 1000
_PLACE_TAKEN: Final = ("Model Version creation error", "database is locked")
"""Nothing was written; after any other error something may have been, and a repeat could double it."""


def append_event(connection: Connection, log: LogName, text: str, *, about: str, said: str = "") -> int:
    """Write the event (at most 100,000 characters) at the next free place of `log`, and return the place, from 1.

    Args:
        connection: of the project.
        log: name of the log within the project.
        text: the event.
        about: what the log is for, for a person who meets it in MLflow.
        said: the event in a person's words.
    """
    name = _name(connection, log)
    _ensure_model(connection, name, about)
    for attempt in range(_ATTEMPTS):
        try:
            version = connection.client.create_model_version(
                name, source=_SOURCE + content_hash(text), tags={_EVENT: text}, description=said
            )
        except MlflowException as error:
            if not any(sign in str(error) for sign in _PLACE_TAKEN) or attempt == _ATTEMPTS - 1:
                raise
            time.sleep(0.05 * 2**attempt)  # somebody took the place between MLflow's look and its write
            continue
        return int(version.version)
    raise ServiceUnavailable(f"{name}: no free place after {_ATTEMPTS} attempts; repeat")


def read_events(connection: Connection, log: LogName) -> list[str]:
    """All events of `log` in order: the one at place 1 first; empty where nothing was ever written.

    Raises:
        CorruptRecord: an event was deleted or rewritten.
    """
    name = _name(connection, log)
    found = all_pages(
        connection.client.search_model_versions,
        f"name = '{name}'",
        max_results=_PAGE,
        order_by=["version_number ASC"],
    )
    places = [int(version.version) for version in found]
    if places != list(range(1, len(places) + 1)):
        missing = sorted(set(range(1, places[-1] + 1)) - set(places))
        raise CorruptRecord(f"{name}: version {missing[0]} was deleted; restore MLflow's database")
    return [_checked(name, version) for version in found]


def newest_events(connection: Connection, log: LogName, n: int) -> list[tuple[int, str]]:
    """Place and text of the newest `n` events, newest first: what a reader needs who follows a log.

    Raises:
        CorruptRecord: one of them was rewritten.
    """
    name = _name(connection, log)
    found = connection.client.search_model_versions(
        f"name = '{name}'", max_results=n, order_by=["version_number DESC"]
    )
    return [(int(version.version), _checked(name, version)) for version in found]


def _checked(name: str, version: Any) -> str:
    text = str(version.tags.get(_EVENT, ""))
    if version.source not in (_SOURCE + content_hash(text), _BEFORE_DIGESTS):
        raise CorruptRecord(
            f"{name} version {version.version} was rewritten: its text has digest {content_hash(text)}, "
            f"not {str(version.source).removeprefix(_SOURCE)}; restore MLflow's database"
        )
    return text


def _name(connection: Connection, log: LogName) -> str:
    return f"{connection.project}-{log}"


def _ensure_model(connection: Connection, name: str, about: str) -> None:
    try:
        connection.client.create_registered_model(name, description=about)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
