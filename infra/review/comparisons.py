"""Which of several answers is right: what the gate asks people, and what each of them said.

Decision: a question is a trace of its own in the project's experiment, for the Review page shows a trace's two
previews and nothing else. Its id begins so that nobody takes it for an answer of the agent (`is_comparison`); what
was asked stands first in a log that labelling rights do not reach, and only who completed the item was asked. Which
version gave which answer is written nowhere that a reviewer sees.
"""

import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final, NamedTuple

import mlflow
from mlflow.entities import Assessment, AssessmentSource, Feedback, TraceInfo
from mlflow.genai.label_schemas import InputCategorical, InputText
from mlflow.genai.review_queues import ReviewQueue, ReviewQueueItem, set_review_queue_item_status

from ratchet.agent.errors import BadInput, CorruptRecord
from ratchet.agent.record import as_text
from ratchet.evaluation.data.raters import RaterSettings, rater_name
from ratchet.evaluation.gate.questions import Outcome, Question, Reply
from ratchet.evaluation.gate.replies import MOST_PASSES, next_rater
from ratchet.infra.mlflow_client import Connection, connect, mlflow_errors
from ratchet.infra.review.asked_log import asked_questions, checked_question, log_asked
from ratchet.infra.review.comparison_trace import QUESTION, write_comparisons
from ratchet.infra.review.queue import Asked, all_queues, ensure_queue, queue_items, queue_up
from ratchet.infra.traces.arrivals import infos_of, traces_of
from ratchet.infra.traces.feedback import COMMENT
from ratchet.infra.traces.spans import comparison_id, mlflow_id, own_id

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
_NOBODY: Final = "ratchet"
"""Who declines an item that is withdrawn."""
_APART: Final = timedelta(minutes=1)
"""What one person wrote within it is one reply."""


def ask_comparisons(project: str, questions: Sequence[Question], rules: RaterSettings | None = None) -> None:
    """Ask as many people as `rules` want; a question that was asked before keeps its place and its answers' order.

    A repeat after a kill asks what the first call left out.

    Raises:
        ServiceUnavailable: MLflow did not answer; the same call again asks the rest.
    """
    wanted = {question.question_id: question for question in questions}
    if not wanted:
        return
    rules = rules or RaterSettings()
    with mlflow_errors(f"asking people to compare {len(wanted)} answers"):
        connection = connect(project)
        log_asked(connection, list(wanted.values()))
        ids = {name: comparison_id(project, name) for name in wanted}
        known = {
            own_id(info.trace_id) for info in infos_of(connection, [mlflow_id(one) for one in ids.values()])
        }
        write_comparisons(connection, [one for name, one in wanted.items() if ids[name] not in known])
        queues: dict[str, list[str]] = defaultdict(list)
        for name, question in wanted.items():
            for place in islice(_places(name, rules), rules.per_item):
                queues[_queue_name(len(question.answers) > 2, place)].append(mlflow_id(ids[name]))
        _queue_up(connection, queues)


def ask_more(project: str, wanted: Mapping[str, int], rules: RaterSettings) -> int:
    """Put questions that still need so many people into the queues of the next ones; returns how many were put.

    Who skipped passed it on, and of two who contradict each other a third decides. Nobody is asked where it waits for
    enough already, or every place was tried.

    Args:
        project: whose questions.
        wanted: by question id, as `ratchet.evaluation.gate.replies.people_wanted` tells.
        rules: as `ask_comparisons` had them.
    """
    with mlflow_errors("asking one more person"):
        connection = connect(project)
        there: dict[str, list[_Place]] = defaultdict(list)
        for place in _all_places(connection):
            there[own_id(place.item.item_id)].append(place)
        queues: dict[str, list[str]] = defaultdict(list)
        for name, people in wanted.items():
            trace_id = comparison_id(project, name)
            mine = there[trace_id]
            missing = people - sum(place.waits for place in mine)
            used = {place.queue.name for place in mine}
            replied = {rater_name(place.item.completed_by) for place in mine if place.item.completed_by}
            several = any(place.queue.name.startswith(SEVERAL) for place in mine)
            names = (_queue_name(several, place) for place in _places(name, rules, replied))
            for queue in islice((one for one in names if one not in used), max(missing, 0) if mine else 0):
                queues[queue].append(mlflow_id(trace_id))
        _queue_up(connection, queues)
    return sum(map(len, queues.values()))


def _places(question_id: str, rules: RaterSettings, replied: Collection[str] = ()) -> Iterator[str]:
    """Where a question may wait, in this order: with each of the people who are asked, else with the first who comes,
    the second, … up to one who decides and two to whom others pass it on.
    """
    if not rules.names:
        yield from (str(n + 1) for n in range(rules.per_item + MOST_PASSES))
    asked = [*replied]
    while (name := next_rater(question_id, asked, rules.names)) is not None:
        asked.append(name)
        yield f"for {name}"


def _queue_name(several: bool, place: str) -> str:
    base = SEVERAL if several else QUEUE
    return base if place == "1" else f"{base} {place}"


def _queue_up(connection: Connection, queues: Mapping[str, Sequence[str]]) -> None:
    for name, ids in queues.items():
        rater = name.rpartition(" for ")[2] if " for " in name else "default"
        queue_up(ensure_queue(connection, name, _questions(name.startswith(SEVERAL)), (rater,)), ids)


def _questions(several: bool) -> tuple[Asked, ...]:
    """What the page asks; the last stands first on it."""
    if several:  # MLflow takes ten options: who would skip submits without an answer
        options = InputCategorical(options=[*_LETTERS, _NEITHER, _UNCLEAR], multi_select=True)
        which = Asked(WHICH_OF_SEVERAL, "feedback", options, "All that are right, or as good as each other.")
    else:
        options = InputCategorical(options=["LEFT", "RIGHT", _BOTH, _NEITHER, _SKIP, _UNCLEAR])
        which = Asked(WHICH, "feedback", options, "Right, or the better one.")
    return (*_ASKED_FIRST_LAST, which)


def withdraw(project: str, question_ids: Collection[str]) -> None:
    """Ask these of nobody any more: what they were to decide is decided. Whoever answered them keeps the answer."""
    with mlflow_errors(f"withdrawing {len(question_ids)} questions"):
        connection = connect(project)
        gone = {comparison_id(project, one) for one in question_ids}
        for queue, item in _all_places(connection):
            if own_id(item.item_id) in gone and _Place(queue, item).waits:
                set_review_queue_item_status(
                    queue.queue_id, item_id=item.item_id, status="declined", completed_by=_NOBODY
                )


def pending_comparisons(project: str, rater: str = "") -> list[Question]:
    """What waits for a person, in the order of asking; with `rater`, what waits for this one.

    Raises:
        CorruptRecord: a question is no longer the one that was asked.
    """
    with mlflow_errors("reading what waits to be compared"):
        connection = connect(project)
        places = _all_places(connection)
        done = {own_id(one.item.item_id) for one in places if rater and one.was_answered_by(rater)}
        waiting = {own_id(one.item.item_id) for one in places if one.waits and one.is_for(rater)} - done
        asked = asked_questions(connection)
        return _questions_of(
            connection, {name: asked[name] for name in asked if comparison_id(project, name) in waiting}
        )


class _Place(NamedTuple):
    """A question in one of the queues: MLflow completes an item at its first reviewer, so each waits in its own."""

    queue: ReviewQueue
    item: ReviewQueueItem

    @property
    def waits(self) -> bool:
        """Whether nobody answered here."""
        return str(self.item.status).lower().endswith("pending")

    def was_answered_by(self, rater: str) -> bool:
        """Whether this person completed it."""
        return bool(self.item.completed_by) and rater_name(self.item.completed_by or "") == rater_name(rater)

    def is_for(self, rater: str) -> bool:
        """Whether this person, or with no name anybody, may answer here."""
        name = str(self.queue.name)
        return (
            not rater or " for " not in name or rater_name(name.rpartition(" for ")[2]) == rater_name(rater)
        )


def _all_places(connection: Connection) -> list[_Place]:
    queues = all_queues(connection)
    mine = [one for one in queues if one.name in (QUEUE, SEVERAL) or one.name.startswith(f"{QUEUE} ")]
    return [_Place(queue, item) for queue in sorted(mine, key=_turn) for item in queue_items(queue)]


def _turn(queue: ReviewQueue) -> tuple[int, str]:
    """First the first reviewer's."""
    return len(queue.name), queue.name


def _questions_of(connection: Connection, asked: Mapping[str, str]) -> list[Question]:
    """The questions with these ids and digests, as they stand beside their items."""
    ids = {name: mlflow_id(comparison_id(connection.project, name)) for name in asked}
    found = traces_of(connection, list(ids.values()), include_spans=True)
    questions = []
    for name, trace_id in ids.items():
        spans = found[trace_id].data.spans if trace_id in found else []
        text = next((s.attributes.get(QUESTION) for s in spans if s.parent_id is None), None)
        where = f"MLflow trace {trace_id}"
        if text is None:
            raise CorruptRecord(f"{where}: the question {name} is gone; restore MLflow's database")
        whole = text if isinstance(text, str) else json.dumps(text)
        questions.append(checked_question(whole, asked[name], where))
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
        asked = {
            comparison_id(project, one): one
            for one in asked_questions(connection)
            if question_ids is None or one in question_ids
        }
        places = [one for one in _all_places(connection) if one.item.completed_by not in (None, "", _NOBODY)]
        done = {
            (own_id(item.item_id), rater_name(item.completed_by or "")): item
            for _, item in places
            if own_id(item.item_id) in asked
        }
        infos = {
            own_id(one.trace_id): one for one in infos_of(connection, [mlflow_id(one) for one, _ in done])
        }
    replies = [
        reply
        for (trace_id, rater), item in done.items()
        for reply in _replies(asked[trace_id], infos.get(trace_id), item, rater)
    ]
    return sorted(replies, key=lambda one: (one.created_at, one.question_id, one.rater))


def _replies(question_id: str, info: TraceInfo | None, item: ReviewQueueItem, rater: str) -> list[Reply]:
    """Of one who completed an item; without any answer it was passed on."""
    own = [one for one in (info.assessments if info else ()) or () if _is_by(one, rater)]
    said = [one for one in own if one.name in (WHICH, WHICH_OF_SEVERAL, BETTER, COMMENT)]
    rounds: list[dict[str, Assessment]] = []
    for one in sorted(said, key=_at):
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
    return bool(source.source_type == "HUMAN" and rater_name(source.source_id or "") == rater)


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
        BadInput: nobody was asked that, an answer is picked that it does not have, or those who were asked answered.
    """
    with mlflow_errors(f"answering question {said.question_id}"):
        connection = connect(project)
        asked = asked_questions(connection)
        if said.question_id not in asked:
            raise BadInput(
                f"nobody was asked question {said.question_id!r} in {project!r}: see `ratchet label list`"
            )
        (question,) = _questions_of(connection, {said.question_id: asked[said.question_id]})
        if any(place >= len(question.answers) or place < 0 for place in said.good):
            raise BadInput(f"picked {said.good}: the question has answers 0 to {len(question.answers) - 1}")
        trace_id = mlflow_id(comparison_id(project, said.question_id))
        places = [place for place in _all_places(connection) if place.item.item_id == trace_id]
        open_ones = [place for place in places if place.waits and place.is_for(said.rater)]
        place = next((one for one in places if one.was_answered_by(said.rater)), next(iter(open_ones), None))
        if place is None:
            others = ", ".join(repr(one.item.completed_by) for one in places if one.item.completed_by)
            told = f"was answered by {others} already" if others else "waits for others"
            raise BadInput(f"question {said.question_id} {told}: see `ratchet label list`")
        _write(question, trace_id, said)
        set_review_queue_item_status(
            place.queue.queue_id, item_id=trace_id, status="complete", completed_by=said.rater
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
