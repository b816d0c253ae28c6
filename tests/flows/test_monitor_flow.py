"""`monitor` on a scripted project: a real Prefect server and a real MLflow over SQLite."""

import json
from contextlib import contextmanager

import pytest
from mlflow.artifacts import load_dict
from prefect.client.orchestration import get_client

from ratchet.agent.environment import Outcome, respond
from ratchet.agent.project import load_project
from ratchet.agent.trace import Attempt, Step
from ratchet.evaluation.drift.watch_state import WatchSettings
from ratchet.flows.improve import improve
from ratchet.flows.monitor import monitor
from ratchet.flows.project_settings import MonitorSettings
from ratchet.infra.drift.log import drift_run_id, last_look
from ratchet.infra.mlflow_client import connect
from ratchet.infra.registry.diversity import read_diversity
from ratchet.infra.traces.write import log_traces
from ratchet.tasks.monitor import start_improve
from ratchet.tasks.serve import first_champion

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("prefect_server")]

SETTINGS = MonitorSettings(watch=WatchSettings(window=20, reference=60))
TOWNS = ("Oslo", "Bergen", "Molde", "Lund", "Turku", "Narva", "Riga")


@pytest.fixture
def usual(make_trace):
    def make(n, text="what is the weather in {town} on day {n}?"):
        return [make_trace(text.format(town=TOWNS[i % 7], n=i), session_id=f"s{i}") for i in range(n)]

    return make


def test_a_project_without_traffic_has_no_drift_and_keeps_its_reference_open(make_project):
    report = monitor(str(make_project().folder), SETTINGS)
    assert (report.new_traces, report.watched.n_windows, report.watched.alarm) == (0, 0, False)


def test_usual_traffic_raises_no_alarm_and_each_window_is_looked_at_once(make_project, usual):
    ours = make_project()
    log_traces(ours.name, usual(105))
    first = monitor(str(ours.folder), SETTINGS)
    assert (first.new_traces, first.watched.n_windows, first.watched.alarm) == (105, 2, False)
    again = monitor(str(ours.folder), SETTINGS)
    assert (again.new_traces, again.watched.n_windows) == (0, 0)
    assert last_look(ours.name).step == 2
    logged = load_dict(f"runs:/{drift_run_id(connect(ours.name))}/settings.json")
    assert MonitorSettings.model_validate(logged) == SETTINGS


def test_changed_traffic_raises_an_alarm_once_with_what_changed(make_project, usual):
    ours = make_project()
    log_traces(ours.name, usual(100))
    monitor(str(ours.folder), SETTINGS)
    log_traces(ours.name, usual(100, "cancel my contract number {n}, please"))
    report = monitor(str(ours.folder), SETTINGS)
    assert report.watched.alarm
    assert [one.event for one in report.watched.announced][:1] == ["opened"]
    assert "cancel" in report.watched.reason
    assert report.watched.report.exists()
    assert monitor(str(ours.folder), SETTINGS).watched.announced == ()


def test_an_alarm_starts_the_deployed_improve_once_with_the_projects_folder(make_project, usual):
    improve.to_deployment("improve").apply()
    ours = make_project()
    log_traces(ours.name, usual(100))
    assert monitor(str(ours.folder), SETTINGS).improve is None
    log_traces(ours.name, usual(100, "cancel my contract number {n}, please"))
    report = monitor(str(ours.folder), SETTINGS)
    with get_client(sync_client=True) as client:
        runs = [run for run in client.read_flow_runs() if "drift" in run.tags]
        assert [(run.name, run.parameters) for run in runs] == [
            (report.improve, {"project": str(ours.folder)})
        ]
        key = report.watched.improve
        assert (
            start_improve.fn(ours.name, str(ours.folder), key) == report.improve
        )  # killed before it was noted
        assert len([run for run in client.read_flow_runs() if "drift" in run.tags]) == 1
    later = monitor(str(ours.folder), SETTINGS)
    assert (later.improve, later.watched.improve) == (None, None)


def test_without_a_deployed_improve_the_alarm_stands_and_says_so(make_project, usual):
    ours = make_project()
    log_traces(ours.name, [*usual(100), *usual(100, "cancel my contract number {n}, please")])
    with temporary_deployment_name("nobody deployed this/improve"):
        report = monitor(str(ours.folder), SETTINGS)
    assert report.watched.alarm
    assert (report.improve, report.watched.improve is not None) == (None, True)


@contextmanager
def temporary_deployment_name(name):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ratchet.tasks.monitor.IMPROVE", name)
        yield


def test_a_corrupt_trace_is_a_problem_and_the_others_are_looked_at(make_project, usual, log_corrupt):
    ours = make_project()
    log_traces(ours.name, usual(3))
    corrupt = log_corrupt(ours.name)
    report = monitor(str(ours.folder), SETTINGS)
    assert report.new_traces == 3
    assert [corrupt in problem and "not a Trace" in problem for problem in report.problems] == [True]


def test_what_cannot_be_read_is_said_at_every_look_and_is_no_all_clear(
    make_project, usual, log_corrupt, ratchet
):
    ours = make_project()
    log_traces(ours.name, usual(105))
    corrupt = log_corrupt(ours.name)
    rules = ("--set", "watch.window=20", "--set", "watch.reference=60")
    done = ratchet("monitor", "--project", ours.folder, *rules)
    assert done.returncode == 3
    assert "1 trace was not looked at" in done.stderr
    assert "no alarm in what can be read" in done.stderr
    again = monitor(str(ours.folder), SETTINGS)
    assert again.unreadable == 1
    assert any(corrupt in one for one in again.problems)
    panel = ratchet("status", "--project", ours.folder)
    assert corrupt in panel.stdout + panel.stderr
    shown = ratchet("alarm", "show", "--project", ours.folder)
    assert (shown.returncode, "1 traces in MLflow cannot be read" in shown.stdout + shown.stderr) == (3, True)
    told = ratchet("status", "--project", ours.folder, "--json")
    assert list(json.loads(told.stdout)["unreadable"]) == [corrupt]
    connect(ours.name).client.delete_traces(connect(ours.name).experiment_id, trace_ids=[f"tr-{corrupt}"])
    assert monitor(str(ours.folder), SETTINGS).unreadable == 0


def test_a_champion_that_says_ever_less_is_told_once_and_stands_in_the_status(
    make_project, make_trace, ratchet
):
    ours = make_project()
    rarely = MonitorSettings(watch=WatchSettings(window=5_000))  # what is asked is another test's business
    name = first_champion(load_project(ours.folder)).candidate_id

    def said(n, start, words):
        texts = [
            " ".join(f"w{(7 * i * k + i) % words}" for k in range(1, 8)) for i in range(start, start + n)
        ]
        return [
            make_trace(f"request {i}", candidate_id=name, session_id=f"s{i}", attempts=answered(text))
            for i, text in enumerate(texts, start)
        ]

    log_traces(ours.name, said(460, 0, 97))
    assert monitor(str(ours.folder), rarely).narrower == ""
    told = json.loads(ratchet("status", "--name", ours.name, "--json").stdout)["diversity"]
    assert (told["narrower"], told["production"]["n_blocks"]) == ("", 6)
    log_traces(ours.name, said(200, 460, 5))
    report = monitor(str(ours.folder), rarely)
    assert "in production its answers became narrower" in report.narrower
    shown = ratchet("status", "--name", ours.name, columns=80)
    assert "became narrower" in " ".join(shown.stderr.split())
    assert monitor(str(ours.folder), rarely).narrower == report.narrower, "it stands, and is not told again"
    assert read_diversity(ours.name, name).told


def answered(text):
    step = Step(observation="a request", action=respond(text))
    return (Attempt(steps=(step,), outcome=Outcome(score=1.0)),)
