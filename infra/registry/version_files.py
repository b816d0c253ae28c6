"""The files of a candidate (adapter, memory snapshot), fetched once and checked against their hash."""

import hashlib
import re
import shutil
import tempfile
from pathlib import Path
from typing import Final

from mlflow.artifacts import download_artifacts

from ratchet.agent.candidate import Candidate
from ratchet.agent.errors import BadInput, CorruptRecord
from ratchet.agent.record import folder_hash
from ratchet.infra.mlflow_client import Connection, connect, mlflow_errors
from ratchet.infra.registry.version import DIGEST, Listing, digests_of, find_version, read_candidate
from ratchet.infra.registry.version_page import FILES

_HASH: Final = re.compile(r"[0-9a-f]{16}")
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def file_digest(name: str, path: Path, candidate: Candidate) -> str:
    """Content hash of a candidate's file or folder; BadInput if it is not there, or not the one it names."""
    if not path.exists():
        raise BadInput(f"{name} of candidate {candidate.candidate_id} is not at {path}: make it again")
    digest = folder_hash(path) if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    named = _adapters(candidate)
    if name in named and digest != named[name]:
        raise BadInput(
            f"{name} at {path} has hash {digest}, the candidate names {named[name]}: "
            "pass the folder that it was made in"
        )
    return digest


def _adapters(candidate: Candidate) -> dict[str, str | None]:
    """The hash of each adapter, which is part of what the candidate is."""
    named = {f"adapter.{role.name}": role.adapter for role in candidate.topology.roles}
    return named | {"adapter": candidate.adapter}


def fetch_files(project: str, candidate_id: str) -> dict[str, Path]:
    """The files that were registered, by name, from the local cache once they were downloaded.

    Raises:
        CorruptRecord: a file's content is not what was registered, or its tag is not a hash.
    """
    with mlflow_errors(f"fetching the files of {candidate_id}"):
        connection = connect(project)
        found = find_version(connection, candidate_id)
        return files_of(connection, found, read_candidate(connection, found))


def files_of(
    connection: Connection, found: Listing, candidate: Candidate, *, below: str = ""
) -> dict[str, Path]:
    """As `fetch_files`, of a version that was found; only those whose name begins with `below`."""
    digests = {name: digest for name, digest in digests_of(found).items() if name.startswith(below)}
    for name, digest in digests.items():
        _check(found.number, candidate, name, digest)
    return {name: _fetch(connection, found.model_id, name, digest) for name, digest in digests.items()}


def _check(number: int, candidate: Candidate, name: str, digest: str) -> None:
    """Both become parts of paths, and whoever may write to MLflow may write a tag."""
    if not _NAME.fullmatch(name) or not _HASH.fullmatch(digest):
        raise CorruptRecord(
            f"tag {DIGEST}{name} of version {number}'s run is {digest!r:.80} instead of a plain name with "
            "16 hexadecimal digits: somebody changed it in MLflow; put it back, or register the candidate anew"
        )
    named = _adapters(candidate)
    if name in named and digest != named[name]:
        raise CorruptRecord(
            f"{name} is {digest} by its tag, the candidate of version {number} names {named[name]}: "
            "somebody changed the tag in MLflow; put it back, or register the candidate anew"
        )


def _fetch(connection: Connection, model_id: str, name: str, digest: str) -> Path:
    kept = connection.settings.home / "cache" / "files" / digest
    if not kept.exists():
        with tempfile.TemporaryDirectory(dir=_made(kept.parent)) as folder:
            model = connection.client.get_logged_model(model_id)
            place = f"{model.artifact_location}/artifacts/{FILES}/{name}"
            found = download_artifacts(place, dst_path=folder, tracking_uri=connection.settings.tracking_uri)
            Path(shutil.copytree(found, Path(folder) / "copy")).replace(kept)
    inside = list(kept.iterdir())
    one_file = inside[0] if len(inside) == 1 and inside[0].is_file() else None
    if folder_hash(kept) == digest:
        return kept
    if one_file is not None and hashlib.sha256(one_file.read_bytes()).hexdigest()[:16] == digest:
        return one_file
    raise CorruptRecord(
        f"{kept}: {name} is not what was registered ({digest}); delete the folder and fetch it again"
    )


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
