"""Who serves: the champion moves forward by a verdict and a person's name, and back by one command.

Why the verdict is checked here again: this is the only door, and what it must never let through is a
challenger without evidence against the champion that serves *now*.
"""

from collections.abc import Sequence
from typing import Final

from ratchet.agent.errors import BadInput
from ratchet.evaluation.gate.approval import Approval, one_each
from ratchet.evaluation.gate.ledger import last_test
from ratchet.evaluation.gate.verdict import SAID
from ratchet.infra.mlflow_client import Connection, connect, mlflow_errors
from ratchet.infra.registry.alias_moves import Move, current_aliases, move_in_turn, settle
from ratchet.infra.registry.alias_names import CANARY, CHALLENGER, CHAMPION, PREVIOUS
from ratchet.infra.registry.event_log import now, read_log
from ratchet.infra.registry.ledger import ledger_of
from ratchet.infra.registry.probes import prove_version
from ratchet.infra.registry.prompts import follow_champion
from ratchet.infra.registry.version import (
    MOVE,
    Event,
    Listing,
    MoveKind,
    Version,
    all_versions,
    find_or_none,
    find_version,
    locked,
    numbered,
    read_evaluation,
    read_version,
)
from ratchet.infra.registry.waiting import waiting_for

_LEAVES: Final = {CHALLENGER, CANARY}
_COMES: Final = {"promoted", "restored"}
"""Moves onto `champion`."""
_LONGEST: Final = 1000
"""Characters of name and reason, so that a move fits a tag of MLflow however they are escaped."""


def promote(
    project: str, candidate_id: str, *, approved_by: str, reason: str, upstream: str | None = None
) -> Version:
    """Make the candidate the champion; the one before becomes `previous`.

    Args:
        project: Registered model.
        candidate_id: What is to serve.
        approved_by: Who says so; recorded for good.
        reason: Why.
        upstream: Of a chat endpoint the address at which its adapter must answer; left out, the candidate's.

    Raises:
        BadInput: no verdict says `promote`, or the one that does compared it with another champion, or the
            ledger holds no closed test that bears it out (the very first champion needs none), or one served
            before and none does now, or nobody's name or no reason was given; or the project's policy names other
            people, or one more, or the proof lapsed; or another model answers where its adapter is asked.
        ServiceUnavailable: MLflow, or the server of its adapter, does not answer.
    """
    require_signed(approved_by, reason)
    prove_version(project, candidate_id, upstream=upstream)
    with mlflow_errors(f"promoting {candidate_id}"):
        connection = connect(project)

        def plan() -> Move | None:
            chosen = find_version(connection, candidate_id)
            aliases = current_aliases(connection)
            serving = aliases.get(CHAMPION)
            if serving == chosen.number:
                return None
            old = _refuse_unpromotable(connection, chosen, serving)
            names = _refuse_unapproved(connection, chosen, old, approved_by) if old else approved_by
            moves = {PREVIOUS: serving, CHAMPION: chosen.number}
            moves |= {alias: None for alias in _LEAVES if aliases.get(alias) == chosen.number}
            tags = _events(chosen, old, ("promoted", "replaced"), names, reason)
            return Move(candidate_id, moves, tags, "promote")

        with locked(connection):
            move_in_turn(connection, plan)
            follow_champion(connection)
        return read_version(connection, find_version(connection, candidate_id))


def settle_moves(project: str) -> None:
    """Put back what a move of the champion that was killed had changed, before anybody reads which versions served.

    The prompts' aliases follow, should a kill or a person have left one behind.

    Raises:
        ServiceUnavailable: MLflow did not answer.
    """
    with mlflow_errors("settling moves of the champion"):
        connection = connect(project)
        with locked(connection):
            settle(connection)
            follow_champion(connection)


def require_promotable(project: str, candidate_id: str, *, by: str = "") -> None:
    """Do nothing if `promote` would accept the candidate as the evidence stands now; moves nothing.

    Args:
        project: Registered model.
        candidate_id: What is to serve.
        by: Whose yes is to count; left out, nobody's is looked at.

    Raises:
        BadInput: what `promote` would raise, but for a yes that is still missing.
    """
    with mlflow_errors(f"looking at the evidence of {candidate_id}"):
        connection = connect(project)
        chosen = find_version(connection, candidate_id)
        serving = current_aliases(connection).get(CHAMPION)
        if serving == chosen.number:
            return
        old = _refuse_unpromotable(connection, chosen, serving)
        waiting = old and waiting_for(connection, read_log(connection), chosen, old)
        if waiting:
            waiting.require(by or None, now())


def require_first_day(project: str) -> None:
    """Do nothing if no version ever served: only then may one serve without evidence.

    Raises:
        BadInput: one did, and the alias that said which is gone.
    """
    with mlflow_errors("looking for an earlier champion"):
        _refuse_without_champion(connect(project))


def _refuse_without_champion(connection: Connection) -> None:
    versions = all_versions(connection)
    if not any(one.events or one.facts.get("parent") for one in versions):
        return
    back = _served_last(versions)
    remedy = (
        f'`ratchet rollback --yes --reason "…"` puts {back.candidate_id} back, which served last'
        if back is not None
        else "what served is no longer registered: restore the database, or begin a project of another name"
    )
    raise BadInput(f"{connection.project!r} has versions but no champion, its alias was removed: {remedy}")


def _served_last(versions: Sequence[Listing]) -> Listing | None:
    """The version whose last move was onto `champion`; if that one is gone, the newest that was ever moved."""
    moved = [(one, one.events[-1]) for one in versions if one.events]
    if not moved:
        return None
    return max(moved, key=lambda move: (move[1].action in _COMES, move[1].at))[0]


def require_signed(by: str, reason: str) -> None:
    """Do nothing if there is a name and a reason; BadInput otherwise: both are recorded for good."""
    if not by.strip() or not reason.strip():
        raise BadInput(f"by {by!r}, reason {reason!r}: a move of the champion needs a name and a reason")
    if len(by) + len(reason) > _LONGEST:
        raise BadInput(
            f"name and reason have {len(by) + len(reason)} characters, at most {_LONGEST} are kept: shorten them"
        )


def _refuse_unpromotable(connection: Connection, chosen: Listing, serving: int | None) -> Listing | None:
    """The champion that would be replaced; None on the first day."""
    if serving is None:
        _refuse_without_champion(connection)
        return None
    old = numbered(connection, serving)
    _refuse_unproven(connection, chosen, old)
    return old


def _refuse_unproven(connection: Connection, chosen: Listing, old: Listing) -> None:
    candidate, serves = chosen.candidate_id, old.candidate_id
    evaluation = read_evaluation(connection, chosen)
    verdict = evaluation.verdict
    if verdict is None or verdict.decision != "promote":
        said = (
            f"its verdict says {SAID[verdict.decision]}: {verdict.reason}" if verdict else "it has no verdict"
        )
        raise BadInput(f"candidate {candidate} is not promoted: {said}; gather more evidence first")
    if evaluation.compared_with != serves:
        raise BadInput(
            f"candidate {candidate} was compared with {evaluation.compared_with}, but {serves} serves now: "
            "evaluate it against that one first"
        )
    test = last_test(ledger_of(read_log(connection)), candidate, serves)
    if test is None or not test.proven:
        said = (
            "holds no test of it"
            if test is None
            else f"says {SAID[test.decision] if test.decision else 'that its test is open'}, e = {test.e_value}"
        )
        raise BadInput(
            f"candidate {candidate} is not promoted: its verdict says proven, but the ledger {said} against "
            f"{serves}: let `ratchet improve` test it"
        )


def _refuse_unapproved(connection: Connection, chosen: Listing, old: Listing, by: str) -> str:
    """Everybody who approved, of whom the policy may want two."""
    waiting = waiting_for(connection, read_log(connection), chosen, old)
    if waiting is None:
        return by
    waiting.require(by, now())
    if missing := waiting.missing(by):
        raise BadInput(
            f"candidate {chosen.candidate_id} is not promoted: {missing} more must approve a change of "
            f"{waiting.risk} ({waiting.policy.who(waiting.risk)}): `ratchet approve`"
        )
    return ", ".join(one.by for one in one_each([*waiting.approvals, Approval(by=by, at=now())]))


def roll_back(project: str, *, by: str, reason: str) -> Version:
    """Put the champion before the present one back; again, and the one before that.

    Where no champion stands though one served, the one that served last comes back.

    Raises:
        BadInput: there is no earlier champion.
    """
    require_signed(by, reason)
    with mlflow_errors("rolling back"):
        connection = connect(project)
        chosen: list[str] = []

        def plan() -> Move:
            serving, back = _serving_and_back(connection)
            chosen[:] = [back.candidate_id]
            moves = {CHAMPION: back.number, PREVIOUS: _predecessor(connection, back)}
            tags = _events(back, serving, ("restored", "rolled back"), by, reason)
            return Move(chosen[0], moves, tags, "roll back")

        with locked(connection):
            move_in_turn(connection, plan)
            follow_champion(connection)
        return read_version(connection, find_version(connection, chosen[0]))


def rollback_target(project: str) -> tuple[Version | None, Version]:
    """The champion (None = its alias is gone) and the version that `roll_back` would put in its place.

    Raises:
        BadInput: there is no earlier champion.
    """
    with mlflow_errors("looking for an earlier champion"):
        connection = connect(project)
        serving, back = _serving_and_back(connection)
        return None if serving is None else read_version(connection, serving), read_version(connection, back)


def _serving_and_back(connection: Connection) -> tuple[Listing | None, Listing]:
    aliases = current_aliases(connection)
    found = {a: numbered(connection, aliases[a]) for a in (CHAMPION, PREVIOUS) if a in aliases}
    serving = found.get(CHAMPION)
    back = found.get(PREVIOUS) if serving is not None else _served_last(all_versions(connection))
    if back is None:
        raise BadInput(
            f"{connection.project!r} has no earlier champion to roll back to: see `ratchet history`"
        )
    return serving, back


def _predecessor(connection: Connection, version: Listing) -> int | None:
    """The version that this one replaced when it was promoted."""
    replaced = [event.other for event in version.events if event.action == "promoted" and event.other]
    found = find_or_none(connection, replaced[-1]) if replaced else None
    return None if found is None else found.number


def _events(
    forward: Listing, back: Listing | None, words: tuple[MoveKind, MoveKind], by: str, reason: str
) -> dict[str, dict[str, str]]:
    """This move as a tag of both versions' runs."""
    at = now()
    tags = {}
    for version, action, other in ((forward, words[0], back), (back, words[1], forward)):
        if version is not None:
            event = Event(action=action, at=at, by=by, reason=reason, other=other and other.candidate_id)
            tags[version.run_id] = {f"{MOVE}{len(version.events) + 1:04d}": event.to_json()}
    return tags
