"""What the registry knows of its versions by which a trace tells which of them made it.

Why the whole history and not the champion alone: a trace may be read days later, when another version serves.
"""

from ratchet.agent.candidate import Candidate
from ratchet.agent.part_values import prompt_text
from ratchet.infra.mlflow_client import all_pages, connect, mlflow_errors
from ratchet.infra.registry.prompts import PROMPTS
from ratchet.infra.registry.registry import version_history
from ratchet.infra.registry.version import CANDIDATE
from ratchet.infra.traces.dialects.span import decoded
from ratchet.infra.traces.foreign import KnownVersions


def known_versions(project: str) -> KnownVersions:
    """Prompts of every version, as they are served.

    Raises:
        ServiceUnavailable: MLflow did not answer.
    """
    with mlflow_errors("reading which prompts the versions serve by"):
        client = connect(project).client
        found = all_pages(client.search_model_versions, f"name = '{project}'", max_results=1000)
        told = {one.tags[CANDIDATE]: decoded(one.tags.get(PROMPTS)) for one in found if CANDIDATE in one.tags}
    prompts = {
        candidate_id: {str(name): str(version) for name, version in served.items()}
        for candidate_id, served in told.items()
        if isinstance(served, dict)
    }
    texts = {one.candidate_id: _texts(one.candidate) for one in version_history(project)}
    return KnownVersions(prompts=prompts, texts=texts)


def _texts(candidate: Candidate) -> dict[str, str]:
    """Of a module the instructions: DSPy puts examples into messages of their own."""
    return {
        name: one.instructions if candidate.kind == "module" else prompt_text(one)
        for name, one in candidate.predictors.items()
    }
