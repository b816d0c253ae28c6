"""A person's yes or no to a proven challenger: written to the log, and promoted once enough people said yes.

Why one function for terminal, Prefect and code: who may approve is checked here and once more by `promote`, whatever
the way in. A name is what a person says it is where nobody logs in: Prefect's open server knows no people.
"""

from typing import Literal

from ratchet.agent.errors import BadInput
from ratchet.evaluation.gate.approval import ApprovalSettings, Waiting
from ratchet.infra.mlflow_client import Connection, connect, mlflow_errors
from ratchet.infra.registry.alias_moves import current_aliases
from ratchet.infra.registry.alias_names import CHAMPION
from ratchet.infra.registry.event_log import LedgerEvent, append, now, read_log
from ratchet.infra.registry.promotion import promote, require_promotable, require_signed
from ratchet.infra.registry.version import Listing, Version, all_versions, find_version, numbered
from ratchet.infra.registry.waiting import policy_of, waiting_for

Via = Literal["terminal", "prefect", "code"]


def set_policy(project: str, policy: ApprovalSettings) -> None:
    """Let this policy hold from now on; nothing is written where it holds already."""
    with mlflow_errors("reading who may approve"):
        connection = connect(project)
        if policy_of(read_log(connection)) != policy:
            append(connection, LedgerEvent(kind="policy", at=now(), policy=policy))


def waiting_approval(project: str, candidate_id: str) -> Waiting | None:
    """How the approval of the candidate stands; None where nothing proves it against the champion of now."""
    with mlflow_errors(f"reading who approved {candidate_id}"):
        connection = connect(project)
        serving = _serving(connection)
        chosen = find_version(connection, candidate_id)
        if serving is None or serving.candidate_id == candidate_id:
            return None
        return waiting_for(connection, read_log(connection), chosen, serving)


def all_waiting(project: str) -> list[Waiting]:
    """All that are proven against the champion of now and never served, in the order of their registration.

    Those whose proof lapsed are among them: see `Waiting.lapsed`.
    """
    with mlflow_errors("reading who waits for approval"):
        connection = connect(project)
        serving, log = _serving(connection), read_log(connection)
        if serving is None:
            return []
        found = (
            waiting_for(connection, log, one, serving)
            for one in all_versions(connection)
            if one.number != serving.number and not any(event.action == "promoted" for event in one.events)
        )
        return [one for one in found if one is not None]


def lapsed(project: str) -> frozenset[str]:
    """Candidates whose proof counts no more: somebody said no, or nobody approved in time."""
    return frozenset(one.candidate_id for one in all_waiting(project) if one.lapsed(now()))


def declined(project: str) -> frozenset[str]:
    """Candidates to which somebody said no, whatever served then."""
    with mlflow_errors("reading who said no"):
        events = read_log(connect(project)).events
    return frozenset(event.candidate for event in events if event.kind == "decline")


def approve(
    project: str, candidate_id: str, *, by: str, reason: str, via: Via, upstream: str | None = None
) -> Version | None:
    """Say yes in a person's name; None while the policy wants another person's word, too.

    The same person's second yes changes nothing. `upstream`: as `promote` takes it.

    Raises:
        BadInput: `promote` would refuse it, or the policy names others, or the proof lapsed.
    """
    require_signed(by, reason)
    require_promotable(project, candidate_id, by=by)
    waiting = waiting_approval(project, candidate_id)
    if waiting is not None and waiting.missing(by) < waiting.missing():
        _say(project, waiting, "approve", by, reason, via)
    if waiting is not None and waiting.missing(by):
        return None
    return promote(project, candidate_id, approved_by=by, reason=reason, upstream=upstream)


def decline(project: str, candidate_id: str, *, by: str, reason: str, via: Via) -> None:
    """Say no in a person's name: the candidate is not promoted unless it is proven anew.

    Raises:
        BadInput: nothing waits, or the policy names others, or no name or reason is given.
    """
    waiting = waiting_approval(project, candidate_id)
    if waiting is None:
        raise BadInput(f"candidate {candidate_id} waits for nobody's approval: see `ratchet approve`")
    require_signed(by, reason)
    waiting.require(by, now())
    _say(project, waiting, "decline", by, reason, via)


def lapse(project: str, waiting: Waiting, why: str) -> None:
    """Write down that nobody approved in time, so that no later policy calls it back."""
    _say(project, waiting, "decline", "ratchet", why, "code")


def remind(project: str, waiting: Waiting) -> None:
    """Write down that people were told that it is about to lapse."""
    _say(project, waiting, "remind", "ratchet", "", "code")


def _say(
    project: str,
    waiting: Waiting,
    kind: Literal["approve", "decline", "remind"],
    by: str,
    reason: str,
    via: Via,
) -> None:
    with mlflow_errors(f"writing down who decided about {waiting.candidate_id}"):
        event = LedgerEvent(
            kind=kind,
            at=now(),
            candidate=waiting.candidate_id,
            champion=waiting.champion,
            by=by.strip(),
            reason=reason[:1000],
            via=via,
        )
        append(connect(project), event)


def _serving(connection: Connection) -> Listing | None:
    number = current_aliases(connection).get(CHAMPION)
    return None if number is None else numbered(connection, number)
