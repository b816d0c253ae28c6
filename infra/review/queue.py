"""What people are asked, and what they answered: one MLflow review queue per project.

Why MLflow's own queue: its Review page works without another service, and since state lives there no process waits
while people work. Why a log of picks beside it: whoever may label may also write tags, metadata and other people's
names, and put traces into the queue. What was picked, and with which probability, is therefore written first where
labelling rights do not reach (`ratchet.infra.registry.log`), and an answer judges only if its trace was picked and
its rater is who completed the item; behind MLflow's login that is the account, else a claim.
"""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Final, Literal, NamedTuple

import mlflow
from mlflow.entities import AssessmentSource, Expectation, Trace, TraceInfo
from mlflow.exceptions import MlflowException
from mlflow.genai.label_schemas import (
    InputCategorical,
    InputNumeric,
    InputPassFail,
    InputText,
    create_label_schema,
    list_label_schemas,
)
from mlflow.genai.review_queues import (
    ReviewQueue,
    ReviewQueueItem,
    add_items_to_review_queue,
    create_review_queue,
    get_review_queue,
    list_review_queue_items,
    list_review_queues,
    set_review_queue_item_status,
)
from pydantic import Field

from ratchet.agent.errors import BadInput, CorruptRecord
from ratchet.agent.record import Record
from ratchet.evaluation.data.labels import ANONYMOUS
from ratchet.infra.mlflow_client import Connection, all_pages, connect, mlflow_errors
from ratchet.infra.registry.log import append_event, read_events
from ratchet.infra.review.previews import (
    longest_preview,
    request_preview,
    response_preview,
    write_previews,
)
from ratchet.infra.traces.arrivals import infos_of, traces_of
from ratchet.infra.traces.assessments import ASKED
from ratchet.infra.traces.feedback import COMMENT, EXPECTED
from ratchet.infra.traces.markdown import chat_messages_of, first_seen, reply_markdown
from ratchet.infra.traces.read import foreign_of, is_own, record_of
from ratchet.infra.traces.spans import mlflow_id, own_id

QUEUE: Final = "review"
PICKS: Final = "asked"
"""Name of the log of picks."""
InputType = InputCategorical | InputNumeric | InputPassFail | InputText


class Asked(NamedTuple):
    """One thing that the Review page asks; its name is that under which the answer is stored."""

    name: str
    kind: Literal["expectation", "feedback"]
    input: InputType
    instruction: str


_QUESTIONS: Final = (
    Asked(
        EXPECTED,
        "expectation",
        InputText(),
        "What should the agent have answered? Write the tool's name, or the answer itself. "
        "The request and the agent's own answer stand in the trace.",
    ),
    Asked(COMMENT, "feedback", InputText(), "Anything that the next person should know (optional)."),
)
Status = Literal["pending", "complete"]
_PAGE: Final = 500
_SHOWN_AT_ONCE: Final = 100


class ReviewItem(Record):
    """One trace that a person is asked about."""

    trace_id: str
    propensity: float | None = Field(gt=0, le=1)
    """Probability with which it was picked; the first pick counts. None = somebody put it into the queue by hand:
    an answer teaches and does not judge."""
    reason: str
    """Why it is worth a person's time."""


def ask_people(project: str, items: Sequence[ReviewItem]) -> None:
    """Queue the traces; one that is queued or answered already keeps its place and its propensity.

    Raises:
        BadInput: a trace is not in MLflow, or its propensity is not known; nothing was queued.
    """
    if not items:
        return
    by_hand = [item.trace_id for item in items if item.propensity is None]
    if by_hand:
        raise BadInput(f"trace {by_hand[0]} has no propensity: say with which probability it was picked")
    with mlflow_errors(f"queueing {len(items)} traces for review"):
        connection = connect(project)
        queue = ensure_queue(connection, QUEUE, _QUESTIONS)
        there = {own_id(item_id) for item_id in _item_ids(queue)}
        new = {item.trace_id: item for item in items if item.trace_id not in there}
        known = trace_infos(connection, list(new))
        unknown = sorted(set(new) - set(known))
        if unknown:
            raise BadInput(
                f"{len(unknown)} of {len(new)} traces are not in MLflow, {unknown[0]} for one: log them first"
            )
        if new:
            _log_picks(connection, list(new.values()))
            _show(connection, list(new.values()))
            queue_up(queue, [mlflow_id(trace_id) for trace_id in new])


def ensure_queue(
    connection: Connection, name: str, questions: Sequence[Asked], users: Sequence[str] = (ANONYMOUS,)
) -> ReviewQueue:
    """The project's queue of that name, made where it is not there; it keeps the questions that it was made with."""
    found = find_queue(connection, name)
    if found is not None:
        return found
    try:
        made: ReviewQueue = create_review_queue(
            name,
            queue_type="custom",
            users=list(users),
            schema_ids=_schema_ids(connection, questions),
            experiment_id=connection.experiment_id,
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        made = get_review_queue(name=name, experiment_id=connection.experiment_id)
    return made


def existing_queue(connection: Connection) -> ReviewQueue | None:
    """The project's queue of traces; None where nobody was ever asked."""
    return find_queue(connection, QUEUE)


def find_queue(connection: Connection, name: str) -> ReviewQueue | None:
    """The project's queue of that name; None where there is none."""
    try:
        found: ReviewQueue = get_review_queue(name=name, experiment_id=connection.experiment_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return found


def all_queues(connection: Connection) -> list[ReviewQueue]:
    """Every queue of the project."""
    return all_pages(list_review_queues, experiment_id=connection.experiment_id)


def _schema_ids(connection: Connection, questions: Sequence[Asked]) -> list[str]:
    """The page's questions; the newest stands first on it.

    The comment is a question of its own because MLflow reads an expectation back without its rationale.
    """
    known = {one.name: one for one in list_label_schemas(connection.experiment_id)}
    ids = []
    for name, kind, of, instruction in questions:
        schema = known.get(name) or create_label_schema(
            name,
            type=kind,
            input=of,
            instruction=instruction,
            experiment_id=connection.experiment_id,
        )
        ids.append(str(schema.schema_id))
    return ids


def _item_ids(queue: ReviewQueue, status: Status | None = None) -> list[str]:
    """MLflow's ids of the queue's traces."""
    return [item.item_id for item in queue_items(queue, status)]


def queue_up(queue: ReviewQueue, item_ids: Sequence[str]) -> None:
    """Put traces into the queue; one that is there keeps its place.

    In portions: 5,000 in one call take a minute, and MLflow's client waits no longer than two.
    """
    for start in range(0, len(item_ids), _PAGE):
        add_items_to_review_queue(queue.queue_id, item_ids=list(item_ids[start : start + _PAGE]))


def queue_items(queue: ReviewQueue, status: Status | None = None) -> list[ReviewQueueItem]:
    """What is or was in the queue, in the order in which it was queued."""
    return all_pages(list_review_queue_items, queue.queue_id, status=status, max_results=_PAGE)[::-1]


def trace_infos(connection: Connection, trace_ids: Sequence[str]) -> dict[str, TraceInfo]:
    """What MLflow knows of those of the traces that are this project's, by our id."""
    infos = infos_of(connection, [mlflow_id(one) for one in trace_ids])
    return {own_id(info.trace_id): info for info in infos}


def _log_picks(connection: Connection, items: Sequence[ReviewItem]) -> None:
    for start in range(0, len(items), _PAGE):
        picks = {item.trace_id: item.propensity for item in items[start : start + _PAGE]}
        append_event(
            connection,
            PICKS,
            json.dumps(picks),
            about="Which traces people were asked about; none is deleted.",
        )


def read_picks(connection: Connection) -> dict[str, float]:
    """Trace id → propensity of its first pick, for all that people were ever asked about."""
    picks: dict[str, float] = {}
    for text in read_events(connection, PICKS):
        picks = json.loads(text) | picks
    return picks


def asked_before(project: str) -> set[str]:
    """Traces that people were asked about, answered or not."""
    with mlflow_errors("reading what people were asked"):
        connection = connect(project)
        queue = existing_queue(connection)
        queued = [] if queue is None else queue_items(queue)
        return set(read_picks(connection)) | {own_id(item.item_id) for item in queued}


def _show(connection: Connection, items: Sequence[ReviewItem]) -> None:
    """Write what the page shows of each: the conversation, what the agent did, and why somebody is asked."""
    for start in range(0, len(items), _SHOWN_AT_ONCE):
        batch = items[start : start + _SHOWN_AT_ONCE]
        found = traces_of(connection, [mlflow_id(item.trace_id) for item in batch], include_spans=True)
        read = [found[mlflow_id(item.trace_id)] for item in batch]
        with ThreadPoolExecutor(connection.n_parallel) as pool:
            list(pool.map(partial(_show_one, connection), batch, read))


def _show_one(connection: Connection, item: ReviewItem, found: Trace) -> None:
    """One that cannot be read keeps the previews that it has."""
    request, response, limit = None, None, longest_preview(connection)
    with suppress(CorruptRecord):
        trace = record_of(found.info.trace_id, found) if is_own(found) else foreign_of(found)
        messages = chat_messages_of(trace.case, first_seen(trace))
        request = request_preview(messages, limit)
        response = response_preview(messages, reply_markdown(trace), item.reason, limit)
    write_previews(connection, found.info, request=request, response=response, tags={ASKED: _asked(item)})


def _asked(item: ReviewItem) -> str:
    return json.dumps({"propensity": item.propensity, "reason": item.reason[:4000]})


def pending(project: str) -> list[ReviewItem]:
    """What waits for a person, oldest first."""
    return _items(project, "pending")


def _items(project: str, status: Status) -> list[ReviewItem]:
    with mlflow_errors("reading the review queue"):
        connection = connect(project)
        queue = existing_queue(connection)
        ids = [] if queue is None else [own_id(one) for one in _item_ids(queue, status)]
        infos = trace_infos(connection, ids)
        picks = read_picks(connection) if ids else {}
    return [_item(infos[one], picks.get(one)) for one in ids if one in infos]


def _item(info: TraceInfo, propensity: float | None) -> ReviewItem:
    return ReviewItem(
        trace_id=own_id(info.trace_id),
        propensity=propensity,
        reason="added by hand" if propensity is None else _reason(info.tags.get(ASKED, "")),
    )


def _reason(tag: str) -> str:
    """Why it was picked, for a person to read; the tag may be gone or anybody's."""
    try:
        return str(json.loads(tag)["reason"])
    except (ValueError, KeyError, TypeError):
        return "picked; its reason is no longer on the trace"


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
        queue = existing_queue(connection)
        if queue is None or mlflow_id(trace_id) not in _item_ids(queue):
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
        mlflow.log_assessment(mlflow_id(trace_id), said)
        set_review_queue_item_status(
            queue.queue_id, item_id=mlflow_id(trace_id), status="complete", completed_by=rater
        )


def _earlier(connection: Connection, trace_id: str, rater: str) -> str | None:
    for said in trace_infos(connection, [trace_id])[trace_id].assessments or []:
        if said.name == EXPECTED and said.valid is not False and said.source.source_id == rater:
            return said.assessment_id
    return None
