"""Versions of the agent: every candidate ever made, what was found out about it, and which one serves.

Why aliases: to deploy is to move `champion`; nothing is copied or rebuilt, so that going back is the same one
move. The aliases of one promotion move together or not at all (see `alias_moves`).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from mlflow.exceptions import MlflowException

from ratchet.agent.candidate import Candidate
from ratchet.agent.errors import BadInput
from ratchet.agent.record import Record, digest_of_ids
from ratchet.evaluation.data.intervals import Interval
from ratchet.evaluation.gate.verdict import Verdict
from ratchet.infra.mlflow_client import Connection, connect, mlflow_errors
from ratchet.infra.registry import prompts, version_page
from ratchet.infra.registry.alias_moves import current_aliases, point
from ratchet.infra.registry.alias_names import CHALLENGER, CHAMPION, PREVIOUS
from ratchet.infra.registry.probes import prove_version
from ratchet.infra.registry.promotion import promote, roll_back
from ratchet.infra.registry.run_documents import keep
from ratchet.infra.registry.version import (
    CANDIDATE,
    DIGEST,
    EVALUATION,
    Evaluation,
    Event,
    Listing,
    Version,
    all_versions,
    cost_per_point,
    find_or_none,
    find_version,
    locked,
    numbered,
    read_evaluation,
    read_version,
    seen_cases,
)
from ratchet.infra.registry.version_files import fetch_files, file_digest
from ratchet.infra.store.dataset_store import DatasetVersion

__all__ = [
    "Event",
    "Version",
    "aliased",
    "champion",
    "fetch_files",
    "promote",
    "record_evaluation",
    "record_settings",
    "register",
    "roll_back",
    "seen_case_ids",
    "set_alias",
    "version_history",
    "version_of",
]


def register(
    project: str,
    candidate: Candidate,
    *,
    files: Mapping[str, Path],
    seen_case_ids: Sequence[str],
    cost: Mapping[str, float],
    dataset: DatasetVersion | None = None,
    documents: Mapping[str, str] = MappingProxyType({}),
) -> Version:
    """Make the candidate a version; the same candidate again is the same version, whatever else is given.

    Args:
        project: Experiment and registered model.
        candidate: What is registered.
        files: Name to file or folder: the adapter, the memory snapshot.
        seen_case_ids: Cases that its proposer saw: the gate must never draw them.
        cost: What it took to make, by unit (`seconds`, `lm_calls`, `usd`).
        dataset: What its proposer learned from; logged as the run's input.
        documents: File name to text, kept beside the candidate: the version in the form of its framework.

    Raises:
        BadInput: a file is missing, or the adapter's content is not what the candidate says.
    """
    digests = {name: file_digest(name, path, candidate) for name, path in files.items()}
    with mlflow_errors(f"registering candidate {candidate.candidate_id}"):
        connection = connect(project)
        with locked(connection):
            found = find_or_none(connection, candidate.candidate_id)
            if found is None:
                prompts.claim_prompts(connection, candidate)
                facts = _facts(candidate, seen_case_ids, cost, dataset, digests)
                run_id = version_page.write_run(
                    connection,
                    candidate,
                    tags=facts,
                    seen_case_ids=seen_case_ids,
                    cost=cost,
                    dataset=dataset,
                    documents=documents,
                )
                made = _create(connection, candidate, run_id, files, len(set(seen_case_ids)), cost)
                found = _first_of(connection, made)
        return read_version(connection, found)


def _facts(
    candidate: Candidate,
    seen_case_ids: Sequence[str],
    cost: Mapping[str, float],
    dataset: DatasetVersion | None,
    digests: Mapping[str, str],
) -> dict[str, str]:
    return {
        CANDIDATE: candidate.candidate_id,
        "proposer": candidate.origin.proposer,
        "parent": candidate.parent or "",
        "data_digest": candidate.origin.data_digest or (dataset.digest if dataset else ""),
        "seen_cases_digest": digest_of_ids(seen_case_ids),
        "n_seen_cases": str(len(set(seen_case_ids))),
        "cost": json.dumps(dict(cost)),
        **{f"{DIGEST}{name}": digest for name, digest in digests.items()},
    }


def _create(
    connection: Connection,
    candidate: Candidate,
    run_id: str,
    files: Mapping[str, Path],
    n_seen: int,
    cost: Mapping[str, float],
) -> Listing:
    named = prompts.write_prompts(connection, candidate, run_id)
    model_id = version_page.write_model(connection, candidate, run_id, files)
    connection.client.set_terminated(run_id)
    _ensure_model(connection, candidate)
    made = connection.client.create_model_version(
        connection.project,
        source=f"models:/{model_id}",
        run_id=run_id,
        model_id=model_id,
        tags=version_page.how_made(candidate, n_seen, cost, named),
        description=candidate.origin.note or f"Made by {candidate.origin.proposer}; not evaluated yet.",
    )
    return numbered(connection, int(made.version))


def _first_of(connection: Connection, made: Listing) -> Listing:
    """The version of the candidate, which another home may have made at the same moment; then ours goes."""
    first = find_version(connection, made.candidate_id)
    if first.number == made.number:
        return first
    client = connection.client
    client.delete_model_version(connection.project, str(made.number))
    if made.model_id != first.model_id:
        client.delete_logged_model(made.model_id)
    if made.run_id != first.run_id:
        version_page.forget_run(connection, made.run_id)
    return first


def _ensure_model(connection: Connection, candidate: Candidate) -> None:
    """The project's model, which says what parts it has: so a process that serves finds it by a part."""
    client, name, parts = connection.client, connection.project, prompts.part_tags(candidate)
    try:
        client.create_registered_model(
            name, tags=parts, description="Candidates of one agent; `champion` serves."
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        known = client.get_registered_model(name).tags if parts else {}
        for key, value in parts.items():
            if known.get(key) != value:
                client.set_registered_model_tag(name, key, value)


def seen_case_ids(project: str, candidate_id: str) -> frozenset[str]:
    """Cases that the candidate's proposer saw; CorruptRecord where the kept list is not the registered one."""
    with mlflow_errors(f"reading the seen cases of {candidate_id}"):
        connection = connect(project)
        found = find_version(connection, candidate_id)
        return seen_cases(connection, found)


def version_history(project: str) -> list[Version]:
    """All versions, oldest first; empty where nothing was registered."""
    with mlflow_errors("reading the versions"):
        connection = connect(project)
        pointed = current_aliases(connection)
        found = [
            one._replace(
                aliases=tuple(sorted(name for name, number in pointed.items() if number == one.number))
            )
            for one in all_versions(connection)
        ]
        with ThreadPoolExecutor(connection.n_parallel) as pool:
            return list(pool.map(lambda one: read_version(connection, one), found))


def version_of(project: str, candidate_id: str) -> Version:
    """The candidate's version, found by MLflow.

    Raises:
        BadInput: it was never registered.
    """
    with mlflow_errors(f"reading candidate {candidate_id}"):
        connection = connect(project)
        return read_version(connection, find_version(connection, candidate_id))


def champion(project: str) -> Version | None:
    """The version that serves; None before the first promotion."""
    return aliased(project, CHAMPION)


def aliased(project: str, alias: str) -> Version | None:
    """The version that an alias points to."""
    with mlflow_errors(f"reading the {alias}"):
        connection = connect(project)
        number = current_aliases(connection).get(alias)
        if number is None:
            return None
        return read_version(connection, numbered(connection, number))


def set_alias(
    project: str,
    candidate_id: str | None,
    alias: Literal["challenger", "canary"],
    *,
    upstream: str | None = None,
) -> None:
    """Point the alias to a candidate, or (None) to nothing; `champion` moves by `promote` only.

    Who serves challenges nobody: then `challenger` points to nothing.

    Args:
        project: Registered model.
        candidate_id: What the alias is to point to.
        alias: Either gets a share of the traffic.
        upstream: Of a chat endpoint the address at which its adapter must answer; left out, the candidate's.

    Raises:
        BadInput: another model answers where its adapter is asked; or the alias is another.
        ServiceUnavailable: MLflow, or the server of its adapter, does not answer.
    """
    if alias in (CHAMPION, PREVIOUS):
        raise BadInput(f"alias {alias!r} moves by promote and rollback only, which record who and why")
    if candidate_id is not None:
        prove_version(project, candidate_id, upstream=upstream)
    with mlflow_errors(f"moving {alias}"):
        connection = connect(project)
        with locked(connection):
            number = None if candidate_id is None else find_version(connection, candidate_id).number
            if alias == CHALLENGER and number == current_aliases(connection).get(CHAMPION):
                number = None  # another run promoted it meanwhile
            point(connection, alias, number)


def record_evaluation(
    project: str,
    candidate_id: str,
    *,
    scores: Mapping[str, Interval],
    verdict: Verdict | None = None,
    compared_with: str | None = None,
    pictures: Mapping[str, Path] | None = None,
    notes: str = "",
) -> Version:
    """Write what an evaluation found; close the test in the ledger first, else `promote` refuses it.

    What `promote` reads is one document and one tag: a half written evaluation promotes nothing.

    Args:
        project: Registered model.
        candidate_id: What was evaluated.
        scores: Name to mean with its interval.
        verdict: What the gate found.
        compared_with: Candidate id of the champion that was tested, whoever serves by now.
        pictures: Name to image file.
        notes: What else a person should know.

    Raises:
        BadInput: a verdict without the champion that it speaks of.
    """
    if verdict is not None and not compared_with:
        raise BadInput(
            f"verdict {verdict.decision!r} on {candidate_id} names no champion: pass the one that was tested"
        )
    with mlflow_errors(f"recording the evaluation of {candidate_id}"):
        connection = connect(project)
        with locked(connection):
            found = find_version(connection, candidate_id)
            before = read_evaluation(connection, found)
            after = Evaluation(
                scores=before.scores | dict(scores),
                verdict=verdict or before.verdict,
                compared_with=compared_with if verdict else before.compared_with,
                notes=notes or before.notes,
            )
            version_page.write_scores(connection, found.run_id, found.model_id, scores, pictures or {})
            if verdict is not None:
                cost = json.loads(found.facts.get("cost", "{}"))
                version_page.write_worth(connection, found.run_id, cost_per_point(cost, verdict.gain))
            kept = keep(connection, found.run_id, EVALUATION, after.to_json())
            connection.client.set_tag(found.run_id, EVALUATION, kept)
            said = verdict.reason if verdict is not None else found.description
            version_page.show_evaluation(connection, found, after, [said, notes])
        return read_version(connection, find_version(connection, candidate_id))


def record_settings(project: str, candidate_ids: Iterable[str], settings: Record) -> None:
    """Write beside each of these versions what the round that made or judged it last was told to do, whole."""
    with mlflow_errors("recording the round's settings"):
        connection = connect(project)
        for candidate_id in candidate_ids:
            run_id = find_version(connection, candidate_id).run_id
            connection.client.log_dict(run_id, settings.model_dump(mode="json"), "settings.json")
