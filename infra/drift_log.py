"""Drift over time in MLflow: one run per project, one step per look, the report beside it."""

import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from shutil import copy2

from mlflow.entities import Metric, Run

from agent.record import Record
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


class DriftLook(Record):
    """What one look for drift wrote down."""

    step: int
    at: datetime
    values: dict[str, float]
    """By name, as `log_drift` was given them."""


def last_look(project: str) -> DriftLook | None:
    """The newest look; None where nobody looked yet."""
    with mlflow_errors("reading the last look for drift"):
        connection = connect(project)
        found = _find_run(connection)
        if found is None or not found.data.metrics:
            return None
        names = sorted(found.data.metrics)
        history = connection.client.get_metric_history(found.info.run_id, names[0])
    newest = max(history, key=lambda metric: (metric.step, metric.timestamp))
    at = datetime.fromtimestamp(newest.timestamp / 1000, UTC)
    return DriftLook(step=newest.step, at=at, values=dict(found.data.metrics))


def _find_run(connection: Connection) -> Run | None:
    found = connection.client.search_runs([connection.experiment_id], "tags.kind = 'drift'", max_results=1)
    return found[0] if found else None


def _run(connection: Connection) -> str:
    found = _find_run(connection)
    if found is not None:
        return str(found.info.run_id)
    run = connection.client.create_run(connection.experiment_id, run_name="drift", tags={"kind": "drift"})
    connection.client.set_terminated(run.info.run_id)
    return str(run.info.run_id)


def _log_file(connection: Connection, run_id: str, source: Path, name: str, folder: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        copy2(source, Path(scratch) / name)
        connection.client.log_artifacts(run_id, scratch, folder)
