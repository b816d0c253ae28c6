"""Several aliases and tags of one model move as one: all, or none.

Why a journal on the model itself: MLflow moves one alias at a time. What was there before is written down
first; a move that fails puts it back at once, and one that was killed is put back by the next that comes.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from mlflow.entities.model_registry import RegisteredModel
from mlflow.exceptions import MlflowException

from infra.tracking import Connection

CHAMPION: Final = "champion"
PREVIOUS: Final = "previous"
CHALLENGER: Final = "challenger"
CANARY: Final = "canary"
_JOURNAL: Final = "unfinished_move"


def move_aliases(
    connection: Connection, aliases: Mapping[str, int | None], tags: Mapping[int, Mapping[str, str]]
) -> None:
    """Point each alias to its version (None removes it) and set the versions' tags, or change nothing.

    Raises:
        MlflowException: a step failed; what was there before is back, or comes back at the next move.
    """
    client, name = connection.client, connection.project
    before = _state(connection, aliases, tags)
    client.set_registered_model_tag(name, _JOURNAL, json.dumps(before))
    try:
        for tagged, values in tags.items():
            for key, value in values.items():
                client.set_model_version_tag(name, str(tagged), key, value)
        for alias, number in aliases.items():
            _point(connection, alias, number)
        client.delete_registered_model_tag(name, _JOURNAL)
    except BaseException:
        undo_unfinished_move(connection)
        raise


def undo_unfinished_move(connection: Connection) -> None:
    """Put back what a move that did not end had changed; call it with the project's lock held."""
    written = _model(connection).tags.get(_JOURNAL)
    if not written:
        return
    before = json.loads(written)
    client, name = connection.client, connection.project
    for alias, number in before["aliases"].items():
        _point(connection, alias, number)
    for number, values in before["tags"].items():
        for key, value in values.items():
            if value is None:
                client.delete_model_version_tag(name, number, key)
            else:
                client.set_model_version_tag(name, number, key, value)
    client.delete_registered_model_tag(name, _JOURNAL)


def current_aliases(connection: Connection) -> dict[str, int]:
    """Alias to version number; empty where nothing was registered yet."""
    try:
        aliases = _model(connection).aliases
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return {}
    return {alias: int(number) for alias, number in aliases.items()}


def _state(
    connection: Connection, aliases: Mapping[str, int | None], tags: Mapping[int, Mapping[str, str]]
) -> dict[str, Any]:
    pointed = current_aliases(connection)
    versions = {n: connection.client.get_model_version(connection.project, str(n)).tags for n in tags}
    return {
        "aliases": {alias: pointed.get(alias) for alias in aliases},
        "tags": {n: {key: versions[n].get(key) for key in values} for n, values in tags.items()},
    }


def _point(connection: Connection, alias: str, number: int | None) -> None:
    if number is None:
        if alias in current_aliases(connection):
            connection.client.delete_registered_model_alias(connection.project, alias)
        return
    connection.client.set_registered_model_alias(connection.project, alias, str(number))


def _model(connection: Connection) -> RegisteredModel:
    return connection.client.get_registered_model(connection.project)
