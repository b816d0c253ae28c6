"""Try another LM: the champion's prompts, tools, memory and topology on it, as a challenger like any other.

Why not a setting that replaces the LM: what serves was proven with the LM that it has; another one is another agent,
and has to be shown to be better. Adapters stay behind, they belong to the weights that they were trained for.
"""

from prefect import task

from ratchet.agent.candidate import Candidate, Origin
from ratchet.agent.lm.lm import address_of
from ratchet.agent.project import Project
from ratchet.infra.registry.registry import fetch_files, register, seen_case_ids, version_of
from ratchet.infra.settings import Settings


def require_address(model: str, at: str | None) -> str | None:
    """Where the LM will be asked; `RATCHET_LM_API_BASE` where nothing else is said.

    Raises:
        BadInput: an LM behind an endpoint without an address.
    """
    return address_of(model, at or Settings().lm_api_base)


@task(name="other model")
def on_model(name: str, parent: str, model: str, at: str | None) -> str:
    """Register the parent on another LM; returns its candidate id: the parent's own if that is its LM already."""
    before = version_of(name, parent).candidate
    candidate = moved(before, parent, model, require_address(model, at))
    if candidate.candidate_id == parent:
        return parent
    files = {
        label: path
        for label, path in fetch_files(name, parent).items()
        if label.partition(".")[0] != "adapter"
    }
    seen = sorted(seen_case_ids(name, parent))
    register(name, candidate, files=files, seen_case_ids=seen, cost={})
    return candidate.candidate_id


def moved(before: Candidate, parent: str, model: str, at: str | None) -> Candidate:
    """The candidate on another LM, without adapters; unchanged if that is its LM and its address already."""
    if (before.base_model, before.api_base) == (model, at):
        return before
    roles = tuple(role.model_copy(update={"adapter": None}) for role in before.topology.roles)
    return before.model_copy(
        update={
            "base_model": model,
            "api_base": at,
            "adapter": None,
            "topology": before.topology.model_copy(update={"roles": roles}),
            "parent": parent,
            "origin": Origin(
                proposer="model", note=f"{before.base_model} replaced by {model}, all else kept."
            ),
        }
    )


def unused_model(project: Project, champion: str) -> tuple[str, ...]:
    """One line where `RATCHET_LM` names an LM that does not serve: it made the first champion's, and no other's."""
    settings = Settings()
    serving = version_of(project.name, champion).candidate.base_model
    if project.model or "lm" not in settings.model_fields_set or settings.lm == serving:
        return ()
    return (
        f"RATCHET_LM says {settings.lm}, but the champion is on {serving}: "
        f"`ratchet improve --model {settings.lm}` tries it",
    )
