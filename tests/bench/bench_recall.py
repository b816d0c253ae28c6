"""Recall from 10⁴, 10⁵ and 10⁶ steps: milliseconds, insert rate, memory; and whether it finds what is of the same kind.

    python tests/bench/bench_recall.py [--steps 10000 100000 1000000] [--hybrid] [--keep FOLDER]
    python tests/bench/bench_recall.py --kinds

Steps are recombined from real messages (`synthetic_steps`). A query is a step of a trajectory that is not stored,
with goal, observation, reasoning and the tools to choose from, k = 6 and a window of ±5. `--hybrid` adds vectors of
384 dimensions, the hashed n-grams of `ratchet.evaluation.data.embedding`: a model's would cost hours for 10⁶ steps, and the index
does not know the difference in time. Every size is measured by a process of its own that only opens the
library; `cpu` is its processor time, which is what an idle machine would need. `--kinds` is `kinds_of_task`.
Exits with 1 where p95 is above 10 ms.
"""

import argparse
import gc
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table
from synthetic_steps import TOOLS, Sources

from ratchet.agent.memory.library import Library, LibraryView
from ratchet.agent.memory.ranking import Query
from ratchet.agent.memory.steps import Experience
from ratchet.evaluation.data.embedding import HashingEmbedding

DIMENSIONS = 384
QUERIES = 500
BOUND_MS = 10.0
INSERTS = 50
"""Trajectories of ten steps that are added one by one at the end, each acknowledged on its own."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--hybrid", action="store_true", help="Words and vectors, not words alone.")
    parser.add_argument("--keep", type=Path, help="Keep the libraries here, and use those that are there.")
    parser.add_argument(
        "--kinds", action="store_true", help="Precision by kind of task, on tau-bench airline."
    )
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        return measure(given.measure, given.steps[0], hybrid=given.hybrid)
    if given.kinds:
        from kinds_of_task import show

        return show()
    slow = False
    with tempfile.TemporaryDirectory(dir="/var/tmp") as temporary:
        for n in given.steps:
            folder = (given.keep or Path(temporary)) / f"{n}{'-hybrid' if given.hybrid else ''}"
            fill(folder, n, hybrid=given.hybrid)
            again = [sys.executable, __file__, "--measure", folder, "--steps", str(n)]
            slow |= bool(subprocess.run([*again, *["--hybrid"] * given.hybrid], check=False).returncode)
    return int(slow)


def opened(folder: Path, sources: Sources, *, hybrid: bool) -> Library:
    if not hybrid:
        return Library(folder)
    texts = sources.texts()
    fitted = HashingEmbedding.fit(texts, dimensions=DIMENSIONS)
    known = dict(zip(texts, fitted(texts), strict=True))  # so that the index is timed, not the embedding

    def embed(asked: Sequence[str]) -> np.ndarray:
        return np.stack([sum(known[line] for line in text.split("\n")) for text in asked])

    return Library(folder, embed=embed, embedding="hashing-384")


def fill(folder: Path, n: int, *, hybrid: bool) -> None:
    sources = Sources()
    with opened(folder, sources, hybrid=hybrid) as library:
        there = len(library)
        if there >= n:
            return
        began, busy = time.perf_counter(), time.process_time()
        library.add(Experience(**fields) for fields in sources.steps(there, n - there))
        seconds, cpu = time.perf_counter() - began, time.process_time() - busy
    rate = (n - there) / seconds
    peak = psutil.Process().memory_info().rss / 2**20
    print(f"{n:,} steps: {rate:,.0f} inserts a second ({(n - there) / cpu:,.0f} a second of processor time), "
          f"{peak:,.0f} MB resident while inserting", flush=True)  # fmt: skip


def measure(folder: Path, n: int, *, hybrid: bool) -> int:
    sources = Sources()
    library = opened(folder, sources, hybrid=hybrid)
    queries = [
        Query(
            **{f: step[f] for f in ("goal", "observation", "thought")},
            offered=TOOLS,
            exclude_case=step["case_id"],
        )
        for step in sources.steps(0, QUERIES * 3, seed=1)
    ][::3]
    gc.collect()
    before = psutil.Process().memory_info()
    for query in queries[:100]:  # the pages that every query needs come from the disk once
        library.recall(query, k=6)
    times = []
    for query in queries[100:]:
        began, busy = time.perf_counter(), time.process_time()
        found = library.recall(query, k=6)
        times.append((time.perf_counter() - began, time.process_time() - busy))
        assert len(found) == 6, f"{len(found)} of 6 recalled"
    after = psutil.Process().memory_info()
    traces = sorted({step.trace_id for step in library.steps()})
    viewed = timed(LibraryView(library, set(traces[::2])), queries[100:])
    inserts = []
    for start in range(0, INSERTS * 10, 10):
        began = time.perf_counter()
        library.add(Experience(**fields) for fields in sources.steps(start, 10, seed=2))
        inserts.append(time.perf_counter() - began)
    theirs = [Experience(**fields, imported_from="imported:x") for fields in sources.steps(0, 1_000, seed=5)]
    library.add(theirs)
    view = LibraryView(library, {step.trace_id for step in theirs})
    imported = timed(view, [query.model_copy(update={"imported": True}) for query in queries[100:]])
    rows = {
        "by the clock": np.array(times)[:, 0] * 1000,
        "of processor time": np.array(times)[:, 1] * 1000,
        "by a proposer, half withheld": viewed,
        "1,000 imported ones alone": imported,
        "insert of 10": np.array(inserts) * 1000,
    }
    show(n, rows, before.rss, after, folder, hybrid=hybrid)
    return int(float(np.percentile(np.array(times)[:, 1] * 1000, 95)) > BOUND_MS)


def timed(view: LibraryView, queries: Sequence[Query]) -> np.ndarray:
    """Milliseconds of processor time that each query takes."""
    times = []
    for query in queries:
        busy = time.process_time()
        view.recall(query, k=6)
        times.append(time.process_time() - busy)
    return np.array(times) * 1000


def show(
    n: int, rows: dict[str, np.ndarray], start: int, after: object, folder: Path, *, hybrid: bool
) -> None:
    table = Table(title=f"{n:,} steps, {'words and vectors' if hybrid else 'words'}", title_justify="left")
    for column in ("recall", "p50 ms", "p95 ms", "p99 ms"):
        table.add_column(column, justify="left" if column == "recall" else "right")
    for name, row in rows.items():
        table.add_row(name, *(f"{value:.2f}" for value in np.percentile(row, [50, 95, 99])))
    disk = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20
    resident, mapped = after.rss / 2**20, after.shared / 2**20
    console = Console(width=110)
    console.print(table)
    console.print(f"resident {resident:,.0f} MB, of it {mapped:,.0f} MB mapped files that the system may drop "
                  f"({start / 2**20:,.0f} MB before the first recall); {disk:,.0f} MB on disk; "
                  f"load {psutil.getloadavg()[0]:.1f} on {psutil.cpu_count()} cores")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
