"""What people are asked, and what they answered: one MLflow review queue per project.

Why MLflow's own queue: its Review page works without another service, and since state lives there no process waits
while people work. Why a log of picks beside it: whoever may label may also write tags, metadata and other people's
names, and put traces into the queue. What was picked, and with which probability, is therefore written first where
labelling rights do not reach (`ratchet.infra.registry.log`), and an answer judges only if its trace was picked and
its rater is who completed the item; behind MLflow's login that is the account, else a claim.
"""

import json
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Final, Literal, NamedTuple

import mlflow
from mlflow.entities import Assessment, AssessmentSource, Expectation, Feedback, Trace, TraceInfo
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
from ratchet.infra.traces.feedback import COMMENT, CORRECT, EXPECTED, SCORE
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
    Asked(COMMENT, "feedback", InputText(), "Anything that the next person should know (optional)."),
    Asked(
        SCORE,
        "feedback",
        InputNumeric(min_value=0, max_value=1),
        "How good was it, from 0 to 1? Only where right or wrong says too little.",
    ),
    Asked(
        EXPECTED,
        "expectation",
        InputText(),
        "What should the agent have answered? The tool's name, or the answer itself. Not needed where it was right.",
    ),
    Asked(CORRECT, "feedback", InputPassFail("right", "wrong"), "Was the agent's answer right?"),
)
"""The last stands first on the page; one answer is enough. A queue keeps the questions that it was made with."""
Status = Literal["pending", "complete"]
_PORTION: Final = 500
_PAGE: Final = 20_000
"""Of a list of items, which is read by its offset: many small pages of a long one take the square of its length."""
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
        wanted = {item.trace_id: item for item in items}
        known = trace_infos(connection, list(wanted))
        unknown = sorted(set(wanted) - set(known))
        if unknown:
            raise BadInput(
                f"{len(unknown)} of {len(wanted)} traces are not in MLflow, {unknown[0]} for one: log them first"
            )
        picks = read_picks(connection)
        _log_picks(connection, [item for one, item in wanted.items() if one not in picks])
        _show(connection, [item for one, item in wanted.items() if ASKED not in known[one].tags])
        queue_up(
            queue, [mlflow_id(one) for one in wanted]
        )  # one that is there keeps its place and its status


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


def queue_up(queue: ReviewQueue, item_ids: Sequence[str]) -> None:
    """Put traces into the queue; one that is there keeps its place.

    In portions: 5,000 in one call take a minute, and MLflow's client waits no longer than two.
    """
    for start in range(0, len(item_ids), _PORTION):
        add_items_to_review_queue(queue.queue_id, item_ids=list(item_ids[start : start + _PORTION]))


def queue_items(queue: ReviewQueue, status: Status | None = None) -> list[ReviewQueueItem]:
    """What is or was in the queue, in the order in which it was queued."""
    return all_pages(list_review_queue_items, queue.queue_id, status=status, max_results=_PAGE)[::-1]


def trace_infos(connection: Connection, trace_ids: Sequence[str]) -> dict[str, TraceInfo]:
    """What MLflow knows of those of the traces that are this project's, by our id."""
    infos = infos_of(connection, [mlflow_id(one) for one in trace_ids])
    return {own_id(info.trace_id): info for info in infos}


def _log_picks(connection: Connection, items: Sequence[ReviewItem]) -> None:
    for start in range(0, len(items), _PORTION):
        picks = {item.trace_id: item.propensity for item in items[start : start + _PORTION]}
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
        for trace_id, propensity in json.loads(text).items():
            picks.setdefault(trace_id, propensity)
    return picks


def asked_before(project: str) -> set[str]:
    """Traces that people were asked about, answered or not.

    Not those that somebody queued by hand: nobody drew them, and a draw may; an answer that is there then counts.
    """
    with mlflow_errors("reading what people were asked"):
        return set(read_picks(connect(project)))


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


def waiting(project: str) -> list[str]:
    """Traces that wait for a person, oldest first."""
    with mlflow_errors("reading the review queue"):
        queue = existing_queue(connect(project))
        return [] if queue is None else [own_id(one.item_id) for one in queue_items(queue, "pending")]


def still_waiting(project: str, trace_ids: Collection[str]) -> set[str]:
    """Those of these traces that wait for a person; of a long queue no more is read than they need."""
    left, found, token = {mlflow_id(one) for one in trace_ids}, set[str](), None
    with mlflow_errors("reading the review queue"):
        queue = existing_queue(connect(project))
        while queue is not None and left:
            page = list_review_queue_items(queue.queue_id, max_results=_PORTION, page_token=token)
            found |= {own_id(one.item_id) for one in page if one.item_id in left and one.status == "pending"}
            left -= {one.item_id for one in page}
            token = page.token
            if not token:
                break
    return found


def pending(project: str, limit: int | None = None) -> list[ReviewItem]:
    """What waits for a person, oldest first; at most `limit`."""
    ids = waiting(project)[:limit]
    with mlflow_errors("reading the review queue"):
        connection = connect(project)
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


def answer(
    project: str,
    trace_id: str,
    *,
    rater: str,
    expected: str = "",
    score: float | None = None,
    comment: str = "",
) -> None:
    """Answer one queued trace, writing what the Review page writes: a person's word, item completed.

    A rater who answers again corrects the earlier answer, which stays readable as overridden.

    Args:
        project: whose queue.
        trace_id: which trace.
        rater: who says it.
        expected: what the agent should have answered; empty = that is not said.
        score: how good its answer was, from 0 to 1; None = that is not said.
        comment: for the next person.

    Raises:
        BadInput: the trace is not in the queue, or nothing was said.
    """
    if not rater.strip() or (not expected.strip() and score is None):
        raise BadInput(
            f"answer {expected!r} by {rater!r}: both must hold text; decline the item on the Review page"
        )
    if score is not None and not 0 <= score <= 1:
        raise BadInput(f"score {score:g}: give a number from 0 (bad) to 1 (good)")
    with mlflow_errors(f"answering trace {trace_id}"):
        connection, item_id = connect(project), mlflow_id(trace_id)
        queue = existing_queue(connection)
        if queue is None or item_id not in (one.item_id for one in queue_items(queue)):
            raise BadInput(
                f"trace {trace_id} is not in the review queue of {project!r}: only queued traces are answered"
            )
        source = AssessmentSource("HUMAN", rater)
        said: list[Assessment] = []
        if score is not None:
            said.append(
                Feedback(trace_id=item_id, name=SCORE, value=score, source=source, rationale=comment or None)
            )
        if expected.strip():
            said.append(Expectation(trace_id=item_id, name=EXPECTED, value=expected, source=source))
            said[-1].metadata = {"comment": comment} if comment else None
        for one in said:
            one.overrides = _earlier(connection, trace_id, one.name, rater)
            mlflow.log_assessment(item_id, one)
        set_review_queue_item_status(queue.queue_id, item_id=item_id, status="complete", completed_by=rater)


def _earlier(connection: Connection, trace_id: str, name: str, rater: str) -> str | None:
    for said in trace_infos(connection, [trace_id])[trace_id].assessments or []:
        if said.name == name and said.valid is not False and said.source.source_id == rater:
            return said.assessment_id
    return None
