"""Monitor: has what people ask changed? On a schedule; a missed look is caught up in order."""

from pathlib import Path

from prefect import flow
from prefect.events import emit_event

from agent.project import load_project
from agent.record import Record
from tasks.collect import collect_new
from tasks.watch import Watched, WatchSettings, watch


class MonitorReport(Record):
    """What a look came to."""

    new_traces: int
    problems: tuple[str, ...] = ()
    watched: Watched


@flow(name="monitor", persist_result=False)
def monitor(project: str = ".", settings: WatchSettings | None = None) -> MonitorReport:
    """Collect → watch; an alarm pages the on-call team and emits `ratchet.drift`, for automations."""
    agent = load_project(Path(project))
    collection = collect_new(agent.name)
    watched = watch(agent.name, collection, settings or WatchSettings())
    if any(announcement.event == "opened" for announcement in watched.announced):
        emit_event("ratchet.drift", resource={"prefect.resource.id": f"ratchet.project.{agent.name}"})
    return MonitorReport(new_traces=collection.n_new_traces, problems=collection.problems, watched=watched)
