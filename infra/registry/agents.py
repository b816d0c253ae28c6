"""From a registered version to an agent that acts: its files are fetched, its LM is the settings' one."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ratchet.agent.build import make_agent
from ratchet.agent.candidate import Candidate
from ratchet.agent.kinds.agent import Agent
from ratchet.agent.kinds.chat_endpoint import Chat
from ratchet.agent.lm.probe import Probe
from ratchet.agent.parts import play_within
from ratchet.agent.project import Project
from ratchet.infra.adapter_server import AdapterServer
from ratchet.infra.mlflow_client import untraced
from ratchet.infra.registry.probes import prove_version
from ratchet.infra.registry.registry import fetch_files, version_of
from ratchet.infra.settings import Settings
from ratchet.infra.text_embedding import embedding_named


def load_agent(project: Project, candidate_id: str) -> Agent:
    """The registered candidate, ready to act. Versions never change, so it is kept as long as the project's code."""
    return _loaded(_Keyed(project), candidate_id)


class _Keyed:
    """A project, the same as another of its name with the same agent."""

    def __init__(self, project: Project) -> None:
        self.project = project
        agent = project.agent
        self._key: tuple[str, Any] = (project.name, agent if isinstance(agent, Chat) else id(agent))

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Keyed) and self._key == other._key


@lru_cache(maxsize=8)
def _loaded(keyed: _Keyed, candidate_id: str) -> Agent:
    name = keyed.project.name
    version, files = version_of(name, candidate_id), fetch_files(name, candidate_id)
    play_within(untraced)
    probes = prove_adapters(keyed.project, candidate_id)
    return agent_of(keyed.project, version.candidate, files, Settings(), probes)


def build(project: Project, candidate: Candidate, files: dict[str, Path]) -> Agent:
    """An agent from a candidate and its files; what its own code traces while it is played is not kept."""
    play_within(untraced)
    return agent_of(project, candidate, files, Settings())


def agent_of(
    project: Project,
    candidate: Candidate,
    files: Mapping[str, Path],
    settings: Settings,
    probes: Mapping[str, Probe] = MappingProxyType({}),
) -> Agent:
    """An agent whose adapters, where a server has them, are loaded there and proven to answer.

    Raises:
        BadInput: the server refuses an adapter, or another model answers under its name.
        ServiceUnavailable: it does not answer.
    """
    server = AdapterServer(candidate, files, settings, upstream=upstream_of(project))
    endpoint = settings.endpoint
    if server.adapters:
        proven = server.prove(probes)
        endpoint["load_again"] = lambda: server.prove(proven)
    return make_agent(
        project,
        candidate,
        files,
        endpoint=endpoint,
        embeddings=embedding_named,
        seconds=settings.agent_timeout_s,
    )


def prove_adapters(project: Project, candidate_id: str) -> dict[str, Probe]:
    """As `prove_version`, at the address that the project's agent is asked at."""
    return prove_version(project.name, candidate_id, upstream=upstream_of(project))


def upstream_of(project: Project) -> str | None:
    """The address of a chat endpoint; None of any other agent."""
    return project.agent.upstream if isinstance(project.agent, Chat) else None
