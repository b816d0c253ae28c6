"""The gate's questions in Label Studio, for teams that label there.

Decision: every call looks first and then writes what is missing, and Label Studio's own database is the only state.
Why: a server that was killed in the middle is asked the same again, and nothing is lost or doubled. What was asked
stands in our log (`asked_log`), so a task that was changed or added by hand judges nothing. Whom Label Studio names
is who logged in; only of its own token's account does Ratchet believe another name, that of `ratchet label`.

Source: https://api.labelstud.io, checked against 1.23.2 in `tests/infra/test_label_studio.py`.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from ratchet.agent.errors import BadInput
from ratchet.agent.record import Json, as_text
from ratchet.evaluation.data.raters import RaterSettings, rater_name
from ratchet.evaluation.gate.questions import Outcome, Question, Reply
from ratchet.evaluation.gate.replies import MOST_PASSES
from ratchet.infra.mlflow_client import connect, mlflow_errors
from ratchet.infra.review.asked_log import asked_questions, checked_question, log_asked
from ratchet.infra.review.label_studio_page import (
    BETTER,
    COMMENT,
    NEITHER,
    PAGE,
    RATER,
    UNCLEAR,
    WHICH,
    task_of,
)
from ratchet.infra.review.label_studio_server import LabelStudio

_PORTION: Final = 100


class InLabelStudio:
    """The calls of `ratchet.infra.review.comparisons`, to the server that the environment names."""

    def ask_comparisons(
        self, project: str, questions: Sequence[Question], rules: RaterSettings | None = None
    ) -> None:
        """Make a task of each question; one that was asked before keeps its place and its answers' order.

        Raises:
            ServiceUnavailable: Label Studio or MLflow did not answer; the same call again asks the rest.
            BadInput: Label Studio is not configured, or refused.
        """
        wanted = {question.question_id: question for question in questions}
        if not wanted:
            return
        rules = rules or RaterSettings()
        with LabelStudio.configured() as server:
            _log(project, list(wanted.values()))
            home = _labelling_project(server, project, rules)
            there = {task.question_id for task in _tasks(server, home)}
            new = [task_of(question) for name, question in wanted.items() if name not in there]
            for start in range(0, len(new), _PORTION):
                server.post(f"/api/projects/{home}/import", new[start : start + _PORTION])

    def ask_more(self, project: str, wanted: Mapping[str, int], rules: RaterSettings) -> int:
        """Let so many more people answer these; returns how many tasks were opened again.

        Label Studio hands a skipped task to the next person by itself; one with its answers is opened for one more.

        Args:
            project: whose questions.
            wanted: by question id, as `ratchet.evaluation.gate.replies.people_wanted` tells.
            rules: as `ask_comparisons` had them.
        """
        opened = 0
        with LabelStudio.configured() as server:
            home = _labelling_project(server, project, rules)
            for task in _tasks(server, home):
                people = len(task.answered) + wanted.get(task.question_id, 0)
                if people > task.overlap:
                    again = {
                        "overlap": people,
                        "is_labeled": False,
                    }  # else its answered task is handed out no more
                    server.patch(f"/api/tasks/{task.task_id}", again)
                    opened += 1
        return opened

    def withdraw(self, project: str, question_ids: Collection[str]) -> None:
        """Ask these of nobody any more: what they were to decide is decided. One with an answer keeps it."""
        with LabelStudio.configured() as server:
            for task in _tasks(server, _labelling_project(server, project, RaterSettings())):
                if task.question_id in question_ids and task.answered and task.waits:
                    server.patch(f"/api/tasks/{task.task_id}", {"overlap": len(task.answered)})
                elif task.question_id in question_ids and not task.answered:
                    server.delete(f"/api/tasks/{task.task_id}")

    def pending_comparisons(self, project: str, rater: str = "") -> list[Question]:
        """What waits for a person, in the order of asking; with `rater`, what waits for this one.

        Raises:
            CorruptRecord: a task is no longer the question that was asked.
        """
        asked = _asked(project)
        with LabelStudio.configured() as server:
            tasks = _own_tasks(server, project, asked)
            return [
                _question(task, asked)
                for task in tasks.values()
                if task.waits
                and (not rater or rater_name(rater) not in map(server.rater_of, task.annotations))
            ]

    def read_replies(self, project: str, question_ids: Collection[str] | None = None) -> list[Reply]:
        """What people said, oldest first; of each person the newest to each question.

        Args:
            project: whose questions.
            question_ids: only to these; None = to all that were ever asked.

        Raises:
            ServiceUnavailable: Label Studio or MLflow did not answer.
            CorruptRecord: a task is no longer the question that was asked.
        """
        asked = _asked(project)
        replies = []
        with LabelStudio.configured() as server:
            for task in _tasks(server, _labelling_project(server, project, RaterSettings())):
                wanted = question_ids is None or task.question_id in question_ids
                if task.question_id in asked and wanted and task.annotations:
                    question = _question(task, asked)
                    replies += [_reply(question, one, server.rater_of(one)) for one in task.annotations]
        return sorted(replies, key=lambda one: (one.created_at, one.question_id, one.rater))

    def reply(self, project: str, said: Reply) -> None:
        """Write one reply under the token's account, with the rater's name; again by the same rater, to correct it.

        Raises:
            BadInput: nobody was asked that, or an answer is picked that it does not have.
        """
        asked = _asked(project)
        with LabelStudio.configured() as server:
            task = _own_tasks(server, project, asked).get(said.question_id)
            if task is None:
                raise BadInput(
                    f"nobody was asked question {said.question_id!r} in {project!r}: see `ratchet label list`"
                )
            question = _question(task, asked)
            if any(place >= len(question.answers) or place < 0 for place in said.good):
                raise BadInput(
                    f"picked {said.good}: the question has answers 0 to {len(question.answers) - 1}"
                )
            written = {"result": _result(question, said), "was_cancelled": said.outcome == "skip"}
            mine = [one for one in task.annotations if server.rater_of(one) == rater_name(said.rater)]
            if mine:
                server.patch(f"/api/annotations/{mine[0]['id']}", written)
            else:
                server.post(f"/api/tasks/{task.task_id}/annotations/", written)

    def labelling_page(self, project: str) -> str:
        """Address of the page where people answer."""
        with LabelStudio.configured() as server:
            return f"{server.address}/projects/{_labelling_project(server, project, RaterSettings())}/data"


class _Task(NamedTuple):
    """One question as Label Studio keeps it."""

    task_id: int
    question_id: str
    question: str
    """Its JSON, as it stands there."""
    overlap: int
    """How many people may answer."""
    annotations: list[dict[str, Any]]

    @property
    def answered(self) -> list[dict[str, Any]]:
        """Annotations without those of people who skipped."""
        return [one for one in self.annotations if not one["was_cancelled"]]

    @property
    def waits(self) -> bool:
        """Whether one more person may answer."""
        return len(self.answered) < self.overlap and len(self.annotations) - len(self.answered) < MOST_PASSES


def _log(project: str, questions: Sequence[Question]) -> None:
    with mlflow_errors(f"asking people to compare {len(questions)} answers"):
        log_asked(connect(project), questions)


def _asked(project: str) -> dict[str, str]:
    with mlflow_errors("reading what people were asked to compare"):
        return asked_questions(connect(project))


def _labelling_project(server: LabelStudio, project: str, rules: RaterSettings) -> int:
    """Id of the labelling project, made where there is none; of two that were made at once the first."""
    described = f"ratchet: what the gate of {project} asks"
    found = [one for one in server.pages("/api/projects") if one.get("description") == described]
    if not found:
        made = {
            "title": f"ratchet {project}"[:50],
            "description": described,
            "label_config": PAGE,
            "maximum_annotations": rules.per_item,
            "skip_queue": "REQUEUE_FOR_OTHERS",
            "enable_empty_annotation": False,
            "sampling": "Sequential sampling",
        }
        server.post("/api/projects", made)
        found = [one for one in server.pages("/api/projects") if one.get("description") == described]
    return min(int(one["id"]) for one in found)


def _tasks(server: LabelStudio, home: int) -> Iterator[_Task]:
    """In the order of asking; of a question that two processes asked at once, both tasks."""
    for one in server.pages("/api/tasks", "tasks", project=home, fields="all", ordering="tasks:id"):
        data = one["data"]
        if isinstance(data.get("question_id"), str) and isinstance(data.get("question"), str):
            yield _Task(one["id"], data["question_id"], data["question"], one["overlap"], one["annotations"])


def _own_tasks(server: LabelStudio, project: str, asked: Mapping[str, str]) -> dict[str, _Task]:
    """The first task of each question that was asked."""
    home = _labelling_project(server, project, RaterSettings())
    first: dict[str, _Task] = {}
    for task in _tasks(server, home):
        if task.question_id in asked:
            first.setdefault(task.question_id, task)
    return first


def _question(task: _Task, asked: Mapping[str, str]) -> Question:
    return checked_question(task.question, asked[task.question_id], f"Label Studio task {task.task_id}")


def _reply(question: Question, annotation: Mapping[str, Any], rater: str) -> Reply:
    """A pick stands before a better answer, which is then kept as a comment: a reply holds one of them."""
    said = _said(annotation)
    words = set(said.get(WHICH, ()))
    better, comment = ("\n".join(said.get(name, ())).strip() for name in (BETTER, COMMENT))
    good = tuple(place for place, name in enumerate(question.names) if name in words)
    outcome: Outcome = "answered"
    if annotation["was_cancelled"] or not (good or better or words):
        outcome, good, better = "skip", (), ""
    elif UNCLEAR in words:
        outcome, good, better = "unclear", (), ""
    elif good and better:
        better, comment = "", "; ".join(filter(None, [comment, f"better: {better}"]))
    return Reply(
        question_id=question.question_id,
        rater=rater,
        outcome=outcome,
        good=good,
        better=better or None,
        comment=comment,
        created_at=datetime.fromisoformat(annotation["updated_at"]).astimezone(UTC),
    )


def _said(annotation: Mapping[str, Any]) -> dict[str, list[str]]:
    """What was chosen or written in each part of the page."""
    found: dict[str, list[str]] = {}
    for one in annotation["result"] or ():
        value = one.get("value") or {}
        told = value.get("choices") or value.get("text") or ()
        found[str(one.get("from_name"))] = [told] if isinstance(told, str) else [str(part) for part in told]
    return found


def _result(question: Question, said: Reply) -> list[dict[str, Json]]:
    """A reply as the page would send it."""
    picked = [question.names[place] for place in said.good]
    if said.outcome == "unclear":
        picked = [UNCLEAR]
    elif said.outcome == "answered" and not picked and said.better is None:
        picked = [NEITHER]
    texts = {BETTER: said.better, COMMENT: said.comment, RATER: said.rater}
    written = [_part(name, "textarea", {"text": [as_text(text)]}) for name, text in texts.items() if text]
    return [_part(WHICH, "choices", {"choices": picked}), *written] if picked else written


def _part(name: str, kind: str, value: Json) -> dict[str, Json]:
    return {"from_name": name, "to_name": "answers", "type": kind, "value": value}
