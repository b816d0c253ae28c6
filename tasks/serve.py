"""Serve: the champion answers the requests that wait; each answer is a trace in MLflow."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from prefect import task

from ratchet.agent.build import documents_of
from ratchet.agent.case import Case
from ratchet.agent.project import Project, load_project
from ratchet.agent.rollout.loop import run
from ratchet.infra.first_day import first_day_candidate
from ratchet.infra.registry.agents import load_agent
from ratchet.infra.registry.first_champion import serve_first
from ratchet.infra.registry.registry import champion
from ratchet.infra.registry.version import Version
from ratchet.infra.store.collected import served
from ratchet.infra.traces.write import log_traces
from ratchet.tasks.progress import progress

CHUNK = 48
"""Requests between two writes to MLflow: what a crash can cost."""


@task(name="serve")
def serve_waiting(folder: str) -> int:
    """Answer the project's waiting requests with its champion; returns how many."""
    project = load_project(Path(folder))
    version = serving_version(project)
    waiting = not_served(project)
    if not waiting:
        return 0
    agent = load_agent(project, version.candidate_id).serving()
    with progress("serving", len(waiting)) as advance:
        for start in range(0, len(waiting), CHUNK):
            cases = waiting[start : start + CHUNK]
            log_traces(
                project.name,
                run(
                    agent,
                    cases,
                    project.environment,
                    at=lambda i, cases=cases: cases[i].seen_at or datetime.now(UTC),  # type: ignore[misc]
                    with_arguments=project.with_arguments,
                    limits=project.limits,
                    progress=advance,
                ),
            )
    return len(waiting)


def serving_version(project: Project) -> Version:
    """The champion; on the first day the agent as it is becomes it."""
    return champion(project.name) or first_champion(project)


def first_champion(project: Project) -> Version:
    """Register the agent of the first day, and let it serve: there is nothing yet to be better than.

    Raises:
        BadInput: another version served before, and the alias that said which is gone.
    """
    candidate = first_day_candidate(project)
    return serve_first(project.name, candidate, documents_of(project, candidate))


def not_served(project: Project) -> Sequence[Case]:
    """Waiting requests without a trace."""
    waiting = list(project.traffic())
    known = served(project.name, [case.case_id for case in waiting])
    return [case for case in waiting if case.case_id not in known]
