"""Collect: what is new in MLflow since the last time, into versioned Parquet."""

from collections.abc import Iterable, Mapping

from prefect import task

from agent.record import Record
from agent.trace import Trace
from evaluation.label import Label, one_per_rater
from infra.dataset_store import DatasetVersion, read_dataset, write_dataset
from infra.experience_store import remember
from infra.project_state import read_state, update_state
from infra.trace_store import Collected, collect, flush_spool


class Collection(Record):
    """Everything collected so far, and what came in now."""

    traces: DatasetVersion
    labels: DatasetVersion
    n_new_traces: int
    n_new_labels: int
    problems: tuple[str, ...] = ()
    """What could not be read, each with its reason; it stays in MLflow."""


@task(name="collect", retries=2, retry_delay_seconds=5)
def collect_new(name: str) -> Collection:
    """Read what arrived since the watermark and append it; a run again finds nothing new."""
    flushed = flush_spool(name)
    state = read_state(name)
    got = collect(name, state.watermark)
    old_traces = read_dataset(state.traces, Trace) if state.traces else []
    old_labels = read_dataset(state.labels, Label) if state.labels else []
    own = [
        trace for trace in got.traces if not trace.is_imported
    ]  # another agent's cases cannot be played here
    traces = {t.trace_id: t for t in (*old_traces, *own)}
    labels = {label.label_id: label for label in (*old_labels, *got.labels)}
    remember(name, [*got.traces, *labelled_before(traces, got)], people_said(labels.values()))
    ordered = sorted(traces.values(), key=lambda t: (t.started_at, t.trace_id))
    written = write_dataset("traces", ordered), write_dataset("labels", list(labels.values()))
    update_state(name, watermark=got.watermark, traces=written[0], labels=written[1])
    return Collection(
        traces=written[0],
        labels=written[1],
        n_new_traces=len(traces) - len(old_traces),
        n_new_labels=len(labels) - len(old_labels),
        problems=tuple(f"trace {p.trace_id}: {p.reason}" for p in (*flushed.problems, *got.problems)),
    )


def labelled_before(traces: Mapping[str, Trace], got: Collected) -> list[Trace]:
    """Traces of earlier times that a new label is about."""
    new = {trace.trace_id for trace in got.traces}
    about = dict.fromkeys(label.trace_id for label in got.labels)
    return [traces[one] for one in about if one in traces and one not in new]


def people_said(labels: Iterable[Label]) -> dict[str, float]:
    """People's score of each trace, each rater's newest, the lowest where they differ."""
    scores: dict[str, float] = {}
    for label in one_per_rater(list(labels)):
        if label.source == "human" and label.score is not None:
            scores[label.trace_id] = min(label.score, scores.get(label.trace_id, 1.0))
    return scores


def traces_by_id(name: str) -> dict[str, Trace]:
    """Every trace collected so far."""
    traces = read_state(name).traces
    return {trace.trace_id: trace for trace in read_dataset(traces, Trace)} if traces else {}
