"""Monitor: has what people ask changed? On a schedule; a missed look is caught up in order."""

from pathlib import Path

from prefect import flow
from prefect.events import emit_event

from ratchet.agent.project import load_project
from ratchet.agent.record import Record
from ratchet.flows.project_settings import MonitorSettings, read_settings
from ratchet.infra.drift.log import log_watch_settings
from ratchet.tasks.adapters import probe_adapters
from ratchet.tasks.collect import collect_new
from ratchet.tasks.diversity import watch_answers
from ratchet.tasks.monitor import WatchReport, start_improve, watch


class MonitorReport(Record):
    """What a look came to."""

    new_traces: int
    problems: tuple[str, ...] = ()
    unreadable: int = 0
    """Traces that cannot be read: nobody looked at these."""
    watched: WatchReport
    narrower: str = ""
    """Why the champion's answers are said to be narrower than before; empty where they are not."""
    improve: str | None = None
    """Name of the `improve` run that the alarm started."""


@flow(name="monitor", persist_result=False)
def monitor(project: str = ".", settings: MonitorSettings | None = None) -> MonitorReport:
    """Collect → watch; an alarm pages the on-call team and starts `improve`, which asks people where it drifted.

    What people ask, what the agent does, whether its answers become narrower, and whether the adapters that are asked
    are those that answer.
    """
    agent, rules = load_project(Path(project)), read_settings(Path(project), MonitorSettings, settings)
    collection = collect_new(agent.name, project, rules.feedback, rules.raters)
    watched = watch(agent.name, collection, rules.watch, rules.seed)
    problems = (*collection.problems, *probe_adapters(project))
    narrower = watch_answers(agent.name, collection.traces, rules.watch.alpha, rules.seed)
    if watched.n_windows:
        log_watch_settings(agent.name, rules)
    started = None
    if watched.improve is not None:
        emit_event("ratchet.drift", resource={"prefect.resource.id": f"ratchet.project.{agent.name}"})
        started = start_improve(agent.name, project, watched.improve)
    return MonitorReport(
        new_traces=collection.n_new_traces,
        problems=problems,
        unreadable=collection.n_unreadable,
        watched=watched,
        narrower=narrower,
        improve=started,
    )
