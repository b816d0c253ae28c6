"""What the log says of a proven challenger that waits for people: who may approve it, who did, and until when.

Why all of it in the log: the same for every home, for the terminal, for Prefect and for code; and an approval counts
for the proof that it was given to, never for a later one of the same candidate.
"""

from ratchet.agent.risk import risk_of
from ratchet.evaluation.gate.approval import Approval, ApprovalSettings, Waiting, one_each
from ratchet.evaluation.gate.ledger import Entry, last_test
from ratchet.infra.mlflow_client import Connection
from ratchet.infra.registry.event_log import LedgerEvent, Log
from ratchet.infra.registry.ledger import ledger_of
from ratchet.infra.registry.version import Listing, read_candidate


def policy_of(log: Log) -> ApprovalSettings:
    """Who may approve, as the project's file said at the last run that read it."""
    said = [event.policy for event in log.events if event.policy is not None]
    return said[-1] if said else ApprovalSettings()


def waiting_for(connection: Connection, log: Log, chosen: Listing, serving: Listing) -> Waiting | None:
    """How the approval of `chosen` stands; None while no closed test proves it against `serving`."""
    test = last_test(ledger_of(log), chosen.candidate_id, serving.candidate_id)
    if test is None or not test.proven or test.closed_at is None:
        return None
    since = _since(log, test)
    policy = policy_of(log)
    risk = risk_of(read_candidate(connection, serving), read_candidate(connection, chosen))
    told = [event.at for event in since if event.kind == "remind"]
    said_no = [f"{event.by}: {event.reason}" for event in since if event.kind == "decline"]
    said_yes = (
        Approval(by=event.by, at=event.at, via=event.via or "code", reason=event.reason)
        for event in since
        if event.kind == "approve" and policy.may(risk, event.by)
    )
    return Waiting(
        candidate_id=chosen.candidate_id,
        champion=serving.candidate_id,
        risk=risk,
        policy=policy,
        proven_at=test.closed_at,
        approvals=one_each(said_yes),
        declined=said_no[0] if said_no else "",
        told_at=told[-1] if told else None,
    )


def _since(log: Log, test: Entry) -> list[LedgerEvent]:
    """What was said of this challenger since the test ended."""
    of_it = (test.candidate, test.champion)
    found: list[LedgerEvent] = []
    for event in log.events:
        if (event.candidate, event.champion) == of_it:
            found = [] if event.kind == "close" and event.at == test.closed_at else [*found, event]
    return found
