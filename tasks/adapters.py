"""On a schedule: are the adapters that versions ask still there, and are they what answers?"""

from pathlib import Path

from prefect import task

from ratchet.agent.errors import BadInput, ServiceUnavailable
from ratchet.agent.project import load_project
from ratchet.infra.alerts import Alert, send_alert
from ratchet.infra.registry.agents import prove_adapters
from ratchet.infra.registry.alias_names import CANARY, CHALLENGER, CHAMPION
from ratchet.infra.registry.registry import aliased


@task(name="probe adapters")
def probe_adapters(folder: str) -> tuple[str, ...]:
    """One line for each version with traffic whose adapter does not answer; a server that forgot it has it again."""
    project = load_project(Path(folder))
    problems = []
    for alias in (CHAMPION, CANARY, CHALLENGER):
        if (version := aliased(project.name, alias)) is None:
            continue
        try:
            prove_adapters(project, version.candidate_id)
        except (BadInput, ServiceUnavailable) as error:
            title = f"{project.name}: the {alias}'s adapter does not answer"
            key = f"{project.name}-adapter-{version.candidate_id}"
            send_alert(Alert(kind="adapter", severity="critical", title=title, body=str(error), key=key))
            problems.append(f"{alias} {version.candidate_id}: {error}")
    return tuple(problems)
