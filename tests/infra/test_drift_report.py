"""The report stands whatever the columns hold, and our evidence is its first metric and only test."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ratchet.evaluation.drift.state import DriftState
from ratchet.infra.drift.report import add_to_workspace, build_report, write_report

QUIET = DriftState(
    alarm=False, e_value=3.5, threshold=1_000.0, since=None, n_seen=400, n_windows=8,
    input=3.5, behaviour=0.0, outcome=0.0, families={"novelty": 5.0, "surface": 2.0},
)  # fmt: skip
DRIFTED = QUIET.model_copy(update={"alarm": True, "e_value": 2_500.0, "since": 250, "input": 2_500.0})


def table(n: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "text": [f"where is my card number {i}?" for i in range(n)],
            "tool": rng.choice(["search", "refund"], n),
            "latency_s": rng.gamma(2.0, 1.0, n),
            "outcome": rng.choice([0.0, 1.0, None], n),
        }
    )


def awkward(case: str, n: int = 60) -> pd.DataFrame:
    frame = table(n)
    if case == "an all-null column":
        frame["judge"] = None
    if case == "an all-null text":
        frame["text"] = None
    if case == "72 categories":
        frame["tool"] = [f"tool {i % 72}" for i in range(n)]
    if case == "mixed types":
        frame["tool"] = [i if i % 2 else str(i) + "x" for i in range(n)]
        frame["flag"] = [True if i % 3 else None for i in range(n)]
    if case == "an embedding column":
        frame["vector"] = [np.zeros(384) for _ in range(n)]
    if case == "a wide embedding":
        frame = pd.concat([frame, pd.DataFrame(np.zeros((n, 384)), columns=list(range(384)))], axis=1)
    if case == "times and infinities":
        frame["at"] = pd.Timestamp("2026-01-01")
        frame["cost_usd"] = np.inf
    if case == "a constant":
        frame["steps"] = 1
    return frame


@pytest.mark.parametrize(
    "case",
    ["an all-null column", "an all-null text", "72 categories", "mixed types", "an embedding column",
     "a wide embedding", "times and infinities", "a constant"],
)  # fmt: skip
def test_awkward_columns_do_not_kill_the_report(case: str, tmp_path: Path) -> None:
    report = write_report(table(60), awkward(case), QUIET, tmp_path / "drift.html")
    assert first_metric(report)["value"] == QUIET.e_value
    assert (tmp_path / "drift.html").stat().st_size > 10_000


def test_one_row_on_either_side_is_drawn(tmp_path: Path) -> None:
    write_report(table(60), table(1), QUIET, tmp_path / "a.html")
    write_report(table(1), table(60), QUIET, tmp_path / "b.html")


def test_only_our_evidence_is_tested(tmp_path: Path) -> None:
    for state, status in ((QUIET, "SUCCESS"), (DRIFTED, "FAIL")):
        report = write_report(table(200), table(200, seed=1), state, tmp_path / "drift.html")
        assert [test["status"].value for test in report["tests"]] == [status]
        stored = json.loads((tmp_path / "drift.json").read_text())
        assert len(stored["tests"]) == 1


def test_no_download_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the report tried to reach the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    write_report(table(200), table(200), DRIFTED, tmp_path / "drift.html")


def test_reports_gather_in_one_project_of_a_workspace(tmp_path: Path) -> None:
    snapshot = build_report(table(60), table(60), QUIET)
    first = add_to_workspace(tmp_path, "agent", snapshot)
    second = add_to_workspace(tmp_path, "agent", build_report(table(60), table(60), DRIFTED))
    assert first == second


def first_metric(report: dict[str, Any]) -> dict[str, Any]:
    metric: dict[str, Any] = report["metrics"][0]
    assert "DriftEvidence" in metric["metric_name"]
    return metric


def test_texts_that_are_empty_or_all_the_same_leave_the_report_standing():
    for texts in (["", *[f"parcel {i}" for i in range(59)]], ["hello"] * 60, [""] * 60):
        frame = table(60).assign(text=texts)
        snapshot = build_report(frame, frame, QUIET)
        assert "Drift evidence" in snapshot.get_html_str(as_iframe=False)


def test_a_panel_that_cannot_be_drawn_is_named_in_the_report():
    frame = table(60).assign(text="hello")
    assert "text (After pruning, no terms remain" in build_report(frame, frame, QUIET).json()


def test_markup_in_names_and_values_cannot_end_the_script_that_holds_them(tmp_path):
    planted = "</script><img src=x onerror=alert(1)>"
    frame = table(60).assign(**{planted: ["a", planted] * 30, "text": [f"{planted} {i}" for i in range(60)]})
    path = tmp_path / "drift.html"
    write_report(frame, frame, QUIET.model_copy(update={"families": {planted: 1.0}}), path)
    page = path.read_text()
    assert planted not in page
    assert page.count("\\u003cimg src=x onerror=alert(1)\\u003e") >= 3
    assert planted in path.with_suffix(".json").read_text()
