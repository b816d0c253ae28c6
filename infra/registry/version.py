"""One registered candidate, read back from MLflow whole: model version, its run and the run's documents.

Why the run holds the facts: a version's page shows all of its tags, so only what a person reads stands there; nothing
is decided by it but the candidate's id. Every fact is a tag of the run, or a document that such a tag names by its
hash.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final, Literal, NamedTuple

from mlflow.entities import ViewType
from mlflow.entities.model_registry import ModelVersion
from pydantic import Field, TypeAdapter, ValidationError

from ratchet.agent.candidate import Candidate
from ratchet.agent.errors import BadInput, CorruptRecord
from ratchet.agent.record import Record, digest_of_ids
from ratchet.evaluation.data.intervals import Interval
from ratchet.evaluation.gate.golden import GoldenResult
from ratchet.evaluation.gate.verdict import Verdict
from ratchet.infra.locks import held
from ratchet.infra.mlflow_client import Connection, all_pages
from ratchet.infra.registry.run_documents import RUN_ID, not_registered, read_kept, run_document

DIGEST: Final = "digest."
"""Prefix of the run's tags that hold a file's content hash."""
CANDIDATE: Final = "candidate_id"
EVALUATION: Final = "evaluation"
"""Tag of the run: hash of the newest `Evaluation`."""
GOLDEN: Final = "golden"
"""Tag of the run: the newest `GoldenResult`."""
MOVE: Final = "move."
"""Prefix of the run's tags that hold its `Event`s, numbered."""
_PAGE: Final = 500


MoveKind = Literal["promoted", "replaced", "rolled back", "restored"]


class Event(Record):
    """One move of an alias onto or off a version."""

    action: MoveKind
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
    golden: GoldenResult | None = None
    """How it did on the golden set when it was to be promoted."""
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
    def cost_per_point(self) -> dict[str, float]:
        """What each hundredth of the gain took to make, by unit; empty while nothing is known to be gained."""
        gain = None if self.verdict is None else self.verdict.gain
        return cost_per_point(self.cost, gain)

    @property
    def decision(self) -> str | None:
        """`promote`, `reject`, `continue`, or None while no verdict was recorded."""
        return None if self.verdict is None else self.verdict.decision

    @property
    def reason(self) -> str:
        """The verdict's sentence, or what is known instead."""
        return self.notes if self.verdict is None else self.verdict.reason


def cost_per_point(cost: Mapping[str, float], gain: float | None) -> dict[str, float]:
    """Cost by unit for each hundredth of the gain; empty where nothing was gained."""
    if gain is None or gain <= 0:
        return {}
    return {unit: amount / (100 * gain) for unit, amount in cost.items()}


class Evaluation(Record):
    """All that was found out about a version, as one document: a kill leaves the old one or the new one."""

    scores: dict[str, Interval] = Field(default_factory=dict)
    verdict: Verdict | None = None
    compared_with: str | None = None
    """See `Version.compared_with`."""
    notes: str = ""


class Listing(NamedTuple):
    """A version as MLflow has it: enough to say who served and serves, without reading any document."""

    number: int
    candidate_id: str
    run_id: str
    model_id: str
    created_at: datetime
    description: str
    aliases: tuple[str, ...]
    """Empty where many were searched for at once."""
    facts: dict[str, str]
    """Tags of its run; below them those of the version itself, where an older Ratchet kept them."""

    @property
    def events(self) -> tuple[Event, ...]:
        """Its moves onto and off aliases, oldest first."""
        moves = [json.loads(self.facts[name]) for name in sorted(self.facts) if name.startswith(MOVE)]
        return tuple(Event(**event) for event in json.loads(self.facts.get("events", "[]")) + moves)


def find_or_none(connection: Connection, candidate_id: str) -> Listing | None:
    """The version of the candidate.

    Where two homes registered it at once, the lower number is the version, for every reader; the other is deleted
    by whoever made it, or, if that one was killed, stays without a meaning.
    """
    found = connection.client.search_model_versions(
        f"name = '{connection.project}' and tags.{CANDIDATE} = '{candidate_id}'",
        max_results=1,
        order_by=["version_number ASC"],
    )
    return numbered(connection, int(found[0].version)) if found else None


def numbered(connection: Connection, number: int) -> Listing:
    """The version of that number, with its aliases."""
    found = connection.client.get_model_version(connection.project, str(number))
    return _listings(connection, [found])[0]


def all_versions(connection: Connection) -> list[Listing]:
    """All versions, oldest first, one for each candidate: two searches, however many there are."""
    found = all_pages(
        connection.client.search_model_versions,
        f"name = '{connection.project}'",
        max_results=1000,
        order_by=["version_number ASC"],
    )
    first: dict[str, ModelVersion] = {}
    for version in found:
        first.setdefault(version.tags[CANDIDATE], version)
    return _listings(connection, list(first.values()))


def find_version(connection: Connection, candidate_id: str) -> Listing:
    """The version of the candidate; BadInput if it was never registered."""
    found = find_or_none(connection, candidate_id)
    if found is None:
        raise BadInput(
            f"candidate {candidate_id} is not registered in {connection.project!r}: see `ratchet history`"
        )
    return found


def _listings(connection: Connection, versions: Sequence[ModelVersion]) -> list[Listing]:
    said = _run_tags(connection, [str(version.run_id) for version in versions])
    return [
        Listing(
            number=int(version.version),
            candidate_id=version.tags[CANDIDATE],
            run_id=str(version.run_id),
            model_id=str(version.source).removeprefix("models:/"),
            created_at=datetime.fromtimestamp(version.creation_timestamp / 1000, UTC),
            description=version.description or "",
            aliases=tuple(sorted(version.aliases or ())),
            facts=version.tags | said.get(str(version.run_id), {}),
        )
        for version in versions
    ]


def _run_tags(connection: Connection, run_ids: Sequence[str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    known = [run_id for run_id in run_ids if RUN_ID.fullmatch(run_id)]
    for start in range(0, len(known), _PAGE):
        names = ", ".join(f"'{run_id}'" for run_id in known[start : start + _PAGE])
        runs = connection.client.search_runs(
            [connection.experiment_id], f"attributes.run_id IN ({names})", ViewType.ALL, _PAGE
        )
        found |= {str(run.info.run_id): dict(run.data.tags) for run in runs}
    return found


def read_version(connection: Connection, found: Listing) -> Version:
    """The version with its documents.

    Raises:
        CorruptRecord: a document, which is kept on this machine, is not what was registered.
    """
    facts, candidate = found.facts, read_candidate(connection, found)
    evaluation, cost = read_evaluation(connection, found), facts.get("cost", "{}")
    if not cost.startswith("{"):
        raise CorruptRecord(
            f"run {found.run_id} of version {found.number} is gone: restore MLflow's database"
        )
    return Version(
        number=found.number,
        candidate=candidate,
        run_id=found.run_id,
        model_id=found.model_id,
        created_at=found.created_at,
        aliases=found.aliases,
        scores=evaluation.scores,
        verdict=evaluation.verdict,
        compared_with=evaluation.compared_with,
        notes=evaluation.notes,
        golden=GoldenResult.from_json(facts[GOLDEN], where=f"tag {GOLDEN}") if facts.get(GOLDEN) else None,
        cost=json.loads(cost),
        digests=digests_of(found),
        n_seen_cases=int(facts.get("n_seen_cases", 0)),
        events=found.events,
    )


def read_candidate(connection: Connection, found: Listing) -> Candidate:
    """What the version is.

    Raises:
        CorruptRecord: the document, which is kept on this machine, is not what was registered.
    """
    path = run_document(connection, found.run_id, "candidate.json")
    candidate = Candidate.from_json(path.read_bytes(), where=str(path))
    if (candidate.candidate_id, candidate.parent or "") != (
        found.candidate_id,
        found.facts.get("parent") or "",
    ):
        raise not_registered(path, f"candidate {candidate.candidate_id}", found.candidate_id)
    return candidate


def digests_of(found: Listing) -> dict[str, str]:
    """File name to content hash."""
    return {k.removeprefix(DIGEST): v for k, v in found.facts.items() if k.startswith(DIGEST)}


def read_evaluation(connection: Connection, found: Listing) -> Evaluation:
    """What the last evaluation left, with all scores before it.

    Raises:
        CorruptRecord: the document is not what was stored.
    """
    digest = found.facts.get(EVALUATION)
    if digest:
        text = read_kept(connection, found.run_id, EVALUATION, digest)
        return Evaluation.from_json(text, where=f"evaluation {digest} of version {found.number}")
    old = found.facts  # an older Ratchet's tags
    verdict = old.get("verdict", "")
    return Evaluation(
        scores=json.loads(old.get("scores", "{}")),
        verdict=Verdict.model_validate_json(verdict) if verdict.startswith("{") else None,
        compared_with=old.get("compared_with") or None,
        notes=old.get("notes", ""),
    )


def seen_cases(connection: Connection, found: Listing) -> frozenset[str]:
    """Cases that the proposer saw, of which the gate must draw none: so only by the digest that was registered.

    Raises:
        CorruptRecord: the list, which is kept on this machine, is not what was registered.
    """
    path = run_document(connection, found.run_id, "seen_case_ids.json")
    recorded = found.facts.get("seen_cases_digest", "no digest")
    try:
        ids = TypeAdapter(list[str]).validate_json(path.read_bytes())
    except ValidationError as error:
        raise not_registered(path, "what is no list of case ids", recorded) from error
    if digest_of_ids(ids) != recorded:
        raise not_registered(path, f"the list {digest_of_ids(ids)}", recorded)
    return frozenset(ids)


@contextmanager
def locked(connection: Connection) -> Iterator[None]:
    """One writer at a time on this machine; MLflow has no lock to offer.

    Raises:
        ServiceUnavailable: another writer has not ended for two minutes.
    """
    path = connection.settings.home / "locks" / f"registry-{connection.project}.lock"
    with held(path, f"a change of {connection.project!r}'s versions", patience_s=120):
        yield
