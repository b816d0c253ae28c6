"""Drift over time in MLflow: one run per project, a step per window, reports, and what people ruled.

Why acknowledgements lie here and not in a file: who snoozes an alarm sits elsewhere than the worker that raises it.
"""

import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from shutil import copy2
from typing import Final

from mlflow.entities import Metric

from ratchet.agent.record import Record
from ratchet.evaluation.drift.incidents import Acknowledgement
from ratchet.infra.mlflow_client import Connection, connect, mlflow_errors
from ratchet.infra.registry.run_documents import ensured_run, find_run

_ACKNOWLEDGEMENT: Final = "ruling."
_DESCRIPTION: Final = "mlflow.note.content"
"""The tag that MLflow shows, as Markdown, on top of a run's page."""
_TAG_LIMIT: Final = 5_000


def log_drift(
    project: str,
    step: int,
    values: Mapping[str, float],
    report: Path | None = None,
    pictures: Mapping[str, Path] | None = None,
    *,
    at: datetime | None = None,
) -> str:
    """Add one look to the project's drift run, whose id is returned.

    A step again replaces its files; with the same `at` and values, it adds nothing.
    """
    with mlflow_errors(f"logging drift step {step}"):
        connection = connect(project)
        run_id = drift_run_id(connection)
        now = int((at.timestamp() if at else time.time()) * 1000)
        connection.client.log_batch(
            run_id, metrics=[Metric(name, float(value), now, step) for name, value in values.items()]
        )
        if report is not None:
            _log_file(connection, run_id, report, f"step_{step:05d}{report.suffix}", "reports")
        for name, picture in (pictures or {}).items():
            _log_file(connection, run_id, picture, f"step_{step:05d}_{name}{picture.suffix}", "pictures")
    return run_id


def log_watch_settings(project: str, settings: Record) -> None:
    """Write beside the drift run what the last look was told to do, whole."""
    with mlflow_errors("recording the settings of a look for drift"):
        connection = connect(project)
        run_id = drift_run_id(connection)
        connection.client.log_dict(run_id, settings.model_dump(mode="json"), "settings.json")


def describe_drift(project: str, text: str) -> None:
    """Show this Markdown on top of the drift run's page."""
    with mlflow_errors("describing the drift"):
        connection = connect(project)
        run_id = drift_run_id(connection)
        connection.client.set_tag(run_id, _DESCRIPTION, text[:_TAG_LIMIT])


def add_acknowledgement(project: str, acknowledgement: Acknowledgement) -> None:
    """Record what somebody decided; the next look obeys it."""
    with mlflow_errors("recording an acknowledgement of drift"):
        connection = connect(project)
        connection.client.set_tag(
            drift_run_id(connection),
            f"{_ACKNOWLEDGEMENT}{acknowledgement.ruling_id}",
            acknowledgement.to_json(),
        )


def acknowledgements(project: str) -> list[Acknowledgement]:
    """Everything that was ruled, in order."""
    with mlflow_errors("reading the acknowledgements of drift"):
        found = find_run(connect(project), "drift")
    tags = found.data.tags if found is not None else {}
    told = [
        Acknowledgement.from_json(tags[name], where=name)
        for name in tags
        if name.startswith(_ACKNOWLEDGEMENT)
    ]
    return sorted(told, key=lambda acknowledgement: (acknowledgement.at, acknowledgement.ruling_id))


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
        found = find_run(connection, "drift")
        if found is None or not found.data.metrics:
            return None
        names = sorted(found.data.metrics)
        history = connection.client.get_metric_history(found.info.run_id, names[0])
    newest = max(history, key=lambda metric: (metric.step, metric.timestamp))
    at = datetime.fromtimestamp(newest.timestamp / 1000, UTC)
    return DriftLook(step=newest.step, at=at, values=dict(found.data.metrics))


def drift_run_id(connection: Connection) -> str:
    """Id of the project's drift run, made where absent; call it in `mlflow_errors`."""
    return ensured_run(connection, "drift")


def _log_file(connection: Connection, run_id: str, source: Path, name: str, folder: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        copy2(source, Path(scratch) / name)
        connection.client.log_artifacts(run_id, scratch, folder)
