"""`improve --model`: where another LM is asked, and a word where `RATCHET_LM` names one that does not serve."""

from ratchet.agent.lm.of_candidate import address_of
from ratchet.agent.project import Project
from ratchet.infra.registry.registry import version_of
from ratchet.infra.settings import Settings


def require_address(model: str, at: str | None) -> str | None:
    """Where the LM will be asked; `RATCHET_LM_API_BASE` where nothing else is said.

    Raises:
        BadInput: an LM behind an endpoint without an address.
    """
    return address_of(model, at or Settings().lm_api_base)


def unused_model(project: Project, champion: str) -> tuple[str, ...]:
    """One line where `RATCHET_LM` names an LM that does not serve: it made the first champion's, and no other's."""
    settings = Settings()
    serving = version_of(project.name, champion).candidate.base_model
    if (
        project.agent is not None
        or project.model
        or "lm" not in settings.model_fields_set
        or settings.lm == serving
    ):
        return ()
    return (
        f"RATCHET_LM says {settings.lm}, but the champion is on {serving}: "
        f"`ratchet improve --model {settings.lm}` tries it",
    )
