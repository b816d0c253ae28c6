"""What a person sees of a look for drift: report, timeline and Workspace on disk, and the run's page in MLflow.

Why not a report for each look: to load Evidently and draw takes three times as long as the look itself, and 4 MB.
The numbers go to MLflow each time; a report is drawn when something is to be said, hourly while an alarm stands, and
else daily.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import pandas as pd

from ratchet.agent.trace import Trace
from ratchet.evaluation.data.cases import case_text
from ratchet.evaluation.drift.remembered import tail
from ratchet.evaluation.drift.watch_state import WatchState
from ratchet.evaluation.drift.watching import Traces
from ratchet.infra.drift.log import describe_drift, log_drift
from ratchet.infra.drift.report import add_to_workspace, build_report, save_report, workspace_folder
from ratchet.infra.pictures.drift import draw_drift
from ratchet.infra.store.project_state import project_folder

_SHOWN: Final = 200
"""Newest traces in the report."""
_WORDS: Final = 160
_SENTENCES: Final = 800
_WHILE_ALARMED: Final = timedelta(hours=1)
_WHILE_CALM: Final = timedelta(days=1)


def report_is_due(name: str, state: WatchState, at: datetime) -> bool:
    """Whether a person would want a new report below the project's folder now."""
    if not state.states:
        return False
    pause = _WHILE_ALARMED if state.episodes.open else _WHILE_CALM
    drawn = [path.stat().st_mtime for path in (project_folder(name) / "drift").glob("window_*.html")]
    return bool(state.outbox) or at.timestamp() - max(drawn, default=0.0) >= pause.total_seconds()


def draw_look(name: str, state: WatchState, traces: Traces) -> Path:
    """Report and timeline of the last window, below the project's folder, and in the Workspace; once."""
    number = state.n_windows
    report = project_folder(name) / "drift" / f"window_{number:05d}.html"
    if report.exists():
        return report
    attribution = state.attribution if state.episodes.open else None
    snapshot = build_report(
        as_frame([traces[i] for i in state.reference if i in traces]),
        as_frame([traces[i] for i in shown_traces(state) if i in traces]),
        state.states[-1],
        attribution=attribution,
        title=f"window {number}",
    )
    shown = tail(state.states, state.n_windows - state.first_window)
    draw_drift(shown, report.with_suffix(".png"), attribution=attribution)
    add_to_workspace(workspace_folder(), name, snapshot)
    save_report(snapshot, report)
    return report


def shown_traces(state: WatchState) -> tuple[str, ...]:
    """Ids of the traces that the report shows beside the reference."""
    return tail(state.watched, _SHOWN)


def publish_look(name: str, state: WatchState, report: Path | None) -> None:
    """Every window that MLflow does not have yet, a new report beside the last, and the page's text."""
    owed = state.n_windows - state.published
    windows = zip(tail(state.states, owed), tail(state.times, owed), strict=True)
    for number, (drift, at) in enumerate(windows, start=state.published + 1):
        last = number == state.n_windows
        values = {
            "drift_e_value": drift.e_value,
            "drift_alarm": float(drift.alarm),
            "messages": float(drift.n_seen),
        }
        values |= {
            f"drift_{group}": float(getattr(drift, group)) for group in ("input", "behaviour", "outcome")
        }
        files = (report, {"timeline": report.with_suffix(".png")}) if report and last else (None, {})
        log_drift(name, number, values, *files, at=at)
    describe_drift(name, page_text(state))


def page_text(state: WatchState) -> str:
    """Markdown: whether an alarm stands, since when, what changed, and the messages that weigh most."""
    last = state.states[-1]
    if state.episodes.open is None or state.attribution is None:
        reached = f"evidence {last.e_value:,.1f}, alarm at {last.threshold:,.0f}"
        return f"**No drift** in {last.n_seen:,} messages: {reached}."
    said = state.attribution
    when = "" if said.onset.at is None else f", {said.onset.at:%Y-%m-%d %H:%M}"
    lines = [
        f"**Drift** since message {said.onset.message:,} ({said.onset.low:,} to {said.onset.high:,}{when})",
        "",
        _plain(said.reason, _SENTENCES),
        "",
    ]
    if said.clusters:
        lines += ["**What people ask since then**", ""]
        lines += [
            f"- {_plain(c.name)} ({'known' if c.known else 'new'}): {c.share:.0%} of messages, "
            f"usually {c.usual_share:.0%}"
            for c in said.clusters
        ]
        lines.append("")
    if said.top_messages:
        lines += ["**Messages that weigh most**", ""]
        lines += [f"- {_plain(m.text)} ({m.family}, message {m.message:,})" for m in said.top_messages]
    return "\n".join(lines)


def _plain(text: str, limit: int = _WORDS) -> str:
    """Text from outside as one short cell that no Markdown or HTML in it can leave."""
    flat = " ".join(text.split())
    cut = flat if len(flat) <= limit else flat[: limit - 1] + "…"
    for mark in "\\`*_{}[]<>#|!":
        cut = cut.replace(mark, f"\\{mark}" if mark not in "<>" else {"<": "&lt;", ">": "&gt;"}[mark])
    return cut


def as_frame(traces: Sequence[Trace]) -> pd.DataFrame:
    """Text, tool, outcome, confidence, latency, tokens and attempts, a row per trace."""
    return pd.DataFrame(
        {
            "text": [case_text(t.case) for t in traces],
            "tool": [t.first_action.name if t.first_action else None for t in traces],
            "outcome": [t.first_score for t in traces],
            "confidence": [
                t.attempts[0].steps[0].confidence if t.attempts and t.attempts[0].steps else None
                for t in traces
            ],
            "latency_s": [t.latency_s for t in traces],
            "tokens": [t.usage.input_tokens + t.usage.output_tokens for t in traces],
            "attempts": [len(t.attempts) for t in traces],
        }
    )
