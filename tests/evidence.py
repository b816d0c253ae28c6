"""A challenger's evidence as the gate writes it: a test opened and closed in the ledger, then its verdict."""

from ratchet.evaluation.data.intervals import Interval, mean_interval
from ratchet.evaluation.gate.verdict import Verdict
from ratchet.infra.mlflow_client import connect
from ratchet.infra.registry.event_log import LedgerEvent, read_log
from ratchet.infra.registry.ledger import close_ledger_test, open_ledger_test
from ratchet.infra.registry.registry import record_evaluation


def give_verdict(
    project: str,
    candidate_id: str,
    champion: str,
    verdict: Verdict,
    scores: dict[str, Interval] | None = None,
) -> None:
    """Ledger first, then the verdict."""
    open_ledger_test(project, candidate_id, champion=champion)
    close_ledger_test(
        project, candidate_id, champion=champion, decision=verdict.decision, e_value=verdict.e_value
    )
    found = {"a": mean_interval([1.0, 0.0])} if scores is None else scores
    record_evaluation(project, candidate_id, scores=found, verdict=verdict, compared_with=champion)


def ledger_events(project: str) -> list[LedgerEvent]:
    """The log of who did what, oldest first."""
    return list(read_log(connect(project)).events)
