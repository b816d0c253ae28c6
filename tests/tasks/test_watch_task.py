"""The watch under fire: killed at every point at which something leaves the house, and two at once."""

import json
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ratchet.agent.case import Case
from ratchet.evaluation.data.selection import SelectionSettings, UnlabelledTraces, select
from ratchet.evaluation.drift.watch_state import WatchSettings, WatchState
from ratchet.evaluation.drift.watching import look
from ratchet.infra.drift.watch_store import read_watch
from ratchet.infra.mlflow_client import connect
from ratchet.infra.store.collected import keep_traces, newest_labels
from ratchet.tasks.collect import Collection

ROOT = Path(__file__).parents[2]
START = datetime(2026, 3, 1, tzinfo=UTC)
TOWNS = ("Oslo", "Bergen", "Molde", "Lund", "Turku", "Narva", "Riga")
CHILD = """
import os, signal, sys
import ratchet.infra.drift.page
from ratchet.evaluation.drift.watch_state import WatchSettings
from ratchet.tasks import monitor as module
from ratchet.tasks.collect import Collection

name, collection, point = sys.argv[1], Collection.from_json(sys.argv[2]), sys.argv[3]
calls = 0

def dying(do, after=0):
    def call(*arguments, **named):
        global calls
        calls += 1
        if calls > after:
            os.kill(os.getpid(), signal.SIGKILL)
        return do(*arguments, **named)
    return call

def done_then_dying(do):
    def call(*arguments, **named):
        do(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)
    return call

if point == "before the report":
    module.draw_look = dying(module.draw_look)
elif point == "after the page":
    module.send_alert = done_then_dying(module.send_alert)
elif point == "between two windows in MLflow":
    ratchet.infra.drift.page.log_drift = dying(ratchet.infra.drift.page.log_drift, after=2)
elif point == "after MLflow":
    module.publish_look = done_then_dying(module.publish_look)
print(module.watch.fn(name, collection, WatchSettings(window=20, reference=60)).n_windows)
"""
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


def start(name: str, collection: Collection, point: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", CHILD, name, collection.to_json(), point]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.slow
def test_killed_at_any_point_and_two_at_once_lose_and_double_nothing(project, traffic, pages):
    first, whole = traffic(180), traffic(240)
    for point in POINTS:
        child = start(project, collected(project, first), point)
        _, told = child.communicate(timeout=240)
        assert child.returncode == -signal.SIGKILL, f"{point}: {told[-2000:]}"
    two = [start(project, collected(project, whole), "nowhere") for _ in range(2)]
    answers = [child.communicate(timeout=240) for child in two]
    assert [child.returncode for child in two] == [0, 0], answers
    assert sorted(int(out) for out, _ in answers) == [0, 3]

    state = read_watch(project)
    settings = WatchSettings(window=20, reference=60)
    alone = look(WatchState(), {t.trace_id: t for t in whole}, (), settings, START)
    assert (state.states, state.watched, state.drifted) == (alone.states, alone.watched, alone.drifted)
    assert (state.outbox, state.published) == ((), len(state.states))
    assert Counter(page["key"] for page in pages).keys() == {f"{project}-1-opened"}
    steps = metric_steps(project, "drift_e_value")
    assert steps == list(range(1, len(state.states) + 1))


def metric_steps(project: str, name: str) -> list[int]:
    connection = connect(project)
    (run,) = connection.client.search_runs([connection.experiment_id], "tags.kind = 'drift'")
    return sorted(metric.step for metric in connection.client.get_metric_history(run.info.run_id, name))


def test_people_are_asked_where_it_drifted_first_and_the_gates_sample_stays_random(traffic):
    traces = traffic(240)
    state = look(
        WatchState(), {t.trace_id: t for t in traces}, (), WatchSettings(window=20, reference=60), START
    )
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
