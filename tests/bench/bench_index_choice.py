"""Which index carries the experience: tantivy, SQLite's FTS5 and bm25s for words, usearch and faiss for vectors.

    pip install --target indexes --no-deps bm25s faiss-cpu
    PYTHONPATH=indexes python tests/bench/bench_index_choice.py [--steps 1000000] [--only tantivy]

Those that are not installed are named and left out. One index a process, so that resident memory is its own. Steps are those of `synthetic_steps`; a query is a step
of trajectories that are not stored. Words: the three fields, OR of all words, best 50 by BM25. Vectors: 384
dimensions, clusters around 20,000 centres (a model's vectors cluster, uniform ones do not), best 50; recall
is against the exact best ten of 100 queries. `fts5-rare` asks for the rarest words only, up to 3,000 postings.
"""

import argparse
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table
from synthetic_steps import Sources

FIELDS = ("goal", "observation", "thought")
BEST = 50
QUERIES = 300
BATCH = 10_000
DIMENSIONS = 384


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--only", choices=[*WORDS, *VECTORS], help="default: all that are installed")
    given = parser.parse_args()
    if given.only is None:
        for name in (*WORDS, *VECTORS):
            if find_spec(package := PACKAGES.get(name, "sqlite3")) is None:
                print(f"{name} is left out: {package} is not installed")
                continue
            again = [sys.executable, __file__, "--steps", str(given.steps), "--only", name]
            subprocess.run(again, check=True)
        return
    table = Table(
        "index", "steps", "insert /s", "p50 ms", "p95 ms", "p95 cpu ms", "resident MB", "disk MB", "recall@10"
    )
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        measure = of_words if given.only in WORDS else of_vectors
        table.add_row(given.only, f"{given.steps:,}", *measure(given.only, given.steps, Path(folder)))
    Console(width=140).print(table)


def row(rate: float, seconds: np.ndarray, folder: Path, recall: str) -> list[str]:
    p50, p95 = np.percentile(seconds[:, 0] * 1000, [50, 95])
    cpu = np.percentile(seconds[:, 1] * 1000, 95)
    resident = psutil.Process().memory_info().rss / 2**20
    disk = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20
    return [
        f"{rate:,.0f}",
        f"{p50:.2f}",
        f"{p95:.2f}",
        f"{cpu:.2f}",
        f"{resident:.0f}",
        f"{disk:.0f}",
        recall,
    ]


def timed(search: Callable[[Any], Any], queries: Sequence[Any]) -> tuple[np.ndarray, list[Any]]:
    """Seconds by the wall and on the processor (what an otherwise idle machine would take) of each query."""
    for query in queries:
        search(query)
    seconds, found = [], []
    for query in queries:
        began, busy = time.perf_counter(), time.process_time()
        found.append(search(query))
        seconds.append((time.perf_counter() - began, time.process_time() - busy))
    return np.array(seconds), found


def of_words(name: str, n: int, folder: Path) -> list[str]:
    sources = Sources()
    batches = (list(sources.steps(at, min(BATCH, n - at))) for at in range(0, n, BATCH))
    began = time.perf_counter()
    search = WORDS[name](batches, folder)
    rate = n / (time.perf_counter() - began)
    queries = list(sources.steps(0, QUERIES, seed=1))
    return row(rate, timed(search, queries)[0], folder, "")


def words(text: str) -> list[str]:
    return sorted(set(re.findall(r"[a-z0-9]+", text.lower())))


def tantivy(batches: Iterator[list[dict[str, Any]]], folder: Path) -> Callable[[dict[str, Any]], Any]:
    import tantivy as t

    builder = t.SchemaBuilder().add_integer_field("id", indexed=True, fast=True)
    for field in FIELDS:
        builder.add_text_field(field, stored=False, tokenizer_name="default", index_option="freq")
    schema = builder.build()
    index = t.Index(schema, path=str(folder))
    writer = index.writer(64_000_000, 1)
    number = 0
    for batch in batches:
        for step in batch:
            number += 1
            writer.add_document(t.Document(id=number, **{field: step[field] for field in FIELDS}))
        writer.commit()
    writer.wait_merging_threads()
    index.reload()
    searcher = index.searcher()
    print("segments", searcher.num_segments)

    def search(step: dict[str, Any]) -> Any:
        terms = [
            (t.Occur.Should, t.Query.term_query(schema, field, word, "freq"))
            for field in FIELDS
            for word in words(step[field])
        ]
        hits = searcher.search(t.Query.boolean_query(terms), BEST, count=False).hits
        return searcher.fast_field_values("id", [address for _, address in hits])

    return search


def fts5(batches: Iterator[list[dict[str, Any]]], folder: Path, *, rare: bool) -> Callable[[Any], Any]:
    db = sqlite3.connect(folder / "steps.db")
    db.executescript(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA mmap_size=2000000000;"
        "CREATE VIRTUAL TABLE steps USING fts5(goal, observation, thought, content='', detail=column);"
    )
    seen: dict[str, int] = {}
    number = 0
    for batch in batches:
        rows = []
        for step in batch:
            number += 1
            rows.append((number, *(step[field] for field in FIELDS)))
            for word in words(" ".join(step[field] for field in FIELDS)):
                seen[word] = seen.get(word, 0) + 1
        with db:
            db.executemany("INSERT INTO steps(rowid, goal, observation, thought) VALUES (?,?,?,?)", rows)

    def search(step: dict[str, Any]) -> Any:
        asked = sorted(words(" ".join(step[field] for field in FIELDS)), key=lambda w: seen.get(w, 0))
        if rare:
            cost = np.cumsum([seen.get(word, 0) for word in asked])
            asked = asked[: max(1, int((cost <= 3000).sum()))]
        text = " OR ".join(f'"{word}"' for word in asked)
        query = "SELECT rowid FROM steps WHERE steps MATCH ? ORDER BY rank LIMIT ?"
        return [r[0] for r in db.execute(query, (text, BEST))]

    return search


def bm25s(batches: Iterator[list[dict[str, Any]]], folder: Path) -> Callable[[dict[str, Any]], Any]:
    import bm25s as b

    texts = [words(" ".join(step[field] for field in FIELDS)) for batch in batches for step in batch]
    retriever = b.BM25()
    retriever.index(texts, show_progress=False)
    retriever.save(folder)
    loaded = b.BM25.load(folder, mmap=True)

    def search(step: dict[str, Any]) -> Any:
        asked = words(" ".join(step[field] for field in FIELDS))
        return loaded.retrieve([asked], k=BEST, show_progress=False, n_threads=0)

    return search


def of_vectors(name: str, n: int, folder: Path) -> list[str]:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((20_000, DIMENSIONS), dtype=np.float32)

    def some(count: int, seed: int) -> np.ndarray:
        own = np.random.default_rng(seed)
        vectors = centres[own.integers(0, len(centres), count)]
        vectors = vectors + 0.7 * own.standard_normal((count, DIMENSIONS), dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    queries = some(QUERIES, 10**6)
    best = [np.zeros((100, 0)), np.zeros((100, 0), dtype=int)]
    index, rate_s = None, 0.0
    add, finish = VECTORS[name](n)
    for at in range(0, n, BATCH):
        batch = some(min(BATCH, n - at), at)
        near = queries[:100] @ batch.T
        best = [
            np.hstack([best[0], near]),
            np.hstack([best[1], np.tile(np.arange(at, at + len(batch)), (100, 1))]),
        ]
        order = np.argsort(-best[0], axis=1)[:, :10]
        best = [np.take_along_axis(part, order, axis=1) for part in best]
        began = time.perf_counter()
        add(np.arange(at, at + len(batch)), batch)
        rate_s += time.perf_counter() - began
    search = finish(folder)
    del index
    seconds, found = timed(search, queries)
    hits = [len(set(a[:10]) & set(b)) / 10 for a, b in zip(found[:100], best[1].tolist(), strict=True)]
    return row(n / rate_s, seconds, folder, f"{np.mean(hits):.3f}")


def usearch(n: int) -> Any:
    from usearch.index import Index

    made = [Index(ndim=DIMENSIONS, metric="cos", dtype="f16", connectivity=16, expansion_add=64)]

    def finish(folder: Path) -> Callable[[np.ndarray], Any]:
        made[0].save(str(folder / "index"))
        made.clear()
        index = Index.restore(str(folder / "index"), view=True)
        index.expansion_search = 64
        return lambda query: index.search(query, BEST).keys

    return (lambda keys, vectors: made[0].add(keys, vectors, threads=2)), finish


def faiss(n: int) -> Any:
    import faiss as f

    f.omp_set_num_threads(2)
    cells = int(4 * np.sqrt(n))
    index = f.IndexIVFScalarQuantizer(
        f.IndexFlatIP(DIMENSIONS), DIMENSIONS, cells, f.ScalarQuantizer.QT_fp16, f.METRIC_INNER_PRODUCT
    )
    kept: list[np.ndarray] = []

    def add(keys: np.ndarray, vectors: np.ndarray) -> None:
        if not index.is_trained:
            kept.append(vectors)
            if len(kept) * BATCH < min(n, 50 * cells):
                return
            index.train(np.vstack(kept))
            index.add_with_ids(np.vstack(kept), np.arange(sum(map(len, kept))))
            kept.clear()
            return
        index.add_with_ids(vectors, keys)

    def finish(folder: Path) -> Callable[[np.ndarray], Any]:
        f.write_index(index, str(folder / "index"))
        index.reset()
        viewed = f.read_index(str(folder / "index"), f.IO_FLAG_MMAP)
        viewed.nprobe = 32
        return lambda query: viewed.search(query[None], BEST)[1][0]

    return add, finish


WORDS: dict[str, Callable[..., Any]] = {
    "tantivy": tantivy,
    "fts5": lambda batches, folder: fts5(batches, folder, rare=False),
    "fts5-rare": lambda batches, folder: fts5(batches, folder, rare=True),
    "bm25s": bm25s,
}
VECTORS: dict[str, Callable[..., Any]] = {"usearch": usearch, "faiss": faiss}
PACKAGES = {name: name for name in ("tantivy", "bm25s", "usearch", "faiss")}

if __name__ == "__main__":
    main()
