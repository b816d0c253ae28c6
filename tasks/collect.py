"""Collect: what is new in MLflow since the last time, added to what is on disk; nothing else is read or written."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from prefect import task

from ratchet.agent.environment import Outcome, respond
from ratchet.agent.errors import named
from ratchet.agent.project import Project, load_project
from ratchet.agent.record import Record
from ratchet.agent.seen import case_of_trace
from ratchet.agent.trace import Trace
from ratchet.evaluation.data.labels import Label, people_said
from ratchet.evaluation.data.raters import RaterSettings, heard
from ratchet.infra.registry.known_versions import known_versions
from ratchet.infra.store.collected import (
    collected_traces,
    keep_labels,
    keep_traces,
    labels_about,
    newest_labels,
    newest_traces,
)
from ratchet.infra.store.dataset_store import DatasetVersion, read_dataset
from ratchet.infra.store.experience import remember
from ratchet.infra.store.project_state import ProjectState, read_state, state_lock, update_state
from ratchet.infra.traces.assessments import Problem
from ratchet.infra.traces.feedback import FeedbackNames
from ratchet.infra.traces.foreign import Reading
from ratchet.infra.traces.write import collect, flush_spool

_AGAIN: Final = 300
"""Unreadable traces that are tried again at a look, the newest; the others are only told."""
_NAMED: Final = 20
"""Unreadable traces that are told one by one."""


class Collection(Record):
    """Everything collected so far, and what came in now."""

    traces: DatasetVersion
    """In the order of arrival; `read_since` reads what is new to you."""
    labels: DatasetVersion
    n_new_traces: int
    n_new_labels: int
    problems: tuple[str, ...] = ()
    """What could not be read, each with its reason; it stays in MLflow. A trace is named at every look."""
    n_unreadable: int = 0
    """Traces that were found by now and cannot be read."""


@task(name="collect", retries=2, retry_delay_seconds=5)
def collect_new(
    name: str,
    folder: str | None = None,
    feedback: FeedbackNames | None = None,
    raters: RaterSettings | None = None,
) -> Collection:
    """Read what arrived since the watermark and append it; a run again finds nothing new.

    Args:
        name: the project.
        folder: where it lies; None = traces that Ratchet did not write are read by their messages alone.
        feedback: under which names labels are read; None = the usual ones.
        raters: whose word counts in what is remembered; None = everybody's.
    """
    project = None if folder is None else load_project(Path(folder))
    with state_lock(name):
        return _collect(name, project, _reading(name, project, feedback), raters or RaterSettings())


def _reading(name: str, project: Project | None, feedback: FeedbackNames | None) -> Reading:
    names, versions = feedback or FeedbackNames(), partial(known_versions, name)
    if project is None:
        return Reading(versions=versions, names=names)
    return Reading(partial(case_of_trace, project), versions, names)


def _collect(name: str, project: Project | None, reading: Reading, raters: RaterSettings) -> Collection:
    unsent = flush_spool(name)
    state = read_state(name)
    take_over(name, state)
    before = newest_traces(name), newest_labels(name)
    lost = [
        a.name for a, b in zip((state.traces, state.labels), before, strict=True) if a and a.n_rows > b.n_rows
    ]
    again = (*list(state.unreadable)[-_AGAIN:], *state.unfinished)
    got = collect(name, None if lost else state.watermark, reading, again=again)
    unreadable = {one: why for one, why in state.unreadable.items() if one not in again} | got.unreadable
    arrived, unscored = scored(project, got.traces)
    own = [trace for trace in arrived if not trace.is_imported]  # another agent's cases cannot be played here
    traces = keep_traces(name, sorted(own, key=lambda t: (t.started_at, t.trace_id)))
    labels = keep_labels(name, got.labels)
    told = [*arrived, *labelled_before(name, arrived, got.labels)]
    said = heard(labels_about(name, [trace.trace_id for trace in told]), raters)
    remember(name, told, people_said(said))
    update_state(
        name,
        watermark=got.watermark,
        traces=traces,
        labels=labels,
        unreadable=unreadable,
        unfinished=got.unfinished,
    )
    return Collection(
        traces=traces,
        labels=labels,
        n_new_traces=traces.n_rows - before[0].n_rows,
        n_new_labels=labels.n_rows - before[1].n_rows,
        problems=(
            *(
                f"{one} were missing below {Path(before[0].uri).parents[2]}: all were read again"
                for one in lost
            ),
            *_told((*unsent, *unscored, *(one for one in got.problems if one.trace_id not in unreadable))),
            *_told([Problem(trace_id=one, reason=why) for one, why in list(unreadable.items())[-_NAMED:]]),
            *(
                [f"and {len(unreadable) - _NAMED:,} more traces cannot be read"]
                if len(unreadable) > _NAMED
                else []
            ),
        ),
        n_unreadable=len(unreadable),
    )


def scored(project: Project | None, traces: Sequence[Trace]) -> tuple[list[Trace], list[Problem]]:
    """The traces, with what the project's score says of answers that nobody scored; and where it failed.

    Only of an agent that answers a case whole, and where the score needs no right answer (`Project.scores_itself`):
    whatever made these traces did not know it. What ends with the call of a tool is a part of an answer (a trace of
    one LM's call alone) and no failure.
    """
    if project is None or project.agent is None or not project.scores_itself:
        return list(traces), []
    found, problems = [], []
    for trace in traces:
        waits = trace.score is None and trace.error is None and not trace.is_imported
        if waits and trace.action is not None and trace.action.is_free:
            try:
                trace = _with_outcome(trace, _outcome(project, trace))
            except Exception as error:  # noqa: BLE001  a user's scorer may raise anything; the trace is kept
                problems.append(Problem(trace_id=trace.trace_id, reason=f"not scored: {named(error)}"))
        found.append(trace)
    return found, problems


def _outcome(project: Project, trace: Trace) -> Outcome:
    world = project.environment()
    world.reset(trace.case)
    world.step(respond(trace.answer))
    return world.outcome()


def _with_outcome(trace: Trace, outcome: Outcome) -> Trace:
    last = trace.attempts[-1].model_copy(update={"outcome": outcome})
    return trace.model_copy(update={"attempts": (*trace.attempts[:-1], last)})


def _told(problems: Sequence[Problem]) -> list[str]:
    return [f"trace {one.trace_id}: {one.reason}" if one.trace_id else one.reason for one in problems]


def take_over(name: str, state: ProjectState) -> None:
    """Of a home that an earlier version wrote: its datasets, each one whole file, begin those that grow."""
    if state.traces and Path(state.traces.uri).suffix == ".parquet" and Path(state.traces.uri).exists():
        keep_traces(name, read_dataset(state.traces, Trace))
    if state.labels and Path(state.labels.uri).suffix == ".parquet" and Path(state.labels.uri).exists():
        keep_labels(name, read_dataset(state.labels, Label))


def labelled_before(name: str, new: Sequence[Trace], labels: Sequence[Label]) -> list[Trace]:
    """Traces of earlier times that a new label is about."""
    known = {trace.trace_id for trace in new}
    about = dict.fromkeys(label.trace_id for label in labels if label.trace_id not in known)
    return collected_traces(name, list(about))


def traces_by_id(name: str) -> dict[str, Trace]:
    """Every trace collected so far."""
    return {trace.trace_id: trace for trace in read_dataset(newest_traces(name), Trace)}
