"""From a registered version to an agent that acts: its files are fetched, its LM is the settings' one."""

from functools import lru_cache
from pathlib import Path

from ratchet.agent.candidate import Candidate
from ratchet.agent.kinds.program import Program
from ratchet.agent.team.team import make_program
from ratchet.infra.registry.registry import fetch_files, version_of
from ratchet.infra.settings import Settings
from ratchet.infra.text_embedding import embedding_named


@lru_cache(maxsize=8)
def load_program(project: str, candidate_id: str) -> Program:
    """The registered candidate, ready to act. Versions never change, so it is kept."""
    return build(version_of(project, candidate_id).candidate, fetch_files(project, candidate_id))


def build(candidate: Candidate, files: dict[str, Path]) -> Program:
    """A program from a candidate and its files."""
    return make_program(candidate, files, endpoint=Settings().endpoint, embeddings=embedding_named)
