"""`improve --model`: where another LM is asked, and a word where `RATCHET_LM` names one that does not serve."""

from ratchet.agent.errors import BadInput
from ratchet.agent.kinds.chat_endpoint import Chat, lm_name
from ratchet.agent.lm.of_candidate import address_of
from ratchet.agent.optimize.other_model import OtherModel
from ratchet.agent.project import Project
from ratchet.infra.registry.registry import version_of
from ratchet.infra.settings import Settings


def other_model(project: Project, model: str, at: str | None) -> OtherModel:
    """The challenger on another LM; of a chat endpoint on another model of that endpoint.

    Raises:
        BadInput: an LM without an address, or an address for what has its own.
    """
    if not isinstance(project.agent, Chat):
        return OtherModel(model=model, at=require_address(model, at))
    if at is not None:
        raise BadInput(f"model_at = {at!r}: a chat endpoint is asked at its `upstream`; leave it out")
    return OtherModel(model=lm_name(model), at=project.agent.upstream)


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
    if isinstance(project.agent, Chat) and project.agent.lm != serving:
        return (
            f"the endpoint's model is set to {project.agent.model}, but the champion is on {serving}: set that, or "
            f"`ratchet improve --model {project.agent.model}` tries it",
        )
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
