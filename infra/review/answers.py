"""What people answered, and which of it may judge.

Why decided when labels are used and not when they are read: an item may be completed after its answer was collected.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from itertools import combinations

from ratchet.agent.record import Json
from ratchet.evaluation.data.labels import ANONYMOUS, Label, contradict, one_per_rater
from ratchet.infra.mlflow_client import Connection, connect, mlflow_errors
from ratchet.infra.review.queue import existing_queue, queue_items, read_picks
from ratchet.infra.traces.spans import own_id


def effective_labels(project: str, labels: Sequence[Label]) -> list[Label]:
    """The labels as they count, oldest first: a person's newest word on each trace, and whether it was asked for.

    `propensity` is that of the trace's pick, whatever was said before, and `asked` holds for the answer of the
    rater who completed the queued item. Labels of judges and environments come back as they are.

    Raises:
        ServiceUnavailable: MLflow did not answer.
        CorruptRecord: the log of picks was changed.
    """
    if not any(label.source == "human" for label in labels):
        return list(labels)
    with mlflow_errors("reading what people were asked"):
        return _settle(connect(project), labels)


def _settle(connection: Connection, labels: Sequence[Label]) -> list[Label]:
    picks, queue = read_picks(connection), existing_queue(connection)
    items = [] if queue is None or not picks else queue_items(queue, "complete")
    answered_by = {own_id(item.item_id): (item.completed_by or ANONYMOUS).casefold() for item in items}

    def settle(label: Label) -> Label:
        if label.source != "human":
            return label
        propensity, rater = picks.get(label.trace_id), label.rater.strip().casefold() or ANONYMOUS
        asked = propensity is not None and answered_by.get(label.trace_id) == rater
        return label.model_copy(update={"propensity": propensity, "asked": asked})

    return one_per_rater([settle(label) for label in labels])


def contradictions(labels: Sequence[Label], free: Collection[str] = ()) -> dict[str, dict[str, Json]]:
    """Trace → rater → answer (a score, where none was given) where people do not agree; all labels stand.

    Args:
        labels: what people said.
        free: traces whose answers are text or JSON, which may say the same in other words.
    """
    by_trace: dict[str, dict[str, Json]] = defaultdict(dict)
    for label in labels:
        if label.source == "human":
            said = by_trace[label.trace_id]
            key = f"{label.rater} ({label.label_id})" if label.rater in said else label.rater
            said[key] = label.expected if label.expected is not None else label.score
    return {
        trace_id: said
        for trace_id, said in by_trace.items()
        if any(contradict(one, other, free=trace_id in free) for one, other in combinations(said.values(), 2))
    }
