"""What people's queue costs a run when much waits in it: choosing whom to ask about, asking, and reading the replies.

    bench_review.py --items 100000

A queue of so many pending items stands in MLflow's SQLite file, and as many more traces were collected that nobody was
asked about. Written straight into the tables, because MLflow takes 500 items in 4 s; what is measured goes through the
calls that a run makes. Exits with 1 where selection takes 30 s or more.
"""

import argparse
import json
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from synthetic_traces import fill_store, id_of

LIMIT_S = 30.0
NAME = "bench-review"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=100_000)
    n = parser.parse_args().items
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RATCHET_HOME"] = folder
        took = measure(n, Path(folder))
    for what, seconds in took.items():
        print(f"{what:<52} {seconds:8.2f} s")
    late = took["a run: choose, queue, count what waits"]
    print(
        f"{'selection, with ' + format(n, ',') + ' pending items':<52} {late:8.2f} s (goal: under {LIMIT_S:.0f} s)"
    )
    return int(late >= LIMIT_S)


def measure(n: int, home: Path) -> dict[str, float]:
    # imported late: they read the environment
    from ratchet.evaluation.data.selection import SelectionSettings
    from ratchet.infra.mlflow_client import connect
    from ratchet.infra.review.queue import ReviewItem, ask_people, asked_before, pending, waiting
    from ratchet.infra.store.collected import collected_traces, newest_labels, newest_traces
    from ratchet.infra.traces.write import log_traces
    from ratchet.tasks.collect import Collection
    from ratchet.tasks.labels import ask_for_labels, select_traces

    took: dict[str, float] = {}

    def timed(what: str, do: Callable[[], Any]) -> Any:
        begin = time.perf_counter()
        result = do()
        took[what] = time.perf_counter() - begin
        return result

    fill_store(NAME, 2 * n)
    log_traces(NAME, collected_traces(NAME, [id_of(0)]))
    ask_people(NAME, [ReviewItem(trace_id=id_of(0), propensity=1.0, reason="first")])
    fill_queue(connect(NAME), home, [id_of(i) for i in range(n)])
    traces, labels = newest_traces(NAME), newest_labels(NAME)
    collection = Collection(traces=traces, labels=labels, n_new_traces=0, n_new_labels=0)
    settings = SelectionSettings(gate_labels=0, train_labels=60)
    assert len(asked_before(NAME)) == n
    picks = timed("choose 60 traces", lambda: select_traces(NAME, collection, settings))
    assert len(picks) == 60
    log_traces(NAME, collected_traces(NAME, [one.trace_id for one in picks]))
    request = timed(
        "a run: choose, queue, count what waits", lambda: ask_for_labels.fn(NAME, collection, settings)
    )
    assert (request.n_asked, request.n_waiting) == (60, 60)
    again = timed(
        "the next run: nothing new, count what waits", lambda: ask_for_labels.fn(NAME, collection, settings)
    )
    assert again == request
    assert len(timed("list all that waits", lambda: waiting(NAME))) == n + 60
    timed("the first 20 of it, to be shown", lambda: pending(NAME, 20))
    return took


def fill_queue(connection: Any, home: Path, trace_ids: list[str]) -> None:
    """So many pending items, and the picks that say why; the queue itself was made by a run."""
    from ratchet.infra.registry.log import append_event
    from ratchet.infra.review.queue import PICKS

    for start in range(0, len(trace_ids), 500):
        picks = dict.fromkeys(trace_ids[start : start + 500], 0.5)
        append_event(connection, PICKS, json.dumps(picks), about="")
    with sqlite3.connect(home / "mlflow.db") as database:
        (queue_id,) = database.execute("SELECT queue_id FROM review_queues WHERE name = 'review'").fetchone()
        database.executemany(
            "INSERT OR IGNORE INTO review_queue_items (queue_id, item_type, item_id, status, creation_time_ms,"
            " last_update_time_ms) VALUES (?, 'trace', ?, 'pending', ?, ?)",
            [(queue_id, f"tr-{one}", 1000 + n, 1000 + n) for n, one in enumerate(trace_ids)],
        )


if __name__ == "__main__":
    sys.exit(main())
