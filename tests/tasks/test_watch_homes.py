"""Two homes on one MLflow, and a home that is lost: one watch, one page."""

import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ratchet.agent.case import Case
from ratchet.agent.record import content_hash
from ratchet.evaluation.drift.incidents import Acknowledgement
from ratchet.evaluation.drift.watch_state import Claim, WatchSettings, WatchState
from ratchet.evaluation.drift.watching import look
from ratchet.infra.drift.log import add_acknowledgement, last_look
from ratchet.infra.drift.watch_store import LOG, change_watch, read_watch, watch_lock
from ratchet.infra.mlflow_client import connect
from ratchet.infra.registry.log import newest_events
from ratchet.infra.store.project_state import project_folder
from ratchet.infra.traces.write import log_traces
from ratchet.tasks import monitor as watch_module
from ratchet.tasks.collect import collect_new
from ratchet.tasks.monitor import watch

START = datetime(2026, 3, 1, tzinfo=UTC)
SETTINGS = WatchSettings(window=20, reference=60)
TOWNS = ("Oslo", "Bergen", "Molde", "Lund", "Turku", "Narva", "Riga")


@pytest.fixture
def traffic(make_trace, project):
    """Traces from number `start` on, of a new kind from number 120 on."""

    own = content_hash(project)  # MLflow keeps one trace of an id

    def make(n, start=0, new_from=120):
        made = []
        for i in range(start, start + n):
            usual, new = f"what is the weather in {TOWNS[i % 7]} on day {i % 9}?", f"cancel my contract {i}"
            fields = {"trace_id": f"{own}{i:016x}", "session_id": None}
            fields["started_at"] = START + timedelta(minutes=i)
            case = Case(inputs={"request": new if i >= new_from else usual}, slice="chat")
            made.append(make_trace(case=case, **fields))
        return made

    return make


@pytest.fixture
def pages(monkeypatch):
    """Keys of the alerts that left the house."""
    sent = []

    def send(alert):
        sent.append(alert.key.split("-", 2)[-1])

    monkeypatch.setattr(watch_module, "send_alert", send)
    return sent


@pytest.fixture
def at_home(monkeypatch, tmp_path, mlflow_home, project):
    """Look for drift from a home of one's own, all on one MLflow."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{mlflow_home}/mlflow.db")
    connect(project)  # the project's artifacts lie where the first home says
    return looker(monkeypatch, tmp_path, project)


def looker(monkeypatch, tmp_path, project):
    def look_from(home):
        monkeypatch.setenv("RATCHET_HOME", str(tmp_path / home))
        return watch.fn(project, collect_new.fn(project), SETTINGS)

    return look_from


def forget(tmp_path, home):
    shutil.rmtree(tmp_path / home)


def test_two_homes_count_each_window_once_and_page_once(project, traffic, pages, at_home):
    log_traces(project, traffic(180))
    assert [at_home("a").n_windows, at_home("b").n_windows] == [6, 0]
    log_traces(project, traffic(60, 180))
    first, second = at_home("b"), at_home("a")
    assert (first.n_windows, second.n_windows) == (3, 0)
    assert (first.alarm, second.alarm) == (True, True)
    assert [home.improve is not None for home in (first, second)].count(True) <= 1
    assert len(pages) == len(set(pages)) == 1
    everything = {t.trace_id: t for t in traffic(240)}
    alone = look(WatchState(), everything, (), SETTINGS, START)
    state = read_watch(project)
    assert (state.states, state.watched, state.drifted) == (alone.states, alone.watched, alone.drifted)
    assert last_look(project).step == state.published == 9


def test_a_home_that_is_lost_neither_counts_nor_pages_again_and_goes_on(
    project, traffic, pages, at_home, tmp_path
):
    log_traces(project, traffic(200))
    before = at_home("a")
    assert (before.n_windows, pages) == (7, ["1-opened"])
    kept = read_watch(project)
    forget(tmp_path, "a")
    again = at_home("a")
    assert (again.n_windows, again.announced, again.alarm) == (0, (), True)
    assert unclaimed(read_watch(project)) == unclaimed(kept)
    log_traces(project, traffic(20, 200))
    assert at_home("a").n_windows == 1
    assert pages == ["1-opened"]


def unclaimed(state):
    """Nobody starts `improve` here: each look claims it anew."""
    return state.model_copy(update={"improve_claim": None})


def test_what_was_accepted_stays_accepted_in_a_home_that_knew_nothing_of_it(project, traffic, pages, at_home):
    log_traces(project, traffic(200))
    at_home("a")
    acknowledgement = Acknowledgement(
        ruling_id="r1", kind="accept", at=START, who="ana", why="new product line"
    )
    add_acknowledgement(project, acknowledgement)
    at_home("a")
    log_traces(project, traffic(100, 200))
    seen = at_home("b")
    assert (seen.n_windows, seen.alarm) == (5, False)
    assert pages == ["1-opened", "1-accepted"]
    learned = read_watch(project).reference
    assert sum(int(one[16:], 16) >= 120 for one in learned) >= 55


def test_a_page_is_claimed_before_it_is_sent_and_said_by_another_if_its_sender_died(
    project, traffic, pages, at_home, monkeypatch
):
    class Killed(BaseException):
        """As kill -9 would."""

    def die(alert):
        raise Killed

    log_traces(project, traffic(200))
    with monkeypatch.context() as dying:
        dying.setattr(watch_module, "send_alert", die)
        with pytest.raises(Killed):
            at_home("a")
    assert at_home("b").announced == (), "a may be about to send it"
    with watch_lock(project):
        change_watch(project, lambda state: with_old_claims(state))
    assert [one.event for one in at_home("b").announced] == ["opened"]
    assert at_home("a").announced == ()
    assert pages == ["1-opened"]


def with_old_claims(state):
    old = Claim(by=state.outbox[0].claim.by, at=state.outbox[0].claim.at - timedelta(minutes=10))
    return state.model_copy(
        update={"outbox": tuple(notice.model_copy(update={"claim": old}) for notice in state.outbox)}
    )


def test_a_home_that_died_while_it_sent_sends_again_itself_at_once(
    project, traffic, pages, at_home, monkeypatch
):
    log_traces(project, traffic(200))
    with monkeypatch.context() as dying:
        dying.setattr(watch_module, "send_alert", lambda alert: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            at_home("a")
    assert [one.event for one in at_home("a").announced] == ["opened"]
    assert pages == ["1-opened"]


def test_of_two_that_follow_one_state_the_first_counts_and_the_second_looks_again(
    project, at_home, monkeypatch, tmp_path
):
    def counting(state):
        if state.n_counted == 0:  # while we think, the other home writes
            monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "b"))
            change_watch(project, lambda other: other.model_copy(update={"n_counted": 5}))
            monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "a"))
        return state.model_copy(update={"n_counted": state.n_counted + 1})

    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "a"))
    assert change_watch(project, counting).n_counted == 6
    assert read_watch(project).n_counted == 6
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "b"))
    assert read_watch(project).n_counted == 6
    assert len(newest_events(connect(project), LOG, 10)) == 3


def test_the_watch_of_an_earlier_version_goes_on_and_moves_to_mlflow(
    project, traffic, pages, at_home, tmp_path
):
    log_traces(project, traffic(100))
    everything = {t.trace_id: t for t in traffic(100)}
    now = look(WatchState(), everything, (), SETTINGS, START)
    old = now.model_dump(
        mode="json", exclude={"recent", "n_counted", "n_windows", "learned", "improve_claim", "renewed"}
    )
    old["conduct"].pop("n_seen")
    old |= {"watched": list(now.watched), "retired": [], "learn_from": None, "base": 0, "published": 2}
    home = tmp_path / "a" / "projects" / project
    home.mkdir(parents=True)
    (home / "watch.json").write_text(json.dumps(old))
    log_traces(project, traffic(40, 100))
    assert at_home("a").n_windows == 2
    assert at_home("b").n_windows == 0
    whole = look(WatchState(), {t.trace_id: t for t in traffic(140)}, (), SETTINGS, START)
    assert read_watch(project).states == whole.states


def test_a_state_that_somebody_changed_in_mlflow_is_refused(project, traffic, at_home, tmp_path):
    log_traces(project, traffic(80))
    at_home("a")
    connection = connect(project)
    (run,) = connection.client.search_runs([connection.experiment_id], "tags.kind = 'drift'")
    (tmp_path / "x").mkdir()
    for one in connection.client.list_artifacts(run.info.run_id, "watch"):
        other = tmp_path / "x" / Path(one.path).name
        other.write_bytes(b"no gzip")
        connection.client.log_artifact(run.info.run_id, str(other), "watch")
    forget(tmp_path, "a")
    with pytest.raises(Exception, match="is not the state that version"):
        read_watch(project)


@pytest.mark.server
def test_two_homes_on_a_server_page_once(project, traffic, pages, mlflow_server, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    look_from = looker(monkeypatch, tmp_path, project)
    log_traces(project, traffic(200))
    assert [look_from("a").n_windows, look_from("b").n_windows] == [7, 0]
    forget(tmp_path, "a")
    assert [look_from("a").n_windows, look_from("b").n_windows] == [0, 0]
    assert pages == ["1-opened"]
    assert project_folder(project).exists()


def test_calm_looks_draw_a_report_a_day_and_each_logs_its_numbers(project, traffic, pages, at_home, tmp_path):
    log_traces(project, traffic(80))
    first = at_home("a").report
    assert first is not None
    log_traces(project, traffic(20, 80))
    assert at_home("a").report is None
    assert last_look(project).step == 2
    yesterday = datetime.now(UTC).timestamp() - 86_401
    os.utime(first, (yesterday, yesterday))
    log_traces(project, traffic(20, 100))
    assert at_home("a").report.name == "window_00003.html"
    log_traces(project, traffic(60, 120))
    assert (at_home("a").report is not None, pages) == (True, ["1-opened"]), "whatever the hour"


def test_a_long_absence_is_caught_up_in_portions_with_the_same_numbers(
    project, traffic, pages, at_home, monkeypatch
):
    monkeypatch.setattr(watch_module, "_PORTION", 30)
    log_traces(project, traffic(240))
    assert at_home("a").n_windows == 9
    alone = look(WatchState(), {t.trace_id: t for t in traffic(240)}, (), SETTINGS, START)
    assert read_watch(project).states == alone.states


def test_a_lost_home_counts_nothing_again_when_a_late_trace_lies_early_in_its_order(
    project, traffic, pages, at_home, monkeypatch, tmp_path
):
    monkeypatch.setattr("ratchet.evaluation.drift.watching.RECENT", 50)
    log_traces(project, traffic(140, 1, new_from=999))
    assert at_home("a").n_windows == 4
    (late,) = traffic(1, 0)
    log_traces(project, [late, *traffic(19, 141, new_from=999)])
    assert at_home("a").n_windows == 1
    forget(tmp_path, "a")
    assert at_home("a").n_windows == 0
    log_traces(project, traffic(20, 160, new_from=999))
    assert [at_home("a").n_windows, at_home("b").n_windows] == [1, 0]
