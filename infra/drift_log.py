"""Drift over time in MLflow: one run per project, one step per look, the report beside it."""

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from shutil import copy2

from mlflow.entities import Metric

from infra.tracking import Connection, connect, mlflow_errors


def log_drift(
    project: str,
    step: int,
    values: Mapping[str, float],
    report: Path | None = None,
    pictures: Mapping[str, Path] | None = None,
) -> str:
    """Add one look to the project's drift run, whose id is returned; a step again replaces its files."""
    with mlflow_errors(f"logging drift step {step}"):
        connection = connect(project)
        run_id = _run(connection)
        now = int(time.time() * 1000)
        connection.client.log_batch(
            run_id, metrics=[Metric(name, float(value), now, step) for name, value in values.items()]
        )
        if report is not None:
            _log_file(connection, run_id, report, f"step_{step:05d}{report.suffix}", "reports")
        for name, picture in (pictures or {}).items():
            _log_file(connection, run_id, picture, f"step_{step:05d}_{name}{picture.suffix}", "pictures")
    return run_id


def _run(connection: Connection) -> str:
    found = connection.client.search_runs([connection.experiment_id], "tags.kind = 'drift'", max_results=1)
    if found:
        return str(found[0].info.run_id)
    run = connection.client.create_run(connection.experiment_id, run_name="drift", tags={"kind": "drift"})
    connection.client.set_terminated(run.info.run_id)
    return str(run.info.run_id)


def _log_file(connection: Connection, run_id: str, source: Path, name: str, folder: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        copy2(source, Path(scratch) / name)
        connection.client.log_artifacts(run_id, scratch, folder)
