"""Real logs in: the conversations of a file of any format that is read, as traces.

Why every fault names its record and nothing is guessed: a log that is half read looks like a worse agent. What
the agent itself did wrong (arguments that are no JSON, a call that failed) is data and is kept as it was; what was
not read, or not whole, is counted and said.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import Any

from pydantic import Field

from ratchet.agent.environment import RESPOND
from ratchet.agent.errors import BadInput
from ratchet.agent.record import Record, content_hash
from ratchet.agent.trace import Trace, Usage
from ratchet.evaluation.data.labels import Label
from ratchet.infra.files import cells
from ratchet.infra.files.table import TableFile
from ratchet.infra.traces.conversation import Assessed
from ratchet.infra.traces.feedback import COMMENT, FeedbackNames, labels_of
from ratchet.infra.traces.formats.chat import SCORES, is_message
from ratchet.infra.traces.formats.detect import LOOKED_AT, detect, format_named, is_record, wanted
from ratchet.infra.traces.formats.format import Format, misshapen_told
from ratchet.infra.traces.imported_trace import imported_trace


class Malformed(Record):
    """A record that cannot be read."""

    number: int
    """Its line, or in a JSON array its place, from 1."""
    reason: str


class LogFile(Record):
    """What a file holds."""

    format: str
    """Its name; empty where no record could be read."""
    traces: tuple[Trace, ...]
    labels: tuple[Label, ...] = ()
    """What people, judges and programs said of these traces."""
    malformed: tuple[Malformed, ...]
    unit: str
    """What the numbers count: `line`, `record` or `row`."""
    notes: dict[str, int] = Field(default_factory=dict)
    """What was not read or not kept whole, in words, with how often."""

    @property
    def counts(self) -> dict[str, int]:
        """How many messages, calls and results were read."""
        steps = [step for trace in self.traces for attempt in trace.attempts for step in attempt.steps]
        called = [step for step in steps if step.action.name != RESPOND]
        return {
            "messages of the agent": len(steps) - len(called),
            "tool calls": len(called),
            "results": sum(step.result is not None for step in called),
        }

    @property
    def found(self) -> dict[str, int]:
        """How many conversations have each of what stands around the messages."""
        labelled = {label.trace_id for label in self.labels}
        return {
            "system prompt": sum(bool(trace.system) for trace in self.traces),
            "tool definitions": sum(bool(trace.tools) for trace in self.traces),
            "usage": sum(trace.usage != Usage() for trace in self.traces),
            "session": sum(trace.session_id is not None for trace in self.traces),
            "user": sum(trace.user is not None for trace in self.traces),
            "reward": sum(trace.score is not None for trace in self.traces),
            "expected answer": sum(trace.case.expected is not None for trace in self.traces),
            "labels": sum(trace.trace_id in labelled for trace in self.traces),
        }

    @property
    def n_records(self) -> int:
        """Readable or not."""
        return len(self.traces) + len(self.malformed)


def read_log_file(
    path: Path,
    *,
    project: str = "",
    agent: str | None = None,
    format_name: str | None = None,
    names: FeedbackNames | None = None,
) -> LogFile:
    """The file's conversations as traces; the same conversation has the same id in every file, one in each project.

    Conversations that differ in the reward alone are trials of their own, in whatever order they stand.

    Args:
        path: JSON lines, a JSON array, one object (a record, or what holds a list of records), an array of messages
            (then it is one conversation), CSV or Parquet; gzip, too.
        project: whose traces they become; MLflow's trace ids are shared by all projects.
        agent: who acted; None = the record's model, or the file's name.
        format_name: what the file is read as; None = the records say it (`formats.detect`).
        names: under which names feedback is read as labels; None = the default.

    Raises:
        BadInput: no such file, nothing in it, or a format that is not read.
    """
    told = None if format_name is None else format_named(format_name)
    looks_like = told.looks_like if told else is_record
    table = TableFile(path, is_record=looks_like, otherwise=".jsonl", wanted=wanted(told))
    malformed: list[Malformed] = []

    def fault(number: int, reason: str) -> None:
        malformed.append(Malformed(number=number, reason=reason))

    kind, records = _of_format(_records(table, fault), path, told)
    seen_at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    traces: list[Trace] = []
    assessed: dict[str, list[Assessed]] = {}
    notes: Counter[str] = Counter()
    for number, conversation in kind.conversations(records, fault) if kind else ():
        try:
            with misshapen_told():
                trace, not_kept = imported_trace(
                    conversation, agent=agent or path.stem, named=agent is not None, seen_at=seen_at
                )
        except BadInput as error:
            fault(number, str(error))
            continue
        traces.append(trace)
        assessed.setdefault(_id_in(project, trace.trace_id), []).extend(conversation.assessed)
        notes.update(not_kept)
    if not traces and not malformed:
        raise BadInput(f"{path}: nothing in it; give a JSON array or JSON lines of conversations")
    traces = _told_apart(traces, notes)
    labels = _labels(assessed, names or FeedbackNames(), seen_at, notes)
    notes.update(_of_table(table))
    return LogFile(
        format=kind.name if kind else "",
        traces=tuple(one.model_copy(update={"trace_id": _id_in(project, one.trace_id)}) for one in traces),
        labels=tuple({label.label_id: label for label in labels}.values()),
        malformed=tuple(sorted(malformed, key=lambda one: one.number)),
        unit=table.unit,
        notes={note: times for note, times in notes.items() if times},
    )


def _of_table(table: TableFile) -> dict[str, int]:
    """What of the file, rather than of its records, was not read as it is."""
    container, mended = table.container, table.mended
    return {
        f"JSON object of which only the list {container!r} was read": int(container is not None),
        "record with half a character in it, replaced by \ufffd": mended,
    }


def _labels(
    assessed: Mapping[str, Sequence[Assessed]], names: FeedbackNames, seen_at: datetime, notes: Counter[str]
) -> list[Label]:
    """What was said, by trace, as labels; of other names how often, since each holds another value."""
    labels = []
    for trace_id, said in assessed.items():
        known = [one for one in said if one.kind or names.kind(one.name) or one.name == COMMENT]
        notes.update(
            f"feedback {one.name!r} not read: name it under [feedback] in ratchet.toml"
            for one in said
            if one not in known
        )
        read, problems = labels_of(known, trace_id, names, seen_at=seen_at)
        labels += read
        notes.update(problems)
    return labels


def _id_in(project: str, trace_id: str) -> str:
    return content_hash([project, trace_id], length=32)


def _of_format(
    records: Iterator[tuple[int, Any]], path: Path, told: Format | None
) -> tuple[Format | None, Iterator[tuple[int, Any]]]:
    """The format, and the records with those that were looked at; None where there is no record."""
    first = list(islice(records, LOOKED_AT))
    if not first:
        return None, records
    return told or detect(path, [one for _, one in first]), chain(first, records)


def _records(table: TableFile, fault: Any) -> Iterator[tuple[int, Any]]:
    """The file's records; an array of messages is one."""
    records = table.records(fault)
    first = next(records, None)
    if first is None:
        return
    if table.unit == "record" and table.container is None and is_message(first[1]):
        yield 1, [first[1], *(record for _, record in records)]
        return
    for number, record in chain([first], records):
        yield number, _with_points(record) if table.decimal_comma else record


def _with_points(record: Any) -> Any:
    """The row of a table in which `0,5` is one half, with its rewards as numbers."""
    if not isinstance(record, dict):
        return record
    found = dict(record)
    for name in SCORES:
        try:
            found[name] = cells.number(record.get(name), decimal_comma=True)
        except ValueError:  # whoever reads the reward says so
            continue
    return found


def _told_apart(traces: Sequence[Trace], notes: Counter[str]) -> list[Trace]:
    """Trials alike but for their reward get ids of their own, the best first; repeats and later labels do not."""
    alike: dict[str, list[Trace]] = {}
    for trace in traces:
        alike.setdefault(trace.trace_id, []).append(trace)
    found = []
    for trace_id, group in alike.items():
        scores = {trace.score for trace in group if trace.score is not None}
        ordered = sorted(group, key=lambda trace: -1.0 if trace.score is None else trace.score, reverse=True)
        if len(scores) < 2:
            found += [ordered[0]] * len(group)
            continue
        notes["record like another but for its reward, kept as a trial of its own"] += len(group) - 1
        for place, trace in enumerate(ordered):
            name = content_hash([trace_id, "trial", place], length=32) if place else trace_id
            found.append(trace.model_copy(update={"trace_id": name}))
    return found
