"""The agent of the first day, as project and settings have it.

Why apart from the registry: who serves does not speak with MLflow, and tells this to who does.
"""

from ratchet.agent.build import first_candidate
from ratchet.agent.candidate import Candidate
from ratchet.agent.lm.of_candidate import address_of
from ratchet.agent.project import Project
from ratchet.infra.settings import Settings


def first_day_candidate(project: Project) -> Candidate:
    """Everything as the user's code has it, on the project's LM or the settings' one."""
    settings = Settings()
    model = project.model or (settings.lm if project.agent is None else None)
    address = address_of(model, settings.lm_api_base) if model else None
    return first_candidate(project, model, address)
