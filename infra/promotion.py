"""Who serves: the champion moves forward by a verdict and a person's name, and back by one command.

Why the verdict is checked here again: this is the only door, and what it must never let through is a
challenger without evidence against the champion that serves *now*.
"""

import json
from collections.abc import Sequence
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
    Move,
    current_aliases,
    move_in_turn,
    settle,
)
from infra.event_log import read_log
from infra.ledger_store import ledger_of
from infra.tracking import Connection, connect, mlflow_errors
from infra.version import Event, Version, all_versions, find_or_none, find_version, locked, read_version

_LEAVES: Final = {CHALLENGER, CANARY}
_COMES: Final = {"promoted", "restored"}
"""Moves onto `champion`."""


def promote(project: str, candidate_id: str, *, approved_by: str, reason: str) -> Version:
    """Make the candidate the champion; the one before becomes `previous`.

    Raises:
        BadInput: no verdict says `promote`, or the one that does compared it with another champion, or the
            ledger holds no closed test that bears it out (the very first champion needs none), or one served
            before and none does now, or nobody's name or no reason was given.
    """
    _refuse_anonymous(approved_by, reason)
    with mlflow_errors(f"promoting {candidate_id}"):
        connection = connect(project)

        def plan() -> Move | None:
            chosen = find_version(connection, candidate_id)
            aliases = current_aliases(connection)
            serving = aliases.get(CHAMPION)
            if serving == int(chosen.version):
                return None
            old = _refuse_unpromotable(connection, chosen, serving)
            moves = {PREVIOUS: serving, CHAMPION: int(chosen.version)}
            moves |= {alias: None for alias in _LEAVES if aliases.get(alias) == int(chosen.version)}
            tags = _events(chosen, old, "promoted", "replaced", approved_by, reason)
            return Move(candidate_id, moves, tags, "promote")

        with locked(connection):
            move_in_turn(connection, plan)
        return read_version(connection, find_version(connection, candidate_id))


def settle_moves(project: str) -> None:
    """Put back what a move of the champion that was killed had changed, before anybody reads which versions served.

    Raises:
        ServiceUnavailable: MLflow did not answer.
    """
    with mlflow_errors("settling moves of the champion"):
        connection = connect(project)
        with locked(connection):
            settle(connection)


def require_promotable(project: str, candidate_id: str) -> None:
    """Do nothing if `promote` would accept the candidate as the evidence stands now; moves nothing.

    Raises:
        BadInput: what `promote` would raise.
    """
    with mlflow_errors(f"looking at the evidence of {candidate_id}"):
        connection = connect(project)
        chosen = find_version(connection, candidate_id)
        serving = current_aliases(connection).get(CHAMPION)
        if serving != int(chosen.version):
            _refuse_unpromotable(connection, chosen, serving)


def require_first_day(project: str) -> None:
    """Do nothing if no version ever served: only then may one serve without evidence.

    Raises:
        BadInput: one did, and the alias that said which is gone.
    """
    with mlflow_errors("looking for an earlier champion"):
        _refuse_without_champion(connect(project))


def _refuse_without_champion(connection: Connection) -> None:
    versions = all_versions(connection)
    if not any(_written(one) or one.tags.get("parent") for one in versions):
        return
    back = _served_last(versions)
    remedy = (
        f'`ratchet rollback --yes --reason "…"` puts {back.tags["candidate_id"]} back, which served last'
        if back is not None
        else "what served is no longer registered: restore the database, or begin a project of another name"
    )
    raise BadInput(f"{connection.project!r} has versions but no champion, its alias was removed: {remedy}")


def _served_last(versions: Sequence[ModelVersion]) -> ModelVersion | None:
    """The version whose last move was onto `champion`; if that one is gone, the newest that was ever moved."""
    moved = [(one, _written(one)[-1]) for one in versions if _written(one)]
    if not moved:
        return None
    return max(moved, key=lambda m: (m[1]["action"] in _COMES, datetime.fromisoformat(m[1]["at"])))[0]


def _refuse_anonymous(by: str, reason: str) -> None:
    if not by.strip() or not reason.strip():
        raise BadInput(f"by {by!r}, reason {reason!r}: a move of the champion needs a name and a reason")


def _refuse_unpromotable(
    connection: Connection, chosen: ModelVersion, serving: int | None
) -> ModelVersion | None:
    """The champion that would be replaced; None on the first day."""
    if serving is None:
        _refuse_without_champion(connection)
        return None
    old = connection.client.get_model_version(connection.project, str(serving))
    _refuse_unproven(connection, chosen, old)
    return old


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

    Where no champion stands though one served, the one that served last comes back.

    Raises:
        BadInput: there is no earlier champion.
    """
    _refuse_anonymous(by, reason)
    with mlflow_errors("rolling back"):
        connection = connect(project)
        chosen: list[str] = []

        def plan() -> Move:
            serving, back = _serving_and_back(connection)
            chosen[:] = [back.tags["candidate_id"]]
            moves = {CHAMPION: int(back.version), PREVIOUS: _predecessor(connection, back)}
            tags = _events(back, serving, "restored", "rolled back", by, reason)
            return Move(chosen[0], moves, tags, "roll back")

        with locked(connection):
            move_in_turn(connection, plan)
        return read_version(connection, find_version(connection, chosen[0]))


def rollback_target(project: str) -> tuple[Version | None, Version]:
    """The champion (None = its alias is gone) and the version that `rollback` would put in its place.

    Raises:
        BadInput: there is no earlier champion.
    """
    with mlflow_errors("looking for an earlier champion"):
        connection = connect(project)
        serving, back = _serving_and_back(connection)
        return None if serving is None else read_version(connection, serving), read_version(connection, back)


def _serving_and_back(connection: Connection) -> tuple[ModelVersion | None, ModelVersion]:
    aliases = current_aliases(connection)
    found = {
        alias: connection.client.get_model_version(connection.project, str(aliases[alias]))
        for alias in (CHAMPION, PREVIOUS)
        if alias in aliases
    }
    serving = found.get(CHAMPION)
    back = found.get(PREVIOUS) if serving is not None else _served_last(all_versions(connection))
    if back is None:
        raise BadInput(
            f"{connection.project!r} has no earlier champion to roll back to: see `ratchet history`"
        )
    return serving, back


def _predecessor(connection: Connection, version: ModelVersion) -> int | None:
    """The version that this one replaced when it was promoted."""
    replaced = [e["other"] for e in _written(version) if e["action"] == "promoted" and e["other"]]
    found = find_or_none(connection, replaced[-1]) if replaced else None
    return None if found is None else int(found.version)


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
