"""What arrived in MLflow since the last look: new traces, and new labels on traces of any age.

Why arrival and not the traces' own time: a trace may wait in a spool for days, and a person may answer weeks
later; both must be found, once.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from mlflow.entities import Trace as MlflowTrace
from mlflow.entities import TraceInfo, TraceState
from pydantic import Field

from ratchet.agent.errors import CorruptRecord
from ratchet.agent.record import Record
from ratchet.agent.trace import Trace
from ratchet.evaluation.data.labels import Label
from ratchet.infra.mlflow_client import Connection, connect, mlflow_errors
from ratchet.infra.traces.arrivals import Mark, arrived, infos_of, search_infos, traces_of
from ratchet.infra.traces.assessments import Problem, labels_arrived_ms, to_labels
from ratchet.infra.traces.feedback import FeedbackNames
from ratchet.infra.traces.foreign import KnownVersions, Reading, foreign_trace
from ratchet.infra.traces.rows import labelled_since
from ratchet.infra.traces.service_clock import there
from ratchet.infra.traces.spans import RECORD_ATTRIBUTE, is_comparison, mlflow_id, own_id

_LABEL_OVERLAP_MS: Final = 24 * 3600 * 1000
"""Whoever writes a label stamps it, and MLflow tells no order: what a day's wrong clock hides is read again."""
_UNFINISHED: Final = timedelta(days=1)
"""How long an agent may be at work on one trace; what is not ended then cannot be read."""
IGNORE: Final = "ratchet.ignore"
"""Tag of a trace that is no agent's answer, such as of a job in the same experiment: it is not read, nor missed."""
_NOTES: Final = 8
"""Kinds of what was not kept whole that are told one by one."""


class Watermark(Record):
    """Up to where MLflow has been read, by arrival, so that late traces and late feedback count."""

    received_ms: int
    """Arrival of the newest trace that was read (ms since 1970)."""
    labelled_ms: int
    """Arrival of the newest assessment that was read, never after the moment of reading."""
    seen_traces: tuple[str, ...] = ()
    """See `Mark.seen`."""
    seen_labels: tuple[str, ...] = ()
    """Those that were written within a day before `labelled_ms`, or after it: not returned again."""
    row: int = 0
    row_trace: str = ""

    @property
    def mark(self) -> Mark:
        """The traces' part of it."""
        return Mark(
            received_ms=self.received_ms, seen=self.seen_traces, row=self.row, row_trace=self.row_trace
        )


class Collected(Record):
    """What arrived since a watermark."""

    traces: tuple[Trace, ...]
    labels: tuple[Label, ...]
    """New ones, on old traces too."""
    problems: tuple[Problem, ...]
    """Traces and assessments that could not be read, each with its reason; they stay in MLflow."""
    unreadable: dict[str, str] = Field(default_factory=dict)
    """The traces among them, by our id, and why."""
    unfinished: tuple[str, ...] = ()
    """Traces whose agent is still at work: to be read again."""
    watermark: Watermark


def collect(
    project: str,
    since: Watermark | None = None,
    reading: Reading | None = None,
    *,
    again: Sequence[str] = (),
) -> Collected:
    """Traces and labels that arrived after `since`; the same watermark gives the same answer again.

    New traces are found by when they arrived, not by when they began: one that waited in the spool is not
    overlooked (see `arrivals`). New labels are found by when they were written or changed, on traces of any age;
    behind a server, which cannot be asked that, all labelled traces are searched.

    Args:
        project: whose experiment.
        since: where the last reading ended; None = read everything.
        reading: by what traces that Ratchet did not write are read; None = by their messages alone.
        again: our ids of traces that could not be read before and are tried once more.

    Raises:
        ServiceUnavailable: MLflow did not answer.
    """
    start, rules = since or Watermark(received_ms=0, labelled_ms=0), reading or Reading()
    with mlflow_errors(f"collecting the traces of {project!r}"):
        connection = connect(project)
        now = there(connection)
        infos, mark, odd = arrived(connection, start.mark, now)
        infos += infos_of(connection, sorted({*map(mlflow_id, again)} - {info.trace_id for info in infos}))
        new = {
            info.trace_id: info for info in sorted(infos, key=lambda one: (one.timestamp_ms, one.trace_id))
        }
        read = _read(connection, new, rules, now)
        said_after = start.labelled_ms - _LABEL_OVERLAP_MS
        labelled = new if since is None else _labelled(connection, said_after, rules.names) | new
        labelled = {one: info for one, info in labelled.items() if not is_comparison(one)}
    labels, unusable = _labels(labelled.values(), start, said_after, rules.names)
    return Collected(
        traces=tuple(read.traces),
        labels=tuple(sorted(labels, key=lambda label: (label.created_at, label.label_id))),
        problems=(*read.problems, *odd, *unusable),
        unreadable={one.trace_id: one.reason for one in read.problems if one.trace_id},
        unfinished=tuple(read.unfinished),
        watermark=_advance(start, mark, labelled.values(), int(now.timestamp() * 1000), rules.names),
    )


def _labels(
    labelled: Iterable[TraceInfo], start: Watermark, after_ms: int, names: FeedbackNames
) -> tuple[list[Label], list[Problem]]:
    """New labels, and what is none; of what programs and judges wrote under other names only how often."""
    labels: list[Label] = []
    problems: list[Problem] = []
    others: Counter[str] = Counter()
    for info in labelled:
        said, unusable = to_labels(info, after_ms=after_ms, names=names, others=others)
        labels += [label for label in said if label.label_id not in start.seen_labels]
        problems += unusable
    problems += [
        Problem(trace_id="", reason=f"{times:,} × by programs or judges: {names.unread(name, None)}")
        for name, times in others.items()
    ]
    return labels, problems


def _labelled(connection: Connection, after_ms: int, names: FeedbackNames) -> dict[str, TraceInfo]:
    if not connection.is_server:
        uri = connection.settings.tracking_uri
        known = (*names.all_scores, *names.all_expected)
        ids = labelled_since(uri, connection.experiment_id, after_ms, known)
        return {info.trace_id: info for info in infos_of(connection, ids)}
    filters = [f"feedback.`{name}` IS NOT NULL" for name in (*names.all_scores, *names.all_expected)]
    filters += [f"expectation.`{name}` IS NOT NULL" for name in names.all_expected]
    with ThreadPoolExecutor(connection.n_parallel) as pool:
        found = pool.map(partial(search_infos, connection), filters)
    return {info.trace_id: info for infos in found for info in infos}


class _Read:
    """What came of reading traces."""

    def __init__(self) -> None:
        self.traces: list[Trace] = []
        self.problems: list[Problem] = []
        self.unfinished: list[str] = []
        self.notes: Counter[str] = Counter()


def _read(connection: Connection, infos: dict[str, TraceInfo], reading: Reading, now: datetime) -> _Read:
    whole = traces_of(connection, list(infos), include_spans=True)
    read, versions = _Read(), None
    for trace_id, info in infos.items():
        if info.tags.get(IGNORE):
            continue
        found = whole.get(trace_id)
        try:
            if found is None or is_own(found):
                read.traces.append(record_of(trace_id, found))
                continue
            if is_unfinished(info, now):
                read.unfinished.append(own_id(trace_id))
                continue
            versions = reading.versions() if versions is None else versions
            trace, notes = foreign_trace(found, reading, versions)
            read.traces.append(trace)
            read.notes += notes
        except CorruptRecord as error:
            read.problems.append(Problem(trace_id=own_id(trace_id), reason=str(error)))
    told = [f"{times:,} × {note}" for note, times in read.notes.most_common(_NOTES)]
    if told:
        read.problems.append(Problem(trace_id="", reason=f"of traces of other frameworks: {'; '.join(told)}"))
    return read


def is_unfinished(info: TraceInfo, now: datetime) -> bool:
    """Whether the agent is still at work on it: begun within a day, and not ended."""
    began = datetime.fromtimestamp(info.timestamp_ms / 1000, now.tzinfo)
    return info.state == TraceState.IN_PROGRESS and now - began < _UNFINISHED


def is_own(found: MlflowTrace) -> bool:
    """Whether Ratchet wrote it."""
    return any(RECORD_ATTRIBUTE in span.attributes for span in found.data.spans if span.parent_id is None)


def foreign_of(found: MlflowTrace) -> Trace:
    """A trace that Ratchet did not write, by its messages alone; raises CorruptRecord as `record_of` does."""
    return foreign_trace(found, Reading(), KnownVersions())[0]


def record_of(trace_id: str, found: MlflowTrace | None) -> Trace:
    """The record in the trace's root span.

    Raises:
        CorruptRecord: there is none, or it cannot be read; the trace is still in MLflow.
    """
    spans = found.data.spans if found is not None else []
    root = next((span for span in spans if span.parent_id is None), None)
    record: Any = root.attributes.get(RECORD_ATTRIBUTE) if root is not None else None
    where = f"MLflow trace {trace_id}"
    if record is None:
        raise CorruptRecord(f"{where}: it has no spans, or they are gone: nothing can be read from it")
    return Trace.from_json(record if isinstance(record, str) else json.dumps(record), where=where)


def _advance(
    since: Watermark, mark: Mark, labelled: Iterable[TraceInfo], now_ms: int, names: FeedbackNames
) -> Watermark:
    newest = [min(labels_arrived_ms(info), now_ms) for info in labelled]
    labelled_ms = max([since.labelled_ms, *newest])
    after = labelled_ms - _LABEL_OVERLAP_MS
    recent = (to_labels(info, after_ms=after, names=names)[0] for info in labelled)
    return Watermark(
        received_ms=mark.received_ms,
        labelled_ms=labelled_ms,
        seen_traces=mark.seen,
        seen_labels=tuple(sorted({label.label_id for labels in recent for label in labels})),
        row=mark.row,
        row_trace=mark.row_trace,
    )
