"""One registered candidate, read back from MLflow whole: model version, run and tags make one record."""

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from mlflow.entities.model_registry import ModelVersion
from pydantic import Field, TypeAdapter, ValidationError

from agent.candidate import Candidate
from agent.errors import BadInput, CorruptRecord
from agent.record import Record, digest_of_ids
from evaluation.scorers import Interval
from evaluation.verdict import Verdict
from infra.locks import held
from infra.tracking import Connection

DIGEST: Final = "digest."
"""Prefix of the tags that hold a file's content hash."""
_RUN: Final = re.compile(r"[0-9a-f]{32}")
MODEL_ID: Final = "model_id"
"""Tag for the logged model: MLflow's own field of a version comes back empty."""


class Event(Record):
    """One move of an alias onto or off a version."""

    action: Literal["promoted", "replaced", "rolled back", "restored"]
    at: datetime
    by: str
    reason: str
    other: str | None = None
    """Candidate that it replaced, or that replaced it."""


class Version(Record):
    """One registered candidate with everything that was recorded about it."""

    number: int = Field(ge=1)
    candidate: Candidate
    run_id: str
    model_id: str
    created_at: datetime
    aliases: tuple[str, ...] = ()
    scores: dict[str, Interval] = Field(default_factory=dict)
    verdict: Verdict | None = None
    compared_with: str | None = None
    """Candidate id of the champion that the verdict speaks of."""
    notes: str = ""
    cost: dict[str, float] = Field(default_factory=dict)
    digests: dict[str, str] = Field(default_factory=dict)
    """File name to content hash."""
    n_seen_cases: int = 0
    events: tuple[Event, ...] = ()

    @property
    def candidate_id(self) -> str:
        """The id by which everything else names this version."""
        return self.candidate.candidate_id

    @property
    def decision(self) -> str | None:
        """`promote`, `reject`, `continue`, or None while no verdict was recorded."""
        return None if self.verdict is None else self.verdict.decision

    @property
    def reason(self) -> str:
        """The verdict's sentence, or what is known instead."""
        return self.notes if self.verdict is None else self.verdict.reason


def find_or_none(connection: Connection, candidate_id: str) -> ModelVersion | None:
    """MLflow's version of the candidate, with its aliases.

    Where two homes registered it at once, the lower number is the version, for every reader; the other is deleted
    by whoever made it, or, if that one was killed, stays without a meaning.
    """
    found = connection.client.search_model_versions(
        f"name = '{connection.project}' and tags.candidate_id = '{candidate_id}'",
        max_results=1,
        order_by=["version_number ASC"],
    )
    if not found:
        return None
    return connection.client.get_model_version(connection.project, str(found[0].version))


def all_versions(connection: Connection) -> list[ModelVersion]:
    """MLflow's versions without their aliases, oldest first, one for each candidate."""
    found: list[ModelVersion] = []
    token = None
    while True:
        page = connection.client.search_model_versions(
            f"name = '{connection.project}'",
            max_results=1000,
            order_by=["version_number ASC"],
            page_token=token,
        )
        found += page
        token = page.token
        if not token:
            break
    first: dict[str, ModelVersion] = {}
    for version in found:
        first.setdefault(version.tags["candidate_id"], version)
    return list(first.values())


def find_version(connection: Connection, candidate_id: str) -> ModelVersion:
    """MLflow's version of the candidate; BadInput if it was never registered."""
    found = find_or_none(connection, candidate_id)
    if found is None:
        raise BadInput(
            f"candidate {candidate_id} is not registered in {connection.project!r}: see `ratchet history`"
        )
    return found


def read_version(connection: Connection, found: ModelVersion) -> Version:
    """Our record of MLflow's version.

    Raises:
        CorruptRecord: the candidate's document, which is kept on this machine, is not what was registered.
    """
    tags = found.tags
    path = run_document(connection, str(found.run_id), "candidate.json")
    candidate = Candidate.from_json(path.read_bytes(), where=str(path))
    if (candidate.candidate_id, candidate.parent or "") != (tags["candidate_id"], tags.get("parent") or ""):
        raise not_registered(path, f"candidate {candidate.candidate_id}", tags["candidate_id"])
    return Version(
        number=int(found.version),
        candidate=candidate,
        run_id=str(found.run_id),
        model_id=tags[MODEL_ID],
        created_at=datetime.fromtimestamp(found.creation_timestamp / 1000, UTC),
        aliases=tuple(sorted(found.aliases)),
        scores={name: Interval(**score) for name, score in json.loads(tags.get("scores", "{}")).items()},
        verdict=Verdict.model_validate_json(tags["verdict"]) if tags.get("verdict") else None,
        compared_with=tags.get("compared_with") or None,
        notes=tags.get("notes", ""),
        cost=json.loads(tags.get("cost", "{}")),
        digests={k.removeprefix(DIGEST): v for k, v in tags.items() if k.startswith(DIGEST)},
        n_seen_cases=int(tags.get("n_seen_cases", 0)),
        events=tuple(Event(**event) for event in json.loads(tags.get("events", "[]"))),
    )


def seen_cases(connection: Connection, found: ModelVersion) -> frozenset[str]:
    """Cases that the proposer saw, of which the gate must draw none: so only by the digest that was registered.

    Raises:
        CorruptRecord: the list, which is kept on this machine, is not what was registered.
    """
    path = run_document(connection, str(found.run_id), "seen_case_ids.json")
    recorded = found.tags.get("seen_cases_digest", "no digest")
    try:
        ids = TypeAdapter(list[str]).validate_json(path.read_bytes())
    except ValidationError as error:
        raise not_registered(path, "what is no list of case ids", recorded) from error
    if digest_of_ids(ids) != recorded:
        raise not_registered(path, f"the list {digest_of_ids(ids)}", recorded)
    return frozenset(ids)


def not_registered(path: Path, found: str, recorded: str) -> CorruptRecord:
    """The error for a kept document that is not the registered one."""
    return CorruptRecord(
        f"{path}: holds {found}, which is not what was registered ({recorded}): "
        "delete it, and it is fetched again; if this stays, somebody changed it in MLflow"
    )


def run_document(connection: Connection, run_id: str, name: str) -> Path:
    """A small document of the run; it never changes, so one download is enough. Whoever reads it checks it."""
    if not _RUN.fullmatch(run_id) or ".." in Path(name).parts:
        raise CorruptRecord(f"MLflow names {name!r:.80} of run {run_id!r:.80}, which is no document of a run")
    kept = connection.settings.home / "cache" / "runs" / run_id / name
    if not kept.exists():
        with tempfile.TemporaryDirectory() as folder:
            found = Path(connection.client.download_artifacts(run_id, name, folder))
            kept.parent.mkdir(parents=True, exist_ok=True)
            part = kept.with_suffix(".part")
            shutil.copy2(found, part)
            part.replace(kept)
    return kept


@contextmanager
def locked(connection: Connection) -> Iterator[None]:
    """One writer at a time on this machine; MLflow has no lock to offer.

    Raises:
        ServiceUnavailable: another writer has not ended for two minutes.
    """
    path = connection.settings.home / "locks" / f"registry-{connection.project}.lock"
    with held(path, f"a change of {connection.project!r}'s versions", patience_s=120):
        yield
