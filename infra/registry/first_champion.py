"""The first version serves without evidence: there is nothing yet to be better than."""

from collections.abc import Mapping
from types import MappingProxyType

from ratchet.agent.candidate import Candidate
from ratchet.infra.registry.promotion import promote, require_first_day
from ratchet.infra.registry.registry import register
from ratchet.infra.registry.version import Version


def serve_first(
    project: str, candidate: Candidate, documents: Mapping[str, str] = MappingProxyType({})
) -> Version:
    """Register the candidate, with what stands beside it (`register`), and let it serve.

    Raises:
        BadInput: another version served before, and the alias that said which is gone.
    """
    require_first_day(project)
    register(project, candidate, files={}, seen_case_ids=[], cost={}, documents=documents)
    return promote(
        project,
        candidate.candidate_id,
        approved_by="ratchet",
        reason="the first version: nothing served yet",
    )
