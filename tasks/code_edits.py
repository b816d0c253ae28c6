"""A developer's edits of the code's defaults: registered as a challenger, and tested like any other."""

from collections.abc import Sequence

from ratchet.agent.build import documents_of, first_candidate
from ratchet.agent.candidate import Candidate
from ratchet.agent.optimize.code_edits import HAND, with_edits
from ratchet.agent.project import Project
from ratchet.infra.registry.registry import fetch_files, register, seen_case_ids, version_history
from ratchet.infra.registry.version import Version


def edited_version(project: Project, champion: str) -> str | None:
    """The champion with what the code says now of the parts that were edited; None where none was."""
    versions = version_history(project.name)
    serving = next(one.candidate for one in versions if one.candidate_id == champion)
    code = first_candidate(project, serving.base_model, serving.api_base)
    edited = with_edits(serving, code, _said_before(versions))
    if edited is None:
        return None
    seen = sorted(seen_case_ids(project.name, champion))
    files = fetch_files(project.name, champion)
    documents = documents_of(project, edited)
    made = register(project.name, edited, files=files, seen_case_ids=seen, cost={}, documents=documents)
    return made.candidate_id


def _said_before(versions: Sequence[Version]) -> list[Candidate]:
    """What the code said when it served or was judged: an edit whose test did not end is still one."""
    return [
        one.candidate
        for one in versions
        if one.candidate.origin.proposer == HAND and (one.events or one.decision in ("promote", "reject"))
    ]
