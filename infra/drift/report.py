"""A drift report that people open: Evidently draws every column, our evidence comes first and decides.

Evidently's own verdicts are left out on purpose: its tests are not sequential, switch method with the row
count, and take the reference as exact. A panel that it cannot draw is left out and named.
"""

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pandas as pd

from ratchet.evaluation.drift.attribution import Attribution
from ratchet.evaluation.drift.state import DriftState
from ratchet.infra.drift.report_columns import ReportColumns, prepare_columns
from ratchet.infra.settings import Settings

_MIN_TEXTS: Final = 50
_CHARACTERS: Final = "characters of text"
_NON_LETTERS: Final = "non-letters of text, %"
_DATA: Final = re.compile(r"^ *var (?:additional_graphs_)?metric_[0-9a-f]{32} = .*;$", re.MULTILINE)
_ESCAPES: Final = str.maketrans({mark: f"\\u{ord(mark):04x}" for mark in "<>&"})
_VERDICT: Final = re.compile(r"Data drift (not )?detected\. Drift detection method: ")


def write_report(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    evidence: DriftState,
    path: Path,
    *,
    attribution: Attribution | None = None,
    text_column: str | None = "text",
) -> dict[str, Any]:
    """Write `path` (HTML) and its sibling `.json`; return the report as a dictionary.

    Columns that are empty on either side, hold arrays or times, or exceed forty, are left out and listed in
    the report. Of more than 5,000 rows a fixed random sample is drawn; our evidence is over all of them.
    """
    snapshot = build_report(reference, current, evidence, attribution=attribution, text_column=text_column)
    save_report(snapshot, path)
    answer: dict[str, Any] = snapshot.dict()
    return answer


def save_report(snapshot: Any, path: Path) -> None:
    """Write `path` (HTML) and its sibling `.json`; the HTML appears last and whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").write_text(snapshot.json(), encoding="utf-8")
    partial = path.with_suffix(".partial")
    partial.write_text(_without_markup(snapshot.get_html_str(as_iframe=False)), encoding="utf-8")
    partial.replace(path)


def _without_markup(page: str) -> str:
    """Evidently writes its data into `<script>` as it is, where `</script>` in a request ends the script.

    Each of the two data sets is one line of JSON, which holds `<`, `>` and `&` in strings only.
    """
    escaped, n = _DATA.subn(lambda line: line[0].translate(_ESCAPES), page)
    if n != 2:
        raise RuntimeError(
            f"Evidently's page holds {n} lines of data instead of 2: it is not written unescaped"
        )
    return escaped


def build_report(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    evidence: DriftState,
    *,
    attribution: Attribution | None = None,
    text_column: str | None = "text",
    title: str | None = None,
) -> Any:
    """The report as an Evidently `Snapshot`, to save or to add to a Workspace, where it shows its title."""
    os.environ.setdefault("DO_NOT_TRACK", "1")
    columns = prepare_columns(reference, current, text_column=text_column)
    with _evidently_muted():
        from evidently import Report

        from ratchet.infra.drift.evidence import evidence_metric

        datasets = _datasets(columns)
        drawn = _drawn(columns, datasets)
        metrics = [evidence_metric(evidence, attribution, columns.left_out), *drawn]
        snapshot = Report(metrics).run(*datasets, name=title)
    for widget in snapshot._widgets:
        _without_verdict(widget.params)
    return snapshot


def workspace_folder() -> Path:
    """Evidently's Workspace, for `evidently ui --workspace`."""
    return Settings().home / "evidently"


def add_to_workspace(folder: Path, project_name: str, snapshot: Any) -> str:
    """Add a report to an Evidently Workspace on disk, made where absent; return the project's id."""
    with _evidently_muted():
        from evidently.ui.workspace import Workspace

    workspace = Workspace.create(str(folder))
    found = [project for project in workspace.list_projects() if project.name == project_name]
    project = found[0] if found else workspace.create_project(project_name)
    workspace.add_run(project.id, snapshot)
    return str(project.id)


@contextmanager
def _evidently_muted() -> Iterator[None]:
    """Evidently warns about its own dependencies and about constant columns: nothing a reader can mend."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _without_verdict(params: Any) -> None:
    """Leave a column's distance standing, and take away whether Evidently calls it drift."""
    for counter in params.get("counters", ()) if isinstance(params, dict) else ():
        verdict = _VERDICT.match(counter["label"])
        if verdict is not None:
            counter["label"] = counter["label"][verdict.end() :]
            counter["value"] = counter["value"].removeprefix("Drift in column ").strip("'")


def _drawn(columns: ReportColumns, datasets: list[Any]) -> list[Any]:
    """The metrics that Evidently can compute; a panel that it cannot is listed, and takes no verdict with it."""
    from evidently import Report

    metrics = _column_metrics(columns)
    try:
        Report(metrics).run(*datasets)
        return metrics
    except Exception:  # noqa: BLE001  its metrics raise what their libraries raise; which one, is found below
        drawn = []
        for metric in metrics:
            try:
                Report([metric]).run(*datasets)
                drawn.append(metric)
            except Exception as error:  # noqa: BLE001  said in the report
                columns.left_out.append(f"{getattr(metric, 'column', type(metric).__name__)} ({error})")
        return drawn


def _column_metrics(columns: ReportColumns) -> list[Any]:
    from evidently.metrics import RowCount, ValueDrift

    metrics: list[Any] = [RowCount()]
    for text in columns.texts:
        metrics += [ValueDrift(column=name, method="wasserstein") for name in (_CHARACTERS, _NON_LETTERS)]
        if min(len(columns.current), len(columns.reference)) >= _MIN_TEXTS:
            metrics.append(ValueDrift(column=text, method="abs_text_content_drift"))
    metrics += [ValueDrift(column=name, method="jensenshannon") for name in columns.categories]
    metrics += [ValueDrift(column=name, method="wasserstein") for name in columns.numbers]
    return metrics


def _datasets(columns: ReportColumns) -> list[Any]:
    """Both sides, with the length and the marks of each text: Evidently's own count of them divides by the length."""
    from evidently import DataDefinition, Dataset

    measured = [_CHARACTERS, _NON_LETTERS] if columns.texts else []
    definition = DataDefinition(
        text_columns=columns.texts,
        categorical_columns=columns.categories,
        numerical_columns=[*measured, *columns.numbers],
    )
    sides = []
    for side in (columns.current, columns.reference):
        for text in columns.texts:
            marks = side[text].map(lambda said: sum(not (c.isalpha() or c == " ") for c in said))
            length = side[text].map(len)
            side = side.assign(**{_CHARACTERS: length, _NON_LETTERS: 100 * marks / length.clip(lower=1)})
        sides.append(Dataset.from_pandas(side, data_definition=definition))
    return sides
