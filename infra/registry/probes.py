"""Which adapter answers for a version: its probe, kept with it, and the look that must go well first."""

from typing import Final

from pydantic import TypeAdapter, ValidationError

from ratchet.agent.errors import CorruptRecord
from ratchet.agent.lm.probe import Probe
from ratchet.infra.mlflow_client import Connection, connect, mlflow_errors
from ratchet.infra.registry.run_documents import keep, read_kept
from ratchet.infra.registry.version import Listing, digests_of, find_version, read_candidate
from ratchet.infra.registry.version_files import fetch_files

PROBES: Final = "probes"
"""Tag of the run: hash of the newest probes, by the adapters' names."""
_KIND: Final = TypeAdapter(dict[str, Probe])


def prove_version(project: str, candidate_id: str, *, upstream: str | None = None) -> dict[str, Probe]:
    """Load a version's adapters on the server that it asks, and prove that they answer.

    Args:
        project: Registered model.
        candidate_id: The version.
        upstream: Of a chat endpoint its address; left out, the version's own.

    Returns:
        By name the probe of each, as it is kept now; empty where no server has adapters of it.

    Raises:
        BadInput: the server refuses an adapter, or another model answers under its name.
        ServiceUnavailable: the server, or MLflow, does not answer.
    """
    with mlflow_errors(f"reading the adapters of {candidate_id}"):
        connection = connect(project)
        found = find_version(connection, candidate_id)
        if not any(name.startswith("adapter") for name in digests_of(found)):
            return {}
        candidate, known = read_candidate(connection, found), read_probes(connection, found)
        files = fetch_files(project, candidate_id)
    if upstream is None and candidate.kind == "chat":
        upstream = candidate.api_base
    from ratchet.infra.adapter_server import AdapterServer  # with DSPy, for which a reader must not wait

    server = AdapterServer(candidate, files, connection.settings, upstream=upstream)
    proven = server.prove(known)
    if proven != known:
        with mlflow_errors(f"keeping the probes of {candidate_id}"):
            text = _KIND.dump_json(proven).decode()
            connection.client.set_tag(found.run_id, PROBES, keep(connection, found.run_id, PROBES, text))
    return proven


def read_probes(connection: Connection, found: Listing) -> dict[str, Probe]:
    """What tells the version's adapters from their base, by their names; empty where nobody has asked yet.

    Raises:
        CorruptRecord: the document is not what was stored.
    """
    digest = found.facts.get(PROBES)
    if not digest:
        return {}
    text = read_kept(connection, found.run_id, PROBES, digest)
    try:
        return _KIND.validate_json(text)
    except ValidationError as error:
        raise CorruptRecord(
            f"probes {digest} of version {found.number} are no probes: delete the run's tag {PROBES}, and they are "
            "made anew"
        ) from error
