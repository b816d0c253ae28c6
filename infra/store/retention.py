"""What nobody needs any more below the home: reports, kept results, dataset versions that no lineage names.

What is kept: whatever a version in MLflow says it learned from, whatever a project's state names, the newest of
everything, and whatever was used within the last days, because a run may hold it. All that is removed can be made
again, from MLflow or by calculation. MLflow's and Prefect's own databases are theirs to shrink.
"""

import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from mlflow import MlflowClient
from pydantic import Field

from ratchet.agent.optimize.calls import KEPT_DAYS
from ratchet.agent.record import Record, StageSettings
from ratchet.infra.drift.report import workspace_folder
from ratchet.infra.mlflow_client import all_pages, mlflow_errors
from ratchet.infra.settings import Settings, prepare_environment
from ratchet.infra.stack.mlflow_database import ensure_database
from ratchet.infra.store.collected import GRADES, LABELS, TRACES
from ratchet.infra.store.dataset_files import datasets_folder
from ratchet.infra.store.dataset_log import Manifest, writing
from ratchet.infra.store.dataset_partition import Kind
from ratchet.infra.store.project_state import CALLS, read_state

FileKind = Literal["reports", "kept results", "kept calls", "datasets"]
_DAY_S = 86_400


class Retention(StageSettings):
    """How much is kept."""

    days: float = Field(default=7, ge=1)
    """Whatever was written or used since is kept."""
    reports: int = Field(default=50, ge=1)
    """Newest drift reports of each project, on disk and in Evidently's Workspace."""


class UnneededFile(Record):
    """A file that may go."""

    what: FileKind
    path: Path
    n_bytes: int


def unneeded_files(rules: Retention) -> list[UnneededFile]:
    """Every file below the home that nobody needs any more.

    Raises:
        ServiceUnavailable: MLflow, which knows what versions learned from, did not answer.
        CorruptRecord: a project's state or a manifest is damaged, so that what it names is not known.
    """
    before = time.time() - rules.days * _DAY_S
    home = Settings().home
    found: list[tuple[FileKind, Path]] = [("reports", path) for path in _reports(rules.reports)]
    for folder in (home / "prefect" / "results", home / "prefect" / "storage"):
        found += [("kept results", path) for path in _files(folder) if path.stat().st_mtime < before]
    old = time.time() - max(rules.days, KEPT_DAYS) * _DAY_S
    found += [("kept calls", path) for path in home.glob(f"projects/*/{CALLS}") if path.stat().st_mtime < old]
    found += [("datasets", path) for path in _datasets(_named(), before)]
    return [UnneededFile(what=what, path=path, n_bytes=_size(path)) for what, path in found]


def remove(files: Sequence[UnneededFile]) -> None:
    """Remove them; one that is gone already is no error."""
    for one in files:
        if one.path.is_dir():
            shutil.rmtree(one.path, ignore_errors=True)
        else:
            one.path.unlink(missing_ok=True)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()] if folder.exists() else []


def _size(path: Path) -> int:
    return sum(one.stat().st_size for one in _files(path)) if path.is_dir() else path.stat().st_size


def _reports(keep: int) -> Iterator[Path]:
    """All but the newest of each project: a report is several files of one name, in the Workspace one."""
    home = Settings().home
    for folder in (*home.glob("projects/*/drift"), *workspace_folder().glob("*/snapshots")):
        by_name: dict[str, list[Path]] = {}
        for path in folder.iterdir():
            by_name.setdefault(path.stem, []).append(path)
        newest_first = sorted(by_name.values(), key=lambda paths: max(p.stat().st_mtime for p in paths))[::-1]
        for paths in newest_first[keep:]:
            yield from paths


def _named() -> set[str]:
    """Digests that a version's lineage or a project's state names."""
    prepare_environment()
    uri = Settings().tracking_uri
    named: set[str] = set()
    with mlflow_errors("reading what versions learned from"):
        ensure_database(Settings())
        client = MlflowClient(uri, uri)
        experiments = [str(one.experiment_id) for one in all_pages(client.search_experiments)]
        for run in all_pages(client.search_runs, experiment_ids=experiments) if experiments else ():
            given = run.inputs.dataset_inputs if run.inputs else ()
            named |= {one.dataset.digest for one in given}
    for folder in (Settings().home / "projects").glob("*"):
        state = read_state(folder.name)
        named |= {version.digest for version in (state.traces, state.labels) if version}
    return named


def _datasets(named: set[str], before: float) -> Iterator[Path]:
    for path in datasets_folder().glob("*/*"):
        if path.is_file() and path.stat().st_mtime < before and path.stem not in named:
            yield path
    kinds: tuple[Kind[Any], ...] = (TRACES, LABELS, GRADES)
    for kind in kinds:
        for folder in (datasets_folder() / kind.name).glob("*/"):
            with writing(kind, folder.name):
                yield from _of_log(folder, named, before)


def _of_log(folder: Path, named: set[str], before: float) -> Iterator[Path]:
    """Manifests that nobody names, and partitions that only these name or none."""
    manifests = sorted(folder.glob("*-*.json"))
    old = [path for path in manifests[:-1] if path.stat().st_mtime < before]
    gone = [path for path in old if path.stem.rpartition("-")[2] not in named]
    yield from gone
    needed = {
        f"{part.digest}.parquet"
        for path in sorted(set(manifests) - set(gone))
        for part in Manifest.from_json(path.read_bytes(), where=str(path)).partitions
    }
    for path in (*folder.glob("*.parquet"), *folder.glob(".*.part")):
        if path.name not in needed and path.stat().st_mtime < before:
            yield path
