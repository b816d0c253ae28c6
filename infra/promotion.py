"""Who serves: the champion moves forward by a verdict and a person's name, and back by one command.

Why the verdict is checked here again: this is the only door, and what it must never let through is a
challenger without evidence against the champion that serves *now*.
"""

import json
from datetime import UTC, datetime
from typing import Final

from mlflow.entities.model_registry import ModelVersion

from agent.errors import BadInput
from evaluation.ledger import last_test
from infra.alias_moves import (
    CANARY,
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    current_aliases,
    move_aliases,
    undo_unfinished_move,
)
from infra.event_log import read_log
from infra.ledger_store import ledger_of
from infra.tracking import Connection, connect, mlflow_errors
from infra.version import Event, Version, find_version, locked, read_version

_LEAVES: Final = {CHALLENGER, CANARY}


def promote(project: str, candidate_id: str, *, approved_by: str, reason: str) -> Version:
    """Make the candidate the champion; the one before becomes `previous`.

    Raises:
        BadInput: no verdict says `promote`, or the one that does compared it with another champion, or the
            ledger holds no closed test that bears it out (the very first champion needs none), or nobody's
            name or no reason was given.
    """
    _refuse_anonymous(approved_by, reason)
    with mlflow_errors(f"promoting {candidate_id}"):
        connection = connect(project)
        with locked(connection):
            undo_unfinished_move(connection)
            chosen = find_version(connection, candidate_id)
            aliases = current_aliases(connection)
            serving = aliases.get(CHAMPION)
            if serving == int(chosen.version):
                return read_version(connection, chosen)
            old = None if serving is None else connection.client.get_model_version(project, str(serving))
            if old is not None:
                _refuse_unproven(connection, chosen, old)
            moves = {PREVIOUS: serving, CHAMPION: int(chosen.version)}
            moves |= {alias: None for alias in _LEAVES if aliases.get(alias) == int(chosen.version)}
            move_aliases(connection, moves, _events(chosen, old, "promoted", "replaced", approved_by, reason))
        return read_version(connection, find_version(connection, candidate_id))


def require_promotable(project: str, candidate_id: str) -> None:
    """Do nothing if `promote` would accept the candidate as the evidence stands now; moves nothing.

    Raises:
        BadInput: what `promote` would raise.
    """
    with mlflow_errors(f"looking at the evidence of {candidate_id}"):
        connection = connect(project)
        chosen = find_version(connection, candidate_id)
        serving = current_aliases(connection).get(CHAMPION)
        if serving is not None and serving != int(chosen.version):
            old = connection.client.get_model_version(project, str(serving))
            _refuse_unproven(connection, chosen, old)


def _refuse_anonymous(by: str, reason: str) -> None:
    if not by.strip() or not reason.strip():
        raise BadInput(f"by {by!r}, reason {reason!r}: a move of the champion needs a name and a reason")


def _refuse_unproven(connection: Connection, chosen: ModelVersion, old: ModelVersion) -> None:
    candidate, serves = chosen.tags["candidate_id"], old.tags["candidate_id"]
    decision = chosen.tags.get("decision")
    if decision != "promote":
        said = (
            f"its verdict says {decision}: {chosen.tags.get('reason', '')}"
            if decision
            else "it has no verdict"
        )
        raise BadInput(f"candidate {candidate} is not promoted: {said}; gather more evidence first")
    compared = chosen.tags.get("compared_with")
    if compared != serves:
        raise BadInput(
            f"candidate {candidate} was compared with {compared}, but {serves} serves now: "
            "evaluate it against that one first"
        )
    test = last_test(ledger_of(read_log(connection)), candidate, serves)
    if test is None or not test.proven:
        said = (
            "holds no test of it"
            if test is None
            else f"says {test.decision or 'that its test is open'}, e = {test.e_value}"
        )
        raise BadInput(
            f"candidate {candidate} is not promoted: its verdict says promote, but the ledger {said} against "
            f"{serves}: let `ratchet improve` test it"
        )


def rollback(project: str, *, by: str, reason: str) -> Version:
    """Put the champion before the present one back; again, and the one before that.

    Raises:
        BadInput: there is no earlier champion.
    """
    _refuse_anonymous(by, reason)
    with mlflow_errors("rolling back"):
        connection = connect(project)
        with locked(connection):
            undo_unfinished_move(connection)
            aliases = current_aliases(connection)
            if CHAMPION not in aliases or PREVIOUS not in aliases:
                raise BadInput(f"{project!r} has no earlier champion to roll back to: see `ratchet history`")
            serving, back = (
                connection.client.get_model_version(project, str(aliases[alias]))
                for alias in (CHAMPION, PREVIOUS)
            )
            moves = {CHAMPION: int(back.version), PREVIOUS: _predecessor(connection, back)}
            move_aliases(connection, moves, _events(back, serving, "restored", "rolled back", by, reason))
        return read_version(connection, find_version(connection, back.tags["candidate_id"]))


def _predecessor(connection: Connection, version: ModelVersion) -> int | None:
    """The version that this one replaced when it was promoted."""
    replaced = [e["other"] for e in _written(version) if e["action"] == "promoted" and e["other"]]
    return int(find_version(connection, replaced[-1]).version) if replaced else None


def _written(version: ModelVersion) -> list[dict[str, str]]:
    return list(json.loads(version.tags.get("events", "[]")))


def _events(
    forward: ModelVersion, back: ModelVersion | None, comes: str, goes: str, by: str, reason: str
) -> dict[int, dict[str, str]]:
    """The `events` tag of both versions, with this move appended."""
    now = datetime.now(UTC)
    tags = {}
    for version, action, other in ((forward, comes, back), (back, goes, forward)):
        if version is None:
            continue
        event = Event.model_validate(
            {
                "action": action,
                "at": now,
                "by": by,
                "reason": reason,
                "other": other and other.tags["candidate_id"],
            }
        )
        events = [*_written(version), event.model_dump(mode="json")]
        tags[int(version.version)] = {"events": json.dumps(events)}
    return tags
