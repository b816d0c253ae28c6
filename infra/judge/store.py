"""Where a project's judges and their licence lie: the history in a log of its own, each judge as JSON in one run.

Why in MLflow and not in a home: a licence that one machine lost must be lost for all. An event about another judge
than the one made last has no effect: another home made a new one in between.
"""

from typing import Final

from ratchet.agent.errors import CorruptRecord
from ratchet.evaluation.judge.document import JudgeDocument
from ratchet.evaluation.judge.licence import Licence, LicenceEvent
from ratchet.infra.mlflow_client import connect, mlflow_errors
from ratchet.infra.registry.log import append_event, read_events
from ratchet.infra.registry.run_documents import ensured_run, not_registered, run_document

_LOG: Final = "judge"
_KIND: Final = "judge"
"""Of the run that holds the judges."""
_ABOUT: Final = "The judge: each version is one event, made, granted or lost; `ratchet judge` tells them."


def read_licence(project: str) -> Licence:
    """Every judge of the project and what became of its licence; the same for every home.

    Raises:
        ServiceUnavailable: MLflow did not answer.
        CorruptRecord: an event was deleted or rewritten.
    """
    with mlflow_errors("reading the judge's licence"):
        return _replay(read_events(connect(project), _LOG))


def write_licence(project: str, before: Licence, after: Licence) -> Licence:
    """Append what is new in `after`; returns what stands then, which another home may have added to."""
    with mlflow_errors("writing the judge's licence"):
        connection = connect(project)
        for event in after.history[len(before.history) :]:
            said = f"{event.kind}: judge {event.judge_id[:8]}, {event.reason}"
            append_event(connection, _LOG, event.to_json(), about=_ABOUT, said=said)
        return _replay(read_events(connection, _LOG))


def _replay(texts: list[str]) -> Licence:
    events: list[LicenceEvent] = []
    for place, text in enumerate(texts, start=1):
        event = LicenceEvent.from_json(text, where=f"event {place} of the judge's log")
        if event.kind == "made" or (events and events[-1].judge_id == event.judge_id):
            events.append(event)
    return Licence(history=tuple(events))


def keep_judge(project: str, document: JudgeDocument) -> None:
    """Store a judge; the same twice is stored once."""
    with mlflow_errors(f"storing judge {document.judge_id}"):
        connection = connect(project)
        connection.client.log_text(
            ensured_run(connection, _KIND), document.to_json(), _file(document.judge_id)
        )


def load_judge_document(project: str, judge_id: str) -> JudgeDocument:
    """What `keep_judge` stored.

    Raises:
        CorruptRecord: it is not the judge of this id.
    """
    with mlflow_errors(f"reading judge {judge_id}"):
        connection = connect(project)
        path = run_document(connection, ensured_run(connection, _KIND), _file(judge_id))
    document = JudgeDocument.from_json(path.read_text(encoding="utf-8"), where=str(path))
    if document.judge_id != judge_id:
        raise not_registered(path, f"judge {document.judge_id}", judge_id)
    return document


def _file(judge_id: str) -> str:
    if not judge_id.isalnum():
        raise CorruptRecord(f"judge {judge_id!r:.80}: no id of a judge")
    return f"judges/{judge_id}.json"
