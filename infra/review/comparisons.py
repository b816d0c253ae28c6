"""Which of several answers is right: what the gate asks people, and what each of them said.

Decision: a question is a trace of its own in the project's experiment, for the Review page shows a trace's two
previews and nothing else. Its id begins so that nobody takes it for an answer of the agent (`is_comparison`); what
was asked stands first in a log that labelling rights do not reach, and only who completed the item was asked. Which
version gave which answer is written nowhere that a reviewer sees.
"""

import json
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import mlflow
from mlflow.entities import Assessment, AssessmentSource, Feedback, TraceInfo
from mlflow.genai.label_schemas import InputCategorical, InputText
from mlflow.genai.review_queues import ReviewQueue, ReviewQueueItem, set_review_queue_item_status
from pydantic import Field

from ratchet.agent.errors import BadInput, CorruptRecord
from ratchet.agent.record import Record, as_text, content_hash
from ratchet.evaluation.data.labels import ANONYMOUS
from ratchet.evaluation.gate.questions import Outcome, Question, Reply
from ratchet.infra.mlflow_client import Connection, connect, mlflow_errors
from ratchet.infra.registry.log import append_event, read_events
from ratchet.infra.review.comparison_trace import QUESTION, write_comparisons
from ratchet.infra.review.queue import Asked, ensure_queue, find_queue, queue_items, queue_up
from ratchet.infra.traces.arrivals import infos_of, traces_of
from ratchet.infra.traces.feedback import COMMENT
from ratchet.infra.traces.spans import comparison_id, mlflow_id, own_id

LOG: Final = "compare"
"""Name of the log of what was asked."""
QUEUE: Final = "compare"
SEVERAL: Final = "compare several"
"""The queues: of two answers, and of more, for which MLflow's page needs another question."""
WHICH: Final = "Which answer is right?"
WHICH_OF_SEVERAL: Final = "Which answers are right?"
BETTER: Final = "Or write the right answer"
_LETTERS: Final = ("A", "B", "C", "D", "E", "F", "G", "H")
_BOTH, _NEITHER, _SKIP, _UNCLEAR = "both", "neither", "skip, somebody else shall say", "rubric unclear"
_ASKED_FIRST_LAST: Final = (
    Asked(COMMENT, "feedback", InputText(), "Anything that the next person should know (optional)."),
    Asked(BETTER, "feedback", InputText(), "Where neither is right; leave it empty otherwise."),
)
_PORTION: Final = 500
_MOST_SKIPS: Final = 3
"""Reviewers who may pass a question on; after that it stays unanswered."""
_APART: Final = timedelta(minutes=1)
"""What one person wrote within it is one reply."""


class _Event(Record):
    """One line of the log."""

    asked: dict[str, str] = Field(default_factory=dict)
    """Question id → digest of the question as it was first asked, in the order of asking."""
    passed: tuple[Reply, ...] = ()
    """Replies that judge nothing, whose question went to the next reviewer."""


def ask_comparisons(project: str, questions: Sequence[Question]) -> None:
    """Ask people; a question that was asked before keeps its place and the order of its answers.

    A repeat after a kill asks what the first call left out.

    Raises:
        ServiceUnavailable: MLflow did not answer; the same call again asks the rest.
    """
    wanted = {question.question_id: question for question in questions}
    if not wanted:
        return
    with mlflow_errors(f"asking people to compare {len(wanted)} answers"):
        connection = connect(project)
        log = _read_log(connection)
        new = [one for one in wanted.values() if one.question_id not in log.asked]
        for start in range(0, len(new), _PORTION):
            asked = {one.question_id: _digest(one) for one in new[start : start + _PORTION]}
            _append(connection, _Event(asked=asked))
        ids = {one: mlflow_id(comparison_id(project, one)) for one in wanted}
        known = {info.trace_id for info in infos_of(connection, list(ids.values()))}
        write_comparisons(connection, [one for name, one in wanted.items() if ids[name] not in known])
        for name, several in ((QUEUE, False), (SEVERAL, True)):
            its = [ids[one] for one, question in wanted.items() if (len(question.answers) > 2) is several]
            if its:
                queue_up(ensure_queue(connection, name, _questions(several)), its)


def _questions(several: bool) -> tuple[Asked, ...]:
    """What the page asks; the last stands first on it."""
    if several:  # MLflow takes ten options: who would skip submits without an answer
        options = InputCategorical(options=[*_LETTERS, _NEITHER, _UNCLEAR], multi_select=True)
        which = Asked(WHICH_OF_SEVERAL, "feedback", options, "All that are right, or as good as each other.")
    else:
        options = InputCategorical(options=["LEFT", "RIGHT", _BOTH, _NEITHER, _SKIP, _UNCLEAR])
        which = Asked(WHICH, "feedback", options, "Right, or the better one.")
    return (*_ASKED_FIRST_LAST, which)


def _digest(question: Question) -> str:
    return content_hash(question.model_dump(mode="json"))


class _Log:
    """What stands in the log."""

    def __init__(self, events: Iterable[_Event]) -> None:
        self.asked: dict[str, str] = {}
        self.passed: list[Reply] = []
        for event in events:
            self.asked = self.asked | {k: v for k, v in event.asked.items() if k not in self.asked}
            self.passed += event.passed


def _read_log(connection: Connection) -> _Log:
    texts = read_events(connection, LOG)
    return _Log(_Event.from_json(text, where=f"{connection.project}-{LOG}") for text in texts)


def _append(connection: Connection, event: _Event) -> None:
    append_event(
        connection, LOG, event.to_json(), about="Which answers people were asked to compare; none is deleted."
    )


def pending_comparisons(project: str) -> list[Question]:
    """What waits for a person, in the order of asking.

    Raises:
        CorruptRecord: a question is no longer the one that was asked.
    """
    with mlflow_errors("reading what waits to be compared"):
        connection = connect(project)
        log = _read_log(connection)
        waiting = {own_id(item.item_id) for _, item in _items(connection, "pending")}
        return _questions_of(
            connection, log, [one for one in log.asked if comparison_id(connection.project, one) in waiting]
        )


def _items(connection: Connection, status: Any = None) -> list[tuple[ReviewQueue, ReviewQueueItem]]:
    queues = [found for name in (QUEUE, SEVERAL) if (found := find_queue(connection, name)) is not None]
    return [(queue, item) for queue in queues for item in queue_items(queue, status)]


def _questions_of(connection: Connection, log: _Log, question_ids: Sequence[str]) -> list[Question]:
    ids = [mlflow_id(comparison_id(connection.project, one)) for one in question_ids]
    found = traces_of(connection, ids, include_spans=True)
    questions = []
    for question_id, trace_id in zip(question_ids, ids, strict=True):
        spans = found[trace_id].data.spans if trace_id in found else []
        text = next((s.attributes.get(QUESTION) for s in spans if s.parent_id is None), None)
        where = f"MLflow trace {trace_id}"
        if text is None:
            raise CorruptRecord(f"{where}: the question {question_id} is gone; restore MLflow's database")
        question = Question.from_json(text if isinstance(text, str) else json.dumps(text), where=where)
        if _digest(question) != log.asked[question_id]:
            raise CorruptRecord(
                f"{where}: the question was changed after it was asked; restore MLflow's database"
            )
        questions.append(question)
    return questions


def read_replies(project: str, question_ids: Collection[str] | None = None) -> list[Reply]:
    """What people said, oldest first: everything that each of them said who completed a question's item.

    Args:
        project: whose questions.
        question_ids: only to these; None = to all that were ever asked.

    Raises:
        ServiceUnavailable: MLflow did not answer.
        CorruptRecord: the log of what was asked was changed.
    """
    with mlflow_errors("reading what people compared"):
        connection = connect(project)
        log = _read_log(connection)
        asked = {
            comparison_id(connection.project, one): one
            for one in log.asked
            if question_ids is None or one in question_ids
        }
        done = [item for _, item in _items(connection) if item.completed_by and own_id(item.item_id) in asked]
        infos = {info.trace_id: info for info in infos_of(connection, [item.item_id for item in done])}
    replies = [one for one in log.passed if question_ids is None or one.question_id in question_ids]
    for item in done:
        question_id = asked[own_id(item.item_id)]
        since = max((one.created_at for one in replies if one.question_id == question_id), default=None)
        replies += _replies(question_id, infos.get(item.item_id), item, since)
    return sorted(replies, key=lambda one: (one.created_at, one.question_id, one.rater))


def _replies(
    question_id: str, info: TraceInfo | None, item: ReviewQueueItem, since: datetime | None
) -> list[Reply]:
    """Of who completed the item; without any answer it was passed on."""
    rater = item.completed_by or ANONYMOUS
    own = [one for one in (info.assessments if info else ()) or () if _is_by(one, rater)]
    said = [one for one in own if one.name in (WHICH, WHICH_OF_SEVERAL, BETTER, COMMENT)]
    new = [one for one in sorted(said, key=_at) if since is None or _at(one) > since]
    rounds: list[dict[str, Assessment]] = []
    for one in new:
        if not rounds or one.name in rounds[-1] or _at(one) - max(map(_at, rounds[-1].values())) > _APART:
            rounds.append({})
        rounds[-1][one.name] = one
    replies = [_reply(question_id, rater, one) for one in rounds if set(one) != {COMMENT}]
    if not replies:
        at = datetime.fromtimestamp((item.completed_time_ms or item.last_update_time_ms) / 1000, UTC)
        comment = str(_value(rounds[-1][COMMENT])) if rounds else ""
        replies = [
            Reply(question_id=question_id, rater=rater, outcome="skip", comment=comment, created_at=at)
        ]
    return replies


def _is_by(assessment: Assessment, rater: str) -> bool:
    source = assessment.source
    return (
        source.source_type == "HUMAN"
        and (source.source_id or ANONYMOUS).strip().casefold() == rater.casefold()
    )


def _at(assessment: Assessment) -> datetime:
    """When it arrived: whoever writes may stamp what he likes, MLflow's own time is the later one."""
    return datetime.fromtimestamp(
        (assessment.last_update_time_ms or assessment.create_time_ms or 0) / 1000, UTC
    )


def _value(assessment: Assessment) -> Any:
    return getattr(assessment, "value", None)


def _reply(question_id: str, rater: str, said: dict[str, Assessment]) -> Reply:
    """A pick stands before a better answer, which is then kept as a comment: a reply holds one of them."""
    picked = next((_value(said[name]) for name in (WHICH, WHICH_OF_SEVERAL) if name in said), None)
    better = str(_value(said[BETTER])).strip() if BETTER in said else ""
    comment = " ".join(
        filter(None, [str(_value(said[COMMENT])) if COMMENT in said else "", *_rationales(said)])
    )
    outcome, good = _picked(picked)
    if outcome == "answered" and good:
        comment, better = "; ".join(filter(None, [comment, better and f"better: {better}"])), ""
    elif better:
        outcome = "answered"
    return Reply(
        question_id=question_id,
        rater=rater,
        outcome=outcome,
        good=good,
        better=better or None,
        comment=comment,
        created_at=max(_at(one) for one in said.values()),
    )


def _rationales(said: dict[str, Assessment]) -> list[str]:
    return [one.rationale for one in said.values() if one.rationale]


def _picked(value: Any) -> tuple[Outcome, tuple[int, ...]]:
    """What was picked: one option or several; nothing that is known is a skip."""
    words = {str(one).strip() for one in (value if isinstance(value, list) else [value])}
    if _UNCLEAR in words:
        return "unclear", ()
    places = {
        "LEFT": (0,),
        "RIGHT": (1,),
        _BOTH: (0, 1),
        **{letter: (n,) for n, letter in enumerate(_LETTERS)},
    }
    good = sorted({place for word in words for place in places.get(word, ())})
    return ("answered" if good or _NEITHER in words else "skip"), tuple(good)


def reply(project: str, said: Reply) -> None:
    """Write one reply as the Review page would; again by the same rater, to correct it.

    Raises:
        BadInput: nobody was asked that, an answer is picked that it does not have, or somebody else answered it.
    """
    with mlflow_errors(f"answering question {said.question_id}"):
        connection = connect(project)
        log = _read_log(connection)
        if said.question_id not in log.asked:
            raise BadInput(
                f"nobody was asked question {said.question_id!r} in {project!r}: see `ratchet label list`"
            )
        (question,) = _questions_of(connection, log, [said.question_id])
        if any(place >= len(question.answers) or place < 0 for place in said.good):
            raise BadInput(f"picked {said.good}: the question has answers 0 to {len(question.answers) - 1}")
        trace_id = mlflow_id(comparison_id(project, said.question_id))
        queue, item = next((q, i) for q, i in _items(connection) if i.item_id == trace_id)
        by = (item.completed_by or said.rater).casefold()
        if by != said.rater.strip().casefold():
            raise BadInput(f"question {said.question_id} was answered by {item.completed_by!r} already")
        _write(question, trace_id, said)
        set_review_queue_item_status(
            queue.queue_id, item_id=trace_id, status="complete", completed_by=said.rater
        )


def _write(question: Question, trace_id: str, said: Reply) -> None:
    """The pick first: what stands after it, up to the next pick, is the same reply's."""
    several = len(question.answers) > 2
    told: list[tuple[str, Any]] = []
    if said.outcome != "skip" or not several:
        told.append((WHICH_OF_SEVERAL if several else WHICH, _words(question, said)))
    told += [(BETTER, as_text(said.better))] if said.better is not None else []
    told += [(COMMENT, said.comment)] if said.comment else []
    for name, value in told:
        feedback = Feedback(name=name, value=value, source=AssessmentSource("HUMAN", said.rater))
        mlflow.log_assessment(trace_id, feedback)


def _words(question: Question, said: Reply) -> str | list[str]:
    if said.outcome != "answered":
        word = _SKIP if said.outcome == "skip" else _UNCLEAR
    elif len(question.answers) > 2:
        return [_LETTERS[place] for place in said.good] or [_NEITHER]
    else:
        word = {(): _NEITHER, (0,): "LEFT", (1,): "RIGHT"}.get(tuple(sorted(said.good)), _BOTH)
    return [word] if len(question.answers) > 2 else word
