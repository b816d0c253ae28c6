"""What people answered, and which of it may judge.

Why decided when labels are used and not when they are read: an item may be completed after its answer was collected.
"""

import json
from collections import defaultdict
from collections.abc import Sequence

from ratchet.agent.record import Json, Record
from ratchet.evaluation.data.labels import ANONYMOUS, Label, one_per_rater
from ratchet.infra.mlflow_client import Connection, connect, mlflow_errors
from ratchet.infra.review.queue import existing_queue, queue_items, read_picks, trace_infos
from ratchet.infra.traces.assessments import to_labels
from ratchet.infra.traces.spans import own_id


def finished(project: str) -> list[Label]:
    """People's labels on completed items, settled as by `effective_labels`; contradictions are kept."""
    with mlflow_errors("reading finished reviews"):
        connection = connect(project)
        queue = existing_queue(connection)
        items = [] if queue is None else queue_items(connection, queue, "complete")
        infos = trace_infos(connection, [own_id(item.item_id) for item in items])
        labels = [one for info in infos.values() for one in to_labels(info)[0] if one.source == "human"]
        return _settle(connection, labels)


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
    items = [] if queue is None or not picks else queue_items(connection, queue, "complete")
    answered_by = {own_id(item.item_id): (item.completed_by or ANONYMOUS).casefold() for item in items}

    def settle(label: Label) -> Label:
        if label.source != "human":
            return label
        propensity, rater = picks.get(label.trace_id), label.rater.strip().casefold() or ANONYMOUS
        asked = propensity is not None and answered_by.get(label.trace_id) == rater
        return label.model_copy(update={"propensity": propensity, "asked": asked})

    return one_per_rater([settle(label) for label in labels])


class Contradiction(Record):
    """People gave different answers; all labels stand."""

    trace_id: str
    answers: dict[str, Json]
    """Rater → expected answer (or score, where no answer was given)."""


def contradictions(labels: Sequence[Label]) -> list[Contradiction]:
    """Traces on which people do not agree; what to do about them is for a person to say."""
    by_trace: dict[str, dict[str, Json]] = defaultdict(dict)
    for label in labels:
        if label.source == "human":
            key = (
                label.rater
                if label.rater not in by_trace[label.trace_id]
                else f"{label.rater} ({label.label_id})"
            )
            by_trace[label.trace_id][key] = label.expected if label.expected is not None else label.score
    return [
        Contradiction(trace_id=trace_id, answers=said)
        for trace_id, said in by_trace.items()
        if len({json.dumps(one, sort_keys=True) for one in said.values()}) > 1
    ]
