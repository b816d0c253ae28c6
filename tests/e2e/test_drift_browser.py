"""An alarm as the person on call meets it: the report and the run's page in MLflow, in a real browser."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.e2e.pictures.screenshots import browser_tab, drift_run, open_page, take

from ratchet.agent.case import Case
from ratchet.agent.environment import Action, Outcome
from ratchet.agent.trace import Attempt, Step, Trace
from ratchet.evaluation.drift.watch_state import WatchSettings
from ratchet.infra.mlflow_client import connect
from ratchet.infra.store.collected import keep_traces, newest_labels
from ratchet.tasks.collect import Collection
from ratchet.tasks.monitor import WatchReport, watch

pytestmark = [pytest.mark.browser, pytest.mark.server, pytest.mark.slow]

NAME = "on-call"
START = datetime(2026, 3, 2, 8, tzinfo=UTC)
ASKED = (
    "where is my new card", "my card was declined at {place}", "how long does a transfer to {place} take",
    "the {place} cash machine kept my card", "why was I charged a fee in {place}",
    "top up by card failed again", "I want to change my PIN", "refund for the hotel in {place} is missing",
)  # fmt: skip
NEW = ("what does a mortgage for a flat in {place} cost", "can I pay the mortgage back early?")
PLACES = ("Oslo", "Bergen", "Molde", "Lund", "Turku", "Narva", "Riga", "Visby", "Umeå")


class Seen(NamedTuple):
    """What the watch came to, and where its page is."""

    watched: WatchReport
    server: str
    experiment_id: str
    run_id: str
    home: Path


def traffic() -> list[Trace]:
    """300 usual requests, then 40 % new ones, from two channels."""
    made = []
    for i in range(480):
        new = i >= 300 and i % 5 < 2
        text = (NEW if new else ASKED)[(i * 7) % (2 if new else 8)].format(place=PLACES[(i * 5) % 9])
        step = Step(observation=text, action=Action(name="reply"), confidence=0.4 if new else 0.9)
        made.append(
            Trace(
                trace_id=f"{i:032x}",
                case=Case(inputs={"request": text}, slice="app" if i % 3 else "phone"),
                candidate_id="c0ffee",
                started_at=START + timedelta(minutes=7 * i),
                latency_s=0.4 + i % 5 / 10,
                attempts=(Attempt(steps=(step,), outcome=Outcome(score=float(i % 5 > 0))),),
            )
        )
    return made


@pytest.fixture(scope="module")
def seen(mlflow_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        patch.setenv("RATCHET_HOME", str(home))
        patch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
        traces = traffic()
        written = keep_traces(NAME, traces), newest_labels(NAME)
        collection = Collection(
            traces=written[0], labels=written[1], n_new_traces=len(traces), n_new_labels=0
        )
        watched = watch.fn(NAME, collection, WatchSettings(window=20, reference=200))
        connection = connect(NAME)
        (run,) = connection.client.search_runs([connection.experiment_id], "tags.kind = 'drift'")
        yield Seen(watched, mlflow_server, connection.experiment_id, run.info.run_id, home)


@pytest.fixture(scope="module")
def tab():
    with browser_tab(1300, 1500) as opened:
        yield opened


def test_the_report_shows_alarm_onset_and_the_messages_that_weigh_most(seen, tab, tmp_path):
    assert seen.watched.alarm
    said = seen.watched.attribution
    assert said.onset.low <= 100 <= said.onset.high
    tab.goto(seen.watched.report.as_uri())
    tab.get_by_text("Drift evidence").first.wait_for()
    tab.get_by_text(said.top_messages[0].text).first.wait_for()
    text = tab.inner_text("body")
    assert f"message {said.onset.message:,}" in text
    assert f"Since ({said.onset.low:,} to {said.onset.high:,}), {said.onset.at:%Y-%m-%d}" in text
    assert "Data drift" not in text  # Evidently draws; it does not decide
    assert said.reason in text
    assert "mortgage" in said.clusters[0].name
    assert all(message.text in text for message in said.top_messages[:5])
    picture(tab, tmp_path / "report.png")


def test_the_page_in_mlflow_shows_alarm_onset_and_the_messages_that_weigh_most(seen, tab, tmp_path):
    said = seen.watched.attribution
    page = drift_run(seen.experiment_id, seen.run_id, ("drift_e_value", "Messages that weigh most"))
    text = open_page(tab, seen.server, page)
    assert f"Drift since message {said.onset.message:,} ({said.onset.low:,} to {said.onset.high:,}" in text
    assert said.top_messages[0].text in text
    assert "mortgage" in text
    take(tab, seen.server, page, tmp_path)


def test_the_workspace_holds_the_report_under_the_projects_name(seen, monkeypatch):
    from evidently.ui.workspace import Workspace

    from ratchet.infra.drift.report import workspace_folder

    monkeypatch.setenv("RATCHET_HOME", str(seen.home))
    workspace = Workspace(str(workspace_folder()))
    (project,) = workspace.list_projects()
    assert project.name == NAME
    assert len(workspace.list_runs(project.id)) == 1


def picture(tab, path: Path) -> None:
    tab.wait_for_timeout(1000)
    tab.screenshot(path=path, full_page=True)
    assert path.stat().st_size > 20_000
