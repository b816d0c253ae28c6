"""Several aliases of a model, and tags of its versions' runs, move as one, or not at all; and one move at a time,
from whatever home.

Why a journal on the model itself: MLflow moves one alias at a time. What was there before is written down first; a
move that fails puts it back at once, and one that was killed is put back by the next that comes.

Why a claim in the log: MLflow has no lock, and a file's lock ends at this machine. A move claims its turn by an event
that names the last claim it saw; the first at its place has it, the other looks again. What MLflow cannot give: a
home that stands still for longer than `PATIENCE_S` in the middle of its move counts as killed. It looks before each
alias that it moves, but between that look and that move nothing can hold it.
"""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from mlflow.entities.model_registry import RegisteredModel
from mlflow.exceptions import MlflowException

from ratchet.agent.errors import ServiceUnavailable
from ratchet.infra.home_id import home_id
from ratchet.infra.mlflow_client import Connection
from ratchet.infra.registry.event_log import LedgerEvent, Log, append, now, read_log

PATIENCE_S: Final = 30.0
"""How long a move of another home may take."""
_JOURNAL: Final = "unfinished_move"
_ENDED: Final = "last_move"
"""Tag: place of the newest claim whose move has ended, done or undone."""
_TURNS: Final = 5


class Move(NamedTuple):
    """What is to change: alias to version (None removes it), and tags of runs."""

    candidate: str
    aliases: Mapping[str, int | None]
    tags: Mapping[str, Mapping[str, str]]
    why: str


def move_in_turn(connection: Connection, plan: Callable[[], Move | None]) -> None:
    """Carry out what `plan` says, seen at this move's turn; call it with the home's lock held.

    Args:
        connection: Project whose aliases move.
        plan: Looks at what stands and refuses or decides; called again if another home was first. None = nothing
            is to be done.

    Raises:
        MlflowException: a step failed; what was there before is back, or comes back at the next move.
        ServiceUnavailable: other homes were first again and again, or put this move back as dead.
    """
    for _ in range(_TURNS):
        seen = settle(connection)
        move = plan()
        if move is None:
            return
        place = append(
            connection,
            LedgerEvent(
                kind="claim",
                at=now(),
                candidate=move.candidate,
                reason=move.why,
                home=home_id(connection.settings.home),
                after_claim=seen,
            ),
        )
        if _last_claim(read_log(connection).up_to(place)) == place:
            _move(connection, place, move)
            return
    raise ServiceUnavailable(
        f"{connection.project}: other homes moved the champion {_TURNS} times meanwhile; repeat"
    )


def _last_claim(log: Log) -> int:
    """Place of the newest claim that had its turn; 0 if there was none."""
    last = 0
    for place, event in enumerate(log.events, start=1):
        if event.kind == "claim" and event.after_claim == last:
            last = place
    return last


def settle(connection: Connection) -> int:
    """Let a move of another home end, or put back what one that was killed had changed; returns the last claim."""
    until = time.monotonic() + PATIENCE_S
    while True:
        log = read_log(connection)
        last = _last_claim(log)
        if last == 0 or last <= _ended(connection):
            _undo(connection, last)  # a journal that is left is an older version's
            return last
        # this home's own move: its lock is ours, so whoever held it is dead
        dead = log.events[last - 1].home == home_id(connection.settings.home)
        if dead or time.monotonic() > until:
            _undo(connection, last)
            return last
        time.sleep(0.1)


def _move(connection: Connection, place: int, move: Move) -> None:
    client, name = connection.client, connection.project
    client.set_registered_model_tag(name, _JOURNAL, json.dumps(_state(connection, move)))
    try:
        for run_id, values in move.tags.items():
            for key, value in values.items():
                client.set_tag(run_id, key, value)
        for alias, number in move.aliases.items():
            if _ended(connection) >= place:
                raise ServiceUnavailable(
                    f"{name}: this move took longer than {PATIENCE_S:g} s and another home put it back; repeat"
                )
            point(connection, alias, number)
        client.delete_registered_model_tag(name, _JOURNAL)
        client.set_registered_model_tag(name, _ENDED, str(place))
    except BaseException:
        if _ended(connection) < place:
            _undo(connection, place)
        raise


def _undo(connection: Connection, place: int) -> None:
    """Put back what a move that did not end had changed, and mark it ended."""
    client, name = connection.client, connection.project
    written = _tags(connection).get(_JOURNAL)
    if written:
        before = json.loads(written)
        for alias, number in before["aliases"].items():
            point(connection, alias, number)
        for owner, values in before["tags"].items():
            for key, value in values.items():
                _put_back(connection, owner, key, value)
        client.delete_registered_model_tag(name, _JOURNAL)
    if _ended(connection) < place:
        client.set_registered_model_tag(name, _ENDED, str(place))


def _put_back(connection: Connection, owner: str, key: str, value: str | None) -> None:
    """`owner` is a run, or, in the journal of an older Ratchet, the number of a version."""
    client, name = connection.client, connection.project
    if len(owner) < 32:
        if value is None:
            client.delete_model_version_tag(name, owner, key)
        else:
            client.set_model_version_tag(name, owner, key, value)
    elif value is not None:
        client.set_tag(owner, key, value)
    elif key in client.get_run(owner).data.tags:
        client.delete_tag(owner, key)


def current_aliases(connection: Connection) -> dict[str, int]:
    """Alias to version number; empty where nothing was registered yet."""
    model = _model(connection)
    return {} if model is None else {alias: int(number) for alias, number in model.aliases.items()}


def point(connection: Connection, alias: str, number: int | None) -> None:
    """Move one alias, which needs no journal; None removes it."""
    if number is None:
        if alias in current_aliases(connection):
            connection.client.delete_registered_model_alias(connection.project, alias)
        return
    connection.client.set_registered_model_alias(connection.project, alias, str(number))


def _state(connection: Connection, move: Move) -> dict[str, Any]:
    pointed = current_aliases(connection)
    written = {run_id: connection.client.get_run(run_id).data.tags for run_id in move.tags}
    return {
        "aliases": {alias: pointed.get(alias) for alias in move.aliases},
        "tags": {one: {key: written[one].get(key) for key in values} for one, values in move.tags.items()},
    }


def _ended(connection: Connection) -> int:
    return int(_tags(connection).get(_ENDED, "0"))


def _tags(connection: Connection) -> dict[str, str]:
    model = _model(connection)
    return {} if model is None else dict(model.tags)


def _model(connection: Connection) -> RegisteredModel | None:
    try:
        return connection.client.get_registered_model(connection.project)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
