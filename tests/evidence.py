"""A challenger's evidence as the gate writes it: a test opened and closed in the ledger, then its verdict."""

from ratchet.evaluation.data.intervals import Interval, mean_interval
from ratchet.evaluation.data.labels import Label
from ratchet.evaluation.gate.verdict import Verdict
from ratchet.infra.mlflow_client import connect
from ratchet.infra.registry.event_log import LedgerEvent, read_log
from ratchet.infra.registry.ledger import close_ledger_test, open_ledger_test
from ratchet.infra.registry.registry import record_evaluation
from ratchet.infra.review.answers import effective_labels
from ratchet.infra.review.queue import existing_queue, queue_items, trace_infos
from ratchet.infra.traces.assessments import to_labels
from ratchet.infra.traces.spans import own_id


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


def finished(project: str) -> list[Label]:
    """People's labels on the items that they completed, as they count; contradictions are kept."""
    queue = existing_queue(connect(project))
    items = [] if queue is None else queue_items(queue, "complete")
    infos = trace_infos(connect(project), [own_id(item.item_id) for item in items])
    labels = [one for info in infos.values() for one in to_labels(info)[0]]
    return effective_labels(project, [one for one in labels if one.source == "human"])
