"""What people are asked, and what they answered: one MLflow review queue per project.

Why MLflow's own queue: its Review page works without another service, and since state lives there no
process waits while people work. The probability with which a trace was picked is written on it before it is
queued, so that an answer given on the page, which knows nothing of it, still carries it.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Literal

from mlflow.entities import AssessmentSource, Expectation, TraceInfo
from mlflow.exceptions import MlflowException
from mlflow.genai.label_schemas import InputText
from mlflow.genai.review_queues import ReviewQueue
from pydantic import Field

from agent.errors import BadInput
from agent.record import Json, Record
from evaluation.label import Label
from infra.assessments import ASKED, COMMENT, EXPECTED, to_labels
from infra.trace_spans import mlflow_id, own_id
from infra.tracking import Connection, connect, mlflow_errors

QUEUE: Final = "review"
_QUESTIONS: Final = (
    (
        EXPECTED,
        "expectation",
        "What should the agent have answered? Write the tool's name, or the answer itself. "
        "The request and the agent's own answer stand in the trace.",
    ),
    (COMMENT, "feedback", "Anything that the next person should know (optional)."),
)
_PAGE: Final = 500
_PARALLEL: Final = 8


class ReviewItem(Record):
    """One trace that a person is asked about."""

    trace_id: str
    propensity: float = Field(gt=0, le=1)
    """Probability with which it was picked; the first pick counts."""
    reason: str
    """Why it is worth a person's time."""


class Contradiction(Record):
    """Two people, or one person twice, gave different answers; both labels stand."""

    trace_id: str
    answers: dict[str, Json]
    """Rater → expected answer (or score, where no answer was given)."""


def ask_people(project: str, items: Sequence[ReviewItem]) -> None:
    """Queue the traces; one that is queued or answered already keeps its place and its propensity.

    Raises:
        BadInput: a trace is not in MLflow; nothing was queued.
    """
    if not items:
        return
    with mlflow_errors(f"queueing {len(items)} traces for review"):
        connection = connect(project)
        queue = _queue(connection)
        there = {own_id(item_id) for item_id in _item_ids(connection, queue)}
        new = {item.trace_id: item for item in items if item.trace_id not in there}
        known = _infos(connection, list(new))
        unknown = sorted(set(new) - set(known))
        if unknown:
            raise BadInput(
                f"{len(unknown)} of {len(new)} traces are not in MLflow, {unknown[0]} for one: log them first"
            )
        if new:
            _mark(connection, list(new.values()))
            connection.tracing._add_items_to_review_queue(
                queue.queue_id, item_ids=[mlflow_id(trace_id) for trace_id in new]
            )


def _queue(connection: Connection) -> ReviewQueue:
    found = _existing_queue(connection)
    if found is not None:
        return found
    try:
        return connection.tracing._create_review_queue(
            connection.experiment_id,
            name=QUEUE,
            queue_type="custom",
            users=["default"],
            schema_ids=_schema_ids(connection),
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return connection.tracing._get_review_queue_by_name(connection.experiment_id, QUEUE)


def _existing_queue(connection: Connection) -> ReviewQueue | None:
    try:
        return connection.tracing._get_review_queue_by_name(connection.experiment_id, QUEUE)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _schema_ids(connection: Connection) -> list[str]:
    """The page's two questions; their names are those under which the answers are stored.

    The comment is a question of its own because MLflow reads an expectation back without its rationale.
    """
    known = {one.name: one for one in connection.tracing._list_label_schemas(connection.experiment_id)}
    ids = []
    for name, kind, instruction in _QUESTIONS:
        schema = known.get(name) or connection.tracing._create_label_schema(
            connection.experiment_id, name=name, type=kind, input=InputText(), instruction=instruction
        )
        ids.append(str(schema.schema_id))
    return ids


def _item_ids(
    connection: Connection,
    queue: ReviewQueue,
    status: Literal["pending", "complete", "declined"] | None = None,
) -> list[str]:
    """MLflow's ids of the queue's traces, in the order in which they were queued."""
    found: list[str] = []
    token = None
    while True:
        page = connection.tracing._list_review_queue_items(
            queue.queue_id, status=status, max_results=_PAGE, page_token=token
        )
        found += [item.item_id for item in page]
        token = page.token
        if not token:
            return found[::-1]


def _infos(connection: Connection, trace_ids: Sequence[str]) -> dict[str, TraceInfo]:
    infos: list[TraceInfo] = []
    for start in range(0, len(trace_ids), _PAGE):
        batch = [mlflow_id(one) for one in trace_ids[start : start + _PAGE]]
        infos += connection.tracing.store.batch_get_trace_infos(batch)
    return {own_id(info.trace_id): info for info in infos if info.experiment_id == connection.experiment_id}


def _mark(connection: Connection, items: Sequence[ReviewItem]) -> None:
    def mark(item: ReviewItem) -> None:
        connection.tracing.store.set_trace_tag(mlflow_id(item.trace_id), ASKED, _asked(item))

    workers = _PARALLEL if connection.is_server else 1  # SQLite takes one writer at a time
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(mark, items))


def _asked(item: ReviewItem) -> str:
    return json.dumps({"propensity": item.propensity, "reason": item.reason[:4000]})


def pending(project: str) -> list[ReviewItem]:
    """What waits for a person, oldest first."""
    return _items(project, "pending")


def declined(project: str) -> list[ReviewItem]:
    """What a person refused to answer: it stays unlabelled, and its share of the sample is missing."""
    return _items(project, "declined")


def _items(project: str, status: Literal["pending", "declined"]) -> list[ReviewItem]:
    with mlflow_errors("reading the review queue"):
        connection = connect(project)
        queue = _existing_queue(connection)
        ids = [] if queue is None else [own_id(one) for one in _item_ids(connection, queue, status)]
        infos = _infos(connection, ids)
    return [_item(infos[trace_id]) for trace_id in ids if trace_id in infos]


def _item(info: TraceInfo) -> ReviewItem:
    asked = json.loads(info.tags.get(ASKED) or '{"propensity": 1.0, "reason": "added by hand"}')
    return ReviewItem(trace_id=own_id(info.trace_id), **asked)


def answer(project: str, trace_id: str, *, expected: str, rater: str, comment: str = "") -> None:
    """Answer one queued trace, writing what the Review page writes: a person's expectation, item completed.

    A rater who answers again corrects the earlier answer, which stays readable as overridden.

    Raises:
        BadInput: the trace is not in the queue, or the answer is empty.
    """
    if not expected.strip() or not rater.strip():
        raise BadInput(
            f"answer {expected!r} by {rater!r}: both must hold text; decline the item on the Review page"
        )
    with mlflow_errors(f"answering trace {trace_id}"):
        connection = connect(project)
        queue = _existing_queue(connection)
        if queue is None or mlflow_id(trace_id) not in _item_ids(connection, queue):
            raise BadInput(
                f"trace {trace_id} is not in the review queue of {project!r}: only queued traces are answered"
            )
        said = Expectation(
            trace_id=mlflow_id(trace_id),
            name=EXPECTED,
            value=expected,
            source=AssessmentSource("HUMAN", rater),
        )
        said.metadata = {"comment": comment} if comment else None
        said.overrides = _earlier(connection, trace_id, rater)
        connection.tracing.store.create_assessment(said)
        connection.tracing._set_review_queue_item_status(
            queue.queue_id, item_id=mlflow_id(trace_id), status="complete", completed_by=rater
        )


def _earlier(connection: Connection, trace_id: str, rater: str) -> str | None:
    for said in _infos(connection, [trace_id])[trace_id].assessments or []:
        if said.name == EXPECTED and said.valid is not False and said.source.source_id == rater:
            return said.assessment_id
    return None


def finished(project: str) -> list[Label]:
    """People's labels on completed items, each with the propensity of its pick; contradictions are kept."""
    with mlflow_errors("reading finished reviews"):
        connection = connect(project)
        queue = _existing_queue(connection)
        ids = [] if queue is None else [own_id(one) for one in _item_ids(connection, queue, "complete")]
        infos = _infos(connection, ids)
    labels = [label for info in infos.values() for label in to_labels(info)[0] if label.source == "human"]
    return sorted(labels, key=lambda label: (label.created_at, label.label_id))


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
