"""Collect: what is new in MLflow since the last time, added to what is on disk; nothing else is read or written."""

from collections.abc import Sequence
from pathlib import Path

from prefect import task

from ratchet.agent.record import Record
from ratchet.agent.trace import Trace
from ratchet.evaluation.data.labels import Label, people_said
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
from ratchet.infra.traces.write import collect, flush_spool


class Collection(Record):
    """Everything collected so far, and what came in now."""

    traces: DatasetVersion
    """In the order of arrival; `read_since` reads what is new to you."""
    labels: DatasetVersion
    n_new_traces: int
    n_new_labels: int
    problems: tuple[str, ...] = ()
    """What could not be read, each with its reason; it stays in MLflow."""


@task(name="collect", retries=2, retry_delay_seconds=5)
def collect_new(name: str) -> Collection:
    """Read what arrived since the watermark and append it; a run again finds nothing new."""
    with state_lock(name):
        return _collect(name)


def _collect(name: str) -> Collection:
    unsent = flush_spool(name)
    state = read_state(name)
    take_over(name, state)
    before = newest_traces(name), newest_labels(name)
    lost = [
        a.name for a, b in zip((state.traces, state.labels), before, strict=True) if a and a.n_rows > b.n_rows
    ]
    got = collect(name, None if lost else state.watermark)
    own = [
        trace for trace in got.traces if not trace.is_imported
    ]  # another agent's cases cannot be played here
    traces = keep_traces(name, sorted(own, key=lambda t: (t.started_at, t.trace_id)))
    labels = keep_labels(name, got.labels)
    told = [*got.traces, *labelled_before(name, got.traces, got.labels)]
    remember(name, told, people_said(labels_about(name, [trace.trace_id for trace in told])))
    update_state(name, watermark=got.watermark, traces=traces, labels=labels)
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
            *(f"trace {p.trace_id}: {p.reason}" for p in (*unsent, *got.problems)),
        ),
    )


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
