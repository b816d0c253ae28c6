"""What a process that serves knows of its project: which versions the aliases point to, and what they say."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ratchet.agent.part_values import PartValues


class Asked(NamedTuple):
    """A part that the process asks for."""

    kind: str
    """`prompt`, `tool`, `model`, `examples`, or `module`, whose name is the project's."""
    name: str


@dataclass(frozen=True)
class ServedVersion:
    """A registered version, ready to be read."""

    number: int
    values: PartValues
    linked: str
    """Its prompts, as MLflow links them to a trace: JSON [{"name", "version"}]."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """Its experience, by the names that it was registered with."""

    @property
    def candidate_id(self) -> str:
        """Under which its traces are kept."""
        return self.values.candidate.candidate_id


@dataclass(frozen=True)
class Serving:
    """The aliases of a project as MLflow had them at the last look."""

    project: str
    aliases: Mapping[str, int]
    versions: Mapping[int, ServedVersion]
    """Those that `champion` and `challenger` point to, by number."""

    def at(self, alias: str) -> ServedVersion | None:
        """The version that the alias points to."""
        return self.versions.get(self.aliases.get(alias, 0))


@dataclass(frozen=True)
class Known:
    """One answer of MLflow to everything that this process asked for."""

    projects: Mapping[Asked, str | None] = field(default_factory=dict)
    """Part → project; None = no project has it, or several do."""
    serving: Mapping[str, Serving] = field(default_factory=dict)
    """By project."""

    def of(self, asked: Asked) -> Serving | None:
        """What serves the part."""
        project = self.projects.get(asked)
        return None if project is None else self.serving.get(project)
