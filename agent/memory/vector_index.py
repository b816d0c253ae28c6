"""Vectors of remembered steps, nearest first: an HNSW graph, memory-mapped, with a small part that still grows.

Why usearch: its graph can be viewed on disk and grows without training, where faiss's inverted lists are trained
on a sample first. 10⁵ vectors, p95: 0.8 ms at a recall of 0.62 of the ten nearest; faiss 2.8 ms at 0.59, though it
inserts five times as fast (`python tests/bench/bench_index_choice.py --steps 100000 --only usearch`, or `faiss`).
The large part on disk is only viewed; what came since is a second graph in memory, and the two become one file when
the second reaches a quarter of the first. The file is replaced whole, and named after the last step in it, so that
after a crash it says what it lacks.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from usearch.index import Index

SMALLEST: Final = 20_000
"""Vectors that may stand in memory before they are written."""
_SHAPE: dict[str, Any] = {"metric": "cos", "dtype": "f16", "connectivity": 16}
_EFFORT: dict[str, Any] = {"expansion_add": 64, "expansion_search": 64}

NumberedVectors = tuple[NDArray[np.int64], NDArray[np.float32]]


class VectorIndex:
    """Vectors by number."""

    def __init__(self, folder: Path | None, dimensions: int) -> None:
        """View the newest file in `folder`, made where absent; None = in memory."""
        self.folder, self.dimensions = folder, dimensions
        self.last = 0
        self._viewed: Any = None
        self._fresh = _graph(dimensions)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._view()

    def __len__(self) -> int:
        return len(self._fresh) + (len(self._viewed) if self._viewed is not None else 0)

    def add(self, batches: Iterable[NumberedVectors]) -> None:
        """Add numbers and vectors, numbers ascending; they stand in memory until `write_if_due`."""
        for numbers, vectors in batches:
            self._fresh.add(numbers.astype(np.uint64), vectors)
            self.last = int(numbers[-1])

    def write_if_due(self) -> None:
        """Replace the file where enough came together; for the one process that writes."""
        written = len(self._viewed) if self._viewed is not None else 0
        if self.folder is not None and len(self._fresh) >= max(SMALLEST, written // 4):
            self._write(self.folder)

    def search(self, vector: NDArray[np.float32], n: int) -> list[tuple[int, float]]:
        """Number and cosine of the `n` nearest, nearest first."""
        found: list[tuple[int, float]] = []
        for graph in (self._viewed, self._fresh):
            if graph is not None and len(graph):
                near = graph.search(vector, min(n, len(graph)))
                found += zip(
                    (int(k) for k in near.keys), (1.0 - float(d) for d in near.distances), strict=True
                )
        return sorted(found, key=lambda pair: (-pair[1], pair[0]))[:n]

    def _view(self) -> None:
        assert self.folder is not None, "only an index on disk is viewed"
        files = sorted(self.folder.glob("to-*.usearch"))
        if not files:
            return
        self._viewed = Index.restore(str(files[-1]), view=True, **_EFFORT)
        self.last = int(files[-1].stem.removeprefix("to-"))
        for old in files[:-1]:
            old.unlink(missing_ok=True)  # an open view keeps its pages

    def _write(self, folder: Path) -> None:
        whole = self._fresh
        if self._viewed is not None:
            whole = self._merged()
        path = folder / f"to-{self.last:015d}.usearch"
        partial = path.with_suffix(".partial")
        whole.save(str(partial))
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
        self._viewed, self._fresh = None, _graph(self.dimensions)
        self._view()

    def _merged(self) -> Any:
        newest = max(self.folder.glob("to-*.usearch")) if self.folder else None
        whole: Any = Index.restore(str(newest), view=False, **_EFFORT)
        keys = np.asarray(self._fresh.keys, dtype=np.uint64)
        whole.add(keys, np.vstack(self._fresh.get(keys, dtype=np.float32)))
        return whole


def _graph(dimensions: int) -> Any:
    return Index(ndim=dimensions, **_SHAPE, **_EFFORT)
