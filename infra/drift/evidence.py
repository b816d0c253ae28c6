"""Our evidence as an Evidently metric with a test, so that it stands first in every report."""

from typing import Any

from evidently.core.datasets import Dataset
from evidently.core.metric_types import SingleValue, SingleValueCalculation, SingleValueMetric
from evidently.core.report import Context
from evidently.legacy.model.widget import BaseWidgetInfo
from evidently.legacy.renderers.html_widgets import CounterData, counter, table_data, text_widget
from evidently.tests import lt

from ratchet.evaluation.drift.attribution import Attribution
from ratchet.evaluation.drift.state import DriftState


class DriftEvidence(SingleValueMetric):  # type: ignore[misc]  # Evidently ships no types
    """Shiryaev–Roberts sum R of the drift monitor; its test fails at R ≥ 1/alpha. No other test decides."""

    e_value: float
    state: str
    """`DriftState` as JSON."""
    attribution: str | None
    """`Attribution` as JSON."""
    left_out: list[str]
    """Columns that the report leaves out, with the reason."""


class DriftEvidenceCalculation(SingleValueCalculation[DriftEvidence]):  # type: ignore[misc]
    """Hands the evidence through and draws it."""

    def calculate(
        self, context: Context, current_data: Dataset, reference_data: Dataset | None
    ) -> SingleValue:
        """The evidence as the metric's value, with its widgets."""
        answer = self.result(self.metric.e_value)
        state = DriftState.model_validate_json(self.metric.state)
        stored = self.metric.attribution
        attribution = Attribution.model_validate_json(stored) if stored else None
        answer.widget = [*_verdict(state, attribution), *_details(attribution, self.metric.left_out)]
        return answer

    def display_name(self) -> str:
        """Title in the report and in its test."""
        return "Drift evidence"


def evidence_metric(state: DriftState, attribution: Attribution | None, left_out: list[str]) -> DriftEvidence:
    """Metric for a `Report`, with its test R < 1/alpha."""
    return DriftEvidence(
        e_value=state.e_value,
        state=state.model_dump_json(),
        attribution=attribution.model_dump_json() if attribution else None,
        left_out=left_out,
        tests=[lt(state.threshold)],
    )


def _verdict(state: DriftState, attribution: Attribution | None) -> list[BaseWidgetInfo]:
    since, bounds = "–" if state.since is None else f"message {state.since:,}", ""
    if attribution is not None:
        change = attribution.onset
        since, bounds = f"message {change.message:,}", f" ({change.low:,} to {change.high:,})"
        bounds += "" if change.at is None else f", {change.at:%Y-%m-%d %H:%M}"
    figures = [
        CounterData("Verdict", "Drift" if state.alarm else "No drift"),
        CounterData(f"Evidence R (alarm at {state.threshold:,.0f})", _figure(state.e_value)),
        CounterData(f"Since{bounds}", since),
        CounterData("Messages seen", f"{state.n_seen:,}"),
        CounterData("Texts read by", state.embedding or "–"),
    ]
    detectors = [
        [name, _figure(value)] for name, value in sorted(state.families.items(), key=lambda kv: -kv[1])
    ]
    return [
        counter(counters=figures, title="Drift evidence"),
        table_data(column_names=["Detector", "R"], data=detectors, title="What carries the evidence"),
    ]


def _figure(value: float) -> str:
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def _details(attribution: Attribution | None, left_out: list[str]) -> list[BaseWidgetInfo]:
    widgets: list[Any] = []
    if attribution is not None:
        widgets.append(text_widget(text=attribution.reason, title="What changed"))
        clusters = [
            [
                c.name,
                "known" if c.known else "new",
                f"{c.share:.0%}",
                f"{c.usual_share:.0%}",
                " · ".join(c.examples),
            ]
            for c in attribution.clusters
        ]
        header = ["Cluster", "Kind", "Share since", "Usual share", "Examples"]
        messages = [[m.text, m.family, f"{m.p:.3f}", m.slice or "–"] for m in attribution.top_messages]
        slices = [
            [s.slice, s.n, f"{s.strange_share:.0%} ({s.low:.0%} to {s.high:.0%})"] for s in attribution.slices
        ]
        for title, names, rows in (
            ("What people ask since then", header, clusters),
            ("Messages that weigh most", ["Message", "Strangest in", "Rank", "Slice"], messages),
            ("Slices", ["Slice", "Messages", "Among the strangest tenth"], slices),
        ):
            if rows:
                widgets.append(table_data(column_names=names, data=rows, title=title))
    if left_out:
        widgets.append(text_widget(text=", ".join(left_out), title="Columns left out of this report"))
    return widgets
