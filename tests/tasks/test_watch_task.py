"""The watch under fire: killed at every point at which something leaves the house, and two at once."""

import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ratchet.agent.case import Case
from ratchet.evaluation.data.selection import SelectionSettings, UnlabelledTraces, select
from ratchet.evaluation.drift.watch_state import WatchSettings, WatchState
from ratchet.evaluation.drift.watching import look
from ratchet.infra.drift import page
from ratchet.infra.drift.watch_store import read_watch
from ratchet.infra.mlflow_client import connect
from ratchet.infra.store.collected import keep_traces, newest_labels
from ratchet.tasks import monitor
from ratchet.tasks.collect import Collection

START = datetime(2026, 3, 1, tzinfo=UTC)
SETTINGS = WatchSettings(window=20, reference=60)
TOWNS = ("Oslo", "Bergen", "Molde", "Lund", "Turku", "Narva", "Riga")
POINTS = ("before the report", "after the page", "between two windows in MLflow", "after MLflow")


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, str]]]:
    """What the on-call team's webhook received."""
    received: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("RATCHET_ALERT_WEBHOOK", f"http://127.0.0.1:{server.server_port}/")
    yield received
    server.shutdown()
    server.server_close()


@pytest.fixture
def traffic(make_trace):
    """`n` traces in order, of a new kind from number 120 on."""

    def make(n):
        made = []
        for i in range(n):
            usual, new = f"what is the weather in {TOWNS[i % 7]} on day {i % 9}?", f"cancel my contract {i}"
            fields = {"trace_id": f"{i:032x}", "session_id": None, "started_at": START + timedelta(minutes=i)}
            case = Case(inputs={"request": new if i >= 120 else usual}, slice="chat")
            made.append(make_trace(case=case, **fields))
        return made

    return make


def collected(project, traces):
    datasets = keep_traces(project, traces), newest_labels(project)
    return Collection(traces=datasets[0], labels=datasets[1], n_new_traces=len(traces), n_new_labels=0)


def dying(do, after=0, before=True):
    """As `do`, but in its call number `after` + 1 the process ends, before or after it is done."""
    calls = []

    def call(*arguments, **named):
        calls.append(arguments)
        if len(calls) > after and before:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = do(*arguments, **named)
        if not before:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    return call


def look_at_all(name, collection, point, answers):
    if point == "before the report":
        monitor.draw_look = dying(monitor.draw_look)
    elif point == "after the page":
        monitor.send_alert = dying(monitor.send_alert, before=False)
    elif point == "between two windows in MLflow":
        page.log_drift = dying(page.log_drift, after=2)
    elif point == "after MLflow":
        monitor.publish_look = dying(monitor.publish_look, before=False)
    answers.put(monitor.watch.fn(name, Collection.from_json(collection), SETTINGS).n_windows)


@pytest.mark.slow
def test_killed_at_any_point_and_two_at_once_lose_and_double_nothing(project, traffic, pages, spawn):
    first, whole = traffic(180), traffic(240)
    answers = spawn.Queue()

    def start(traces, point):
        given = collected(project, traces).to_json()
        child = spawn.Process(target=look_at_all, args=(project, given, point, answers))
        child.start()
        return child

    for point in POINTS:
        child = start(first, point)
        child.join(timeout=240)
        assert child.exitcode == -signal.SIGKILL, point
    two = [start(whole, "nowhere") for _ in range(2)]
    assert sorted(answers.get(timeout=240) for _ in two) == [0, 3]
    for child in two:
        child.join(timeout=30)
    assert [child.exitcode for child in two] == [0, 0]

    state = read_watch(project)
    alone = look(WatchState(), {t.trace_id: t for t in whole}, (), SETTINGS, START)
    assert (state.states, state.watched, state.drifted) == (alone.states, alone.watched, alone.drifted)
    assert (state.outbox, state.published) == ((), len(state.states))
    assert Counter(one["key"] for one in pages).keys() == {f"{project}-1-opened"}
    steps = metric_steps(project, "drift_e_value")
    assert steps == list(range(1, len(state.states) + 1))


def metric_steps(project: str, name: str) -> list[int]:
    connection = connect(project)
    (run,) = connection.client.search_runs([connection.experiment_id], "tags.kind = 'drift'")
    return sorted(metric.step for metric in connection.client.get_metric_history(run.info.run_id, name))


def test_people_are_asked_where_it_drifted_first_and_the_gates_sample_stays_random(traffic):
    traces = traffic(240)
    state = look(WatchState(), {t.trace_id: t for t in traces}, (), SETTINGS, START)
    settings = SelectionSettings(gate_labels=30, train_labels=40)
    unasked = UnlabelledTraces.of(traces, gate_share=settings.gate_share, salt="p")
    with_drift = select(unasked, settings, drifted=state.drifted)
    without = select(unasked, settings)
    gate = [pick for pick in with_drift if "gate" in pick.reason]
    assert gate == [pick for pick in without if "gate" in pick.reason]
    chosen = [pick for pick in with_drift if "drifted here (" in pick.reason]
    assert len(chosen) == 28  # all that is not drawn at random
    assert all(int(pick.trace_id, 16) >= 120 for pick in chosen)
    assert all(0 < pick.propensity <= 1 for pick in with_drift)
