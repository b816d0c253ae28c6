"""Markup that a user of the agent sent is shown as text wherever a person opens it: nothing runs, nothing is fetched."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pytest
from tests.e2e.pictures.screenshots import browser_tab, open_page, review_queue

from ratchet.agent.case import Case
from ratchet.agent.environment import Action, Outcome
from ratchet.agent.trace import Attempt, Step, Trace
from ratchet.evaluation.drift.state import DriftState
from ratchet.evaluation.drift.watch_state import WatchSettings
from ratchet.infra.drift.report import write_report
from ratchet.infra.mlflow_client import connect
from ratchet.infra.review.queue import ReviewItem, ask_people
from ratchet.infra.store.collected import keep_traces, newest_labels
from ratchet.infra.traces.write import log_traces
from ratchet.tasks.collect import Collection
from ratchet.tasks.monitor import watch

pytestmark = [pytest.mark.browser, pytest.mark.server, pytest.mark.slow]

START = datetime(2026, 3, 2, 8, tzinfo=UTC)
RUNS = "<img src=http://elsewhere.example/p.png onerror=alert(1)>"
PLANTED = (
    f"</script>{RUNS} mortgage",
    "<script>alert(2)</script> mortgage <svg onload=alert(3)>",
    f"<!--<script> mortgage {RUNS}",
    "[mortgage](javascript:alert(4)) ![x](http://elsewhere.example/m.png)",
    "<iframe srcdoc='<script>alert(5)</script>'></iframe> mortgage",
)
USUAL = (
    "where is my new card",
    "my card was declined",
    "how long does a transfer take",
    "top up failed again",
)


class Watcher:
    """A tab that notes dialogs and every host that the page asks."""

    def __init__(self, tab) -> None:
        self.tab, self.dialogs, self.hosts = tab, [], set()
        tab.on("dialog", self._noted)
        tab.on("request", lambda request: self.hosts.add(urlsplit(request.url).hostname))

    def _noted(self, dialog) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def settle(self) -> None:
        self.tab.wait_for_timeout(1500)  # what an error handler or a late script would need


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    with browser_tab(1300, 1500) as tab:
        yield Watcher(tab)


def traffic() -> list[Trace]:
    """300 usual requests, then a third that hold markup in request, tool, slice and feedback."""
    made = []
    for i in range(480):
        new = i >= 300 and i % 3 == 0
        text = PLANTED[i % 5] if new else USUAL[i * 7 % 4]
        step = Step(
            observation=text, action=Action(name=RUNS if new else "reply"), confidence=0.4 if new else 0.9
        )
        outcome = Outcome(score=float(i % 5 > 0), feedback=RUNS if new else "")
        made.append(
            Trace(
                trace_id=f"{i:032x}", case=Case(inputs={"request": text}, slice=f"s{RUNS}" if new else "app"),
                candidate_id="c0ffee", started_at=START + timedelta(minutes=7 * i), latency_s=0.4,
                attempts=(Attempt(steps=(step,), outcome=outcome, reflection=RUNS),),
            )
        )  # fmt: skip
    return made


def test_a_report_over_columns_and_values_of_markup_shows_them_as_text(watcher, tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "text": rng.choice(PLANTED, 80),
            f"</script>{RUNS}": rng.choice([RUNS, "</SCRIPT ><script>alert(6)</script>", "a"], 80),
            "<!--<script>": rng.random(80),
            f"empty{RUNS}": [None] * 80,
        }
    )
    quiet = DriftState(
        n_seen=80, n_windows=1, e_value=3.0, threshold=100.0, alarm=False, since=None, families={RUNS: 3.0},
        input=0, behaviour=0, outcome=0,
    )  # fmt: skip
    write_report(frame, frame, quiet, tmp_path / "drift.html")
    watcher.tab.goto((tmp_path / "drift.html").as_uri())
    watcher.settle()
    assert (watcher.dialogs, watcher.hosts - {None, ""}) == ([], set())
    watcher.tab.get_by_text("Drift evidence").first.wait_for()
    assert RUNS in watcher.tab.inner_text("body")


def test_a_look_for_drift_shows_requests_of_markup_as_text_in_report_workspace_and_mlflow(
    watcher, mlflow_server, monkeypatch, tmp_path
):
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    traces, name = traffic(), "markup"
    written = keep_traces(name, traces), newest_labels(name)
    collection = Collection(traces=written[0], labels=written[1], n_new_traces=len(traces), n_new_labels=0)
    watched = watch.fn(name, collection, WatchSettings(window=20, reference=200))
    assert watched.alarm
    assert "mortgage" in str(watched.attribution)
    watcher.tab.goto(watched.report.as_uri())
    watcher.settle()
    assert (watcher.dialogs, watcher.hosts - {None, ""}) == ([], set())
    watcher.tab.get_by_text("Drift evidence").first.wait_for()
    assert PLANTED[0] in watcher.tab.inner_text("body")
    connection = connect(name)
    (run,) = connection.client.search_runs([connection.experiment_id], "tags.kind = 'drift'")
    page = f"{mlflow_server}/#/experiments/{connection.experiment_id}/runs/{run.info.run_id}"
    (copy,) = connection.client.list_artifacts(run.info.run_id, "reports")
    for path in (page, f"{page}/artifacts/{copy.path}"):
        watcher.tab.goto("about:blank")
        watcher.tab.goto(path)
        watcher.settle()
        watcher.settle()
    assert watcher.dialogs == []
    assert "elsewhere.example" not in watcher.hosts


def test_the_review_page_shows_a_request_of_markup_as_text(watcher, mlflow_server, monkeypatch, tmp_path):
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    name, traces = "markup-review", [trace for trace in traffic()[300:345] if trace.action.name == RUNS][:6]
    log_traces(name, traces)
    ask_people(name, [ReviewItem(trace_id=t.trace_id, propensity=1.0, reason=RUNS) for t in traces])
    open_page(watcher.tab, mlflow_server, review_queue(connect(name).experiment_id))
    row = watcher.tab.get_by_text("mortgage").first
    row.wait_for()
    row.click()
    watcher.settle()
    watcher.settle()
    watcher.tab.screenshot(path=str(tmp_path / "review.png"))
    assert "mortgage" in watcher.tab.inner_text("body")
    assert watcher.dialogs == []
    assert "elsewhere.example" not in watcher.hosts
