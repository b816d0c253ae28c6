"""What a process last knew of its parts, on its own disk: one that starts while MLflow is down begins with that.

Why beside the cache of files and not in MLflow: MLflow is what is missing then.
"""

import logging
from pathlib import Path

from pydantic import TypeAdapter

from ratchet.agent.candidate import Candidate
from ratchet.agent.errors import CorruptRecord
from ratchet.agent.part_values import PartValues, load_memories
from ratchet.agent.record import Record, content_hash
from ratchet.infra.parts.serving import Asked, Known, ServedVersion, Serving
from ratchet.infra.settings import Settings
from ratchet.infra.text_embedding import embedding_named

logger = logging.getLogger(__name__)


class _Version(Record):
    candidate_id: str
    candidate: Candidate
    linked: str
    files: dict[str, Path]


class _Project(Record):
    asked: tuple[tuple[str, str], ...]
    aliases: dict[str, int]
    versions: dict[int, _Version]


_FILE = TypeAdapter(dict[str, _Project])


def keep(settings: Settings, known: Known) -> None:
    """Write it down, where that changes anything; a disk that takes nothing is no failure of the agent."""
    projects = {
        name: _Project(
            asked=tuple(sorted(part for part, project in known.projects.items() if project == name)),
            aliases=dict(one.aliases),
            versions={number: _written(version) for number, version in one.versions.items()},
        )
        for name, one in known.serving.items()
    }
    path, text = _place(settings), _FILE.dump_json(projects)
    try:
        if path.exists() and path.read_bytes() == text:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{content_hash(text.decode())}.part")
        part.write_bytes(text)
        part.replace(path)
    except OSError as error:
        logger.info("what serves is not kept for a start without MLflow: %s", error)


def read_kept(settings: Settings) -> Known:
    """What was written down; nothing where there is none, or it is not whole."""
    path = _place(settings)
    if not path.exists():
        return Known()
    try:
        projects = _FILE.validate_json(path.read_bytes())
        serving = {
            name: Serving(name, one.aliases, {n: _read(n, version) for n, version in one.versions.items()})
            for name, one in projects.items()
        }
    except (OSError, ValueError, CorruptRecord) as error:
        logger.warning("%s is not used: %s", path, error)
        return Known()
    parts = {Asked(*part): name for name, one in projects.items() for part in one.asked}
    return Known(parts, serving)


def _place(settings: Settings) -> Path:
    return settings.home / "cache" / f"parts-{content_hash(settings.tracking_uri)}.json"


def _written(version: ServedVersion) -> _Version:
    candidate = version.values.candidate
    return _Version(
        candidate_id=candidate.candidate_id,
        candidate=candidate,
        linked=version.linked,
        files=dict(version.files),
    )


def _read(number: int, kept: _Version) -> ServedVersion:
    if kept.candidate.candidate_id != kept.candidate_id:
        raise CorruptRecord(f"candidate {kept.candidate_id} is not what was kept")
    memories = load_memories(kept.candidate, kept.files, embedding_named)
    return ServedVersion(number, PartValues(kept.candidate, memories), kept.linked, kept.files)
