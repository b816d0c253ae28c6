"""What a run costs when a thousand to a million traces are stored and a hundred are new.

    python tests/bench/bench_scale.py [--traces 1000 10000 100000 1000000]

The stored traces are written straight into the store (`synthetic_traces`); MLflow holds the hundred new ones and a
thousand labels. Each stage runs in a process of its own, of which the table tells processor time, peak of memory and
bytes written outside MLflow (its process's `write_bytes`, whole pages of 4 KB); the time inside MLflow is shown apart,
because it depends on MLflow's database and not on this store. `look` is the monitor's reading and deciding, with
everything but the new traces seen before; `report` draws and publishes it, which Evidently takes its time for;
`curate` is what `improve` does beside models: split, near-duplicates, the datasets that a proposer learns from.
Exits with 1 where a goal is missed: with 10⁶ stored, collect < 2 s, look < 3 s, selection < 10 s, 500 MB; curate at
10⁵ < 60 s.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from synthetic_traces import fill_store, new_traces, see_all, some_labels, write_project

NAME = "scale"
STAGES = ("collect", "collect nothing", "look", "report", "select", "curate")
LIMITS_S = {"collect": 2.0, "collect nothing": 2.0, "look": 3.0, "select": 10.0}
MEMORY_MB = 500
CURATE_AT, CURATE_S = 100_000, 60.0
NEW = 100


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--traces", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--stages", nargs="+", default=STAGES, choices=STAGES)
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--fill", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.fill:
        return fill(given.fill)
    if given.stage:
        print(json.dumps(measure(given.stage)))
        return 0
    table = Table(title=f"{NEW} new traces; MLflow's own time apart")
    for name in ("stored", "stage", "CPU s", "wall s", "MLflow s", "MB at most", "KB written"):
        table.add_column(name, justify="right")
    missed = []
    for n in given.traces:
        with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="ratchet-scale-") as folder:
            for stage in given.stages:
                got = stage_in(Path(folder), n, stage)
                table.add_row(f"{n:,}", stage, *(f"{got[key]:,.1f}" for key in ("cpu", "wall", "mlflow")),
                              f"{got['mb']:,.0f}", f"{got['kb']:,.0f}")  # fmt: skip
                missed += goals_missed(n, stage, got)
    Console(width=110).print(table)
    print("\n".join(missed) or "every goal is met")
    return int(bool(missed))


def goals_missed(n: int, stage: str, got: dict[str, float]) -> list[str]:
    limit = CURATE_S if stage == "curate" and n <= CURATE_AT else LIMITS_S.get(stage)
    missed = []
    if limit is not None and got["cpu"] > limit:
        missed.append(f"{stage} at {n:,}: {got['cpu']:.1f} s, goal {limit:.0f} s")
    if stage in LIMITS_S and got["mb"] > MEMORY_MB:
        missed.append(f"{stage} at {n:,}: {got['mb']:.0f} MB, goal {MEMORY_MB} MB")
    return missed


def stage_in(folder: Path, n: int, stage: str) -> dict[str, float]:
    """The stage's figures, measured in a process of its own; before the first one the store is filled."""
    os.environ["RATCHET_HOME"] = str(folder / "home")
    if not (folder / "project.py").exists():
        write_project(folder, NAME)
        began = time.monotonic()
        alone(folder, "--fill", str(n))
        print(f"{n:,} traces stored in {time.monotonic() - began:.0f} s", file=sys.stderr)
    got: dict[str, float] = json.loads(alone(folder, "--stage", stage).splitlines()[-1])
    return got


def alone(folder: Path, *given: str) -> str:
    """What this file prints in a process of its own."""
    command = [sys.executable, __file__, *given]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(given)} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def fill(n: int) -> int:
    """`n` stored traces, labels on some; in MLflow a champion and a hundred new traces."""
    from ratchet.agent.project import load_project
    from ratchet.infra.traces.write import log_traces
    from ratchet.tasks.serve import first_champion

    fill_store(NAME, n)
    some_labels(NAME, min(n, 1_000))
    see_all(NAME)
    first_champion(load_project(Path.cwd()))
    log_traces(NAME, new_traces(n, NEW))
    return 0


def written() -> int:
    """Bytes that this process has had written."""
    counts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counts["write_bytes"])


def measure(stage: str) -> dict[str, float]:
    """Run the stage here."""
    from ratchet.infra.settings import prepare_environment

    prepare_environment()
    do = prepared(stage)
    spent = [0.0, 0.0, 0.0]
    with mlflow_apart(spent):
        before = used()
        do()
        wall, cpu, size = (now - then for now, then in zip(used(), before, strict=True))
    return {
        "wall": wall - spent[0],
        "cpu": cpu - spent[1],
        "mlflow": spent[0],
        "kb": (size - spent[2]) / 1e3,
        "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }


def used() -> tuple[float, float, float]:
    """Seconds of the clock and of the processor, and bytes written, so far."""
    return time.monotonic(), time.process_time(), float(written())


def prepared(stage: str) -> Callable[[], Any]:
    """The stage, with everything imported that it needs."""
    from ratchet.evaluation.data.curate import CurateSettings
    from ratchet.evaluation.data.selection import SelectionSettings
    from ratchet.evaluation.drift.watch_state import WatchSettings
    from ratchet.infra.drift.watch_store import read_watch
    from ratchet.infra.store.collected import newest_labels, newest_traces
    from ratchet.tasks.collect import Collection, collect_new
    from ratchet.tasks.curate import curate_round
    from ratchet.tasks.labels import select_traces
    from ratchet.tasks.monitor import look_at_new, watch

    if stage.startswith("collect"):
        return lambda: collect_new.fn(NAME)
    now = Collection(traces=newest_traces(NAME), labels=newest_labels(NAME), n_new_traces=NEW, n_new_labels=0)
    if stage == "look":
        state = read_watch(NAME)
        return lambda: look_at_new(NAME, now.traces, state, (), WatchSettings())
    if stage == "report":
        return lambda: watch.fn(NAME, now, WatchSettings())
    if stage == "select":
        return lambda: select_traces(NAME, now, SelectionSettings())
    return lambda: curate_round.fn(str(Path.cwd()), now, CurateSettings(), 0.4)


@contextmanager
def mlflow_apart(spent: list[float]) -> Iterator[None]:
    """Count the time inside MLflow: what our adapters wrap in `mlflow_errors`."""
    import ratchet.tasks.collect
    import ratchet.tasks.curate
    import ratchet.tasks.labels
    import ratchet.tasks.monitor

    def timed(do: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            before = used()
            try:
                return do(*given, **named)
            finally:
                spent[:] = [sum(three) - then for *three, then in zip(spent, used(), before, strict=True)]

        return call

    places = {
        ratchet.tasks.collect: ("collect", "flush_spool"),
        ratchet.tasks.labels: ("asked_before",),
        ratchet.tasks.curate: ("effective_labels", "champion"),
    }
    kept = [(module, name, getattr(module, name)) for module, names in places.items() for name in names]
    for module, name, do in kept:
        setattr(module, name, timed(do))
    try:
        yield
    finally:
        for module, name, do in kept:
            setattr(module, name, do)


if __name__ == "__main__":
    sys.exit(main())
