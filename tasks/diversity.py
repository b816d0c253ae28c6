"""Watch how varied the champion's answers are, beside those of what served before; told once a version."""

from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
from prefect import task

from ratchet.evaluation.drift.diversity import answers_of, watch_diversity
from ratchet.infra.alerts import Alert, send_alert
from ratchet.infra.registry.diversity import read_diversity, record_diversity
from ratchet.infra.registry.registry import champion, version_history
from ratchet.infra.store.collected import TRACES, collected_traces, columns_of
from ratchet.infra.store.dataset_store import DatasetVersion

_PAST: Final = 2_000
"""Newest traces of earlier champions that say what is usual."""
_OWN: Final = 20_000
"""First traces of the champion that are watched."""


@task(name="watch diversity")
def watch_answers(name: str, traces: DatasetVersion, alpha: float, seed: int = 0) -> str:
    """Why the champion's answers are said to be narrower than before; empty where they are not.

    Args:
        name: the project.
        traces: everything collected, in the order of arrival.
        alpha: false alarms per look.
        seed: of the monitor.
    """
    serving = champion(name)
    if serving is None:
        return ""
    known = read_diversity(name, serving.candidate_id)
    past, own = _ids(name, traces, serving.candidate_id)
    found = watch_diversity(
        answers_of(collected_traces(name, past[-_PAST:])),
        answers_of(collected_traces(name, own[:_OWN])),
        alpha=alpha,
        seed=seed,
    )
    if found is None or (known.production and known.production.n_blocks == found.n_blocks):
        return known.narrower
    after = record_diversity(name, serving.candidate_id, production=found)
    if found.alarm and not after.told:
        send_alert(
            Alert(
                kind="diversity",
                title=f"{name}: version {serving.number} says ever less",
                body=after.narrower,
                key=f"{name}-diversity-{serving.candidate_id}",
            )
        )
        record_diversity(name, serving.candidate_id, told=True)
    return after.narrower


def _ids(name: str, traces: DatasetVersion, serving: str) -> tuple[list[str], list[str]]:
    """Traces of earlier champions, and of the one that serves, in the order of arrival; none is read."""
    before = [
        one.candidate_id
        for one in version_history(name)
        if one.candidate_id != serving and any(event.action == "promoted" for event in one.events)
    ]
    columns = columns_of(TRACES, traces, "trace_id", "candidate_id")
    maker, ids = columns.column("candidate_id"), columns.column("trace_id")
    past = ids.filter(pc.is_in(maker, value_set=pa.array(before, pa.string()))).to_pylist()
    return past, ids.filter(pc.equal(maker, serving)).to_pylist()
