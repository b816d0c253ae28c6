"""The small documents of a version's run: kept on this machine after one download, and checked by whoever reads them.

Why checked: what the gate may draw and who may serve is decided by them, and both this machine's copy and MLflow's
artifact can be changed by others.
"""

import re
import shutil
import tempfile
from pathlib import Path
from typing import Final

from mlflow.entities import Run

from ratchet.agent.errors import CorruptRecord
from ratchet.agent.record import content_hash
from ratchet.infra.mlflow_client import Connection

RUN_ID: Final = re.compile(r"[0-9a-f]{32}")


def ensured_run(connection: Connection, kind: str) -> str:
    """Id of the project's one run of this kind, made where absent."""
    found = find_run(connection, kind)
    if found is None:
        made = connection.client.create_run(connection.experiment_id, run_name=kind, tags={"kind": kind})
        connection.client.set_terminated(made.info.run_id)
        found = (
            find_run(connection, kind) or made
        )  # two homes may have made one each: the first is everybody's
    return str(found.info.run_id)


def find_run(connection: Connection, kind: str) -> Run | None:
    """The project's one run of this kind; None where nothing was kept there yet."""
    found = connection.client.search_runs(
        [connection.experiment_id], f"tags.kind = '{kind}'", max_results=1, order_by=["start_time ASC"]
    )
    return found[0] if found else None


def keep(connection: Connection, run_id: str, kind: str, text: str) -> str:
    """Store a text as an artifact that is named by its hash, for a tag to point to; returns the hash."""
    digest = content_hash(text)
    connection.client.log_text(run_id, text, f"{kind}/{digest}.json")
    return digest


def read_kept(connection: Connection, run_id: str, kind: str, digest: str) -> str:
    """What `keep` stored.

    Raises:
        CorruptRecord: it is not what was stored.
    """
    path = run_document(connection, run_id, f"{kind}/{digest}.json")
    text = path.read_text(encoding="utf-8")
    if content_hash(text) != digest:
        what = kind.replace("_", " ")
        raise CorruptRecord(
            f"{path}: not the {what} that was stored ({digest}); delete the file, then repeat"
        )
    return text


def not_registered(path: Path, found: str, recorded: str) -> CorruptRecord:
    """The error for a kept document that is not the registered one."""
    return CorruptRecord(
        f"{path}: holds {found}, which is not what was registered ({recorded}): "
        "delete it, and it is fetched again; if this stays, somebody changed it in MLflow"
    )


def run_document(connection: Connection, run_id: str, name: str) -> Path:
    """A small document of the run; it never changes, so one download is enough. Whoever reads it checks it."""
    if not RUN_ID.fullmatch(run_id) or ".." in Path(name).parts:
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
