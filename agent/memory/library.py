"""The library of everything that ever worked: up to millions of steps on disk, recalled in milliseconds.

Decision: `StepStore` holds the steps and is the only truth; both indexes are made from it and catch up by
themselves. `add` returns once the store has the steps on disk, so a kill at any moment loses nothing that was
acknowledged. A candidate's memory is a snapshot chosen from it (`ratchet.agent.optimize.memory_curation`), never it.

Why tantivy for the words: an index that grows in place, is memory-mapped and commits whole. 10⁵ steps, all words of a
query, best 50, p95: 4.2 ms; bm25s 4.0 ms, but every insert builds it anew; SQLite's FTS5, which scores every row that
matches, 444 ms (3.4 ms with words in 3,000 postings alone). The budget of `word_index` keeps recall as a whole at
2.3 ms with 10⁶ steps. `python tests/bench/bench_index_choice.py --steps 100000 --only NAME`, `bench_recall.py`.
"""

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Final, Self

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from ratchet.agent.errors import BadInput
from ratchet.agent.memory.ranking import (
    Embed,
    Found,
    Query,
    RecallSettings,
    embedded,
    fields_of,
    fused,
    scaled,
    select_recalled,
)
from ratchet.agent.memory.steps import Credit, Experience, Recalled
from ratchet.agent.memory.store import DAY, StepRow, StepStore
from ratchet.agent.memory.vector_index import VectorIndex
from ratchet.agent.memory.word_index import FIELDS, TEXTS, WordIndex
from ratchet.agent.trace import Trace

MIN_HITS: Final = 32
"""Steps that each index is asked for at least."""
MAX_HITS: Final = 4096
"""Steps that each index is asked for at most, where many of the nearest must be passed over."""
WORD_INDEX_FOLDER: Final = "words-3"
"""Folder of the index of words, which is made anew from the steps where its fields changed."""
_INDEXED_AT_ONCE: Final = 50_000
_VECTORS_AT_ONCE: Final = 5_000
_EMBEDDED_AT_ONCE: Final = 500
_EVEN: Final = dict.fromkeys(FIELDS, 1.0)


class Library:
    """Steps of winning trajectories, on disk or in memory; safe for threads, and for one writer among processes."""

    def __init__(
        self, folder: Path | None = None, *, embed: Embed | None = None, embedding: str | None = None
    ) -> None:
        """Open the library in `folder`, made where absent; None = in memory.

        Args:
            folder: where it lies.
            embed: also recall by meaning, with the vectors of this; it embeds what has no vector yet.
            embedding: name of `embed`, kept so that vectors of two models never mix.

        Raises:
            BadInput: the library has vectors of another embedding.
        """
        self._folder, self._embed = folder, embed
        self._lock = threading.RLock()
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        self._store = StepStore(None if folder is None else folder / "steps.db")
        self._words = WordIndex(None if folder is None else folder / WORD_INDEX_FOLDER)
        self._vectors: VectorIndex | None = None
        self._seen_version = -1
        if embed is not None:
            self._check_embedding(embedding or "unnamed")
        self._catch_up_unless_busy()

    def __len__(self) -> int:
        return len(self._store)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files; nothing is lost without it."""
        self._store.close()

    def add(self, experiences: Iterable[Experience]) -> int:
        """Remember the steps, each once; when it returns they are on disk and can be recalled.

        Returns:
            How many were new.
        """
        with self._lock, self._only_writer():
            added = self._store.insert(experiences)
            if added:
                self._catch_up()
        return added

    def forget(self, trace_ids: Iterable[str]) -> int:
        """Take back the steps of traces of which it turned out that they had not won.

        Returns:
            How many steps there were.
        """
        with self._lock, self._only_writer():
            gone = self._store.forget(trace_ids)
            if gone:
                self._words.remove(gone)  # a vector that is left behind is passed over: its step is gone
                self._store.about("indexed", str(self._words.last), replace=True)
        return len(gone)

    def credit(self, traces: Iterable[Trace], verdicts: Mapping[str, float] = MappingProxyType({})) -> int:
        """Count which exemplars were shown to these runs, and which runs won; a trace is counted once.

        Args:
            traces: runs of any outcome; one that comes again counts as it stands now.
            verdicts: people's scores in [0, 1] by trace id, which outrank the environment's.

        Returns:
            How many of the traces had not been counted yet.
        """
        with self._lock, self._only_writer():
            return self._store.credit(traces, verdicts)

    def credits(self, entries: Sequence[str]) -> dict[str, Credit]:
        """What came of showing the steps of these traces; what no scored run was shown is left out."""
        return self._store.credits(entries)

    def recalls(self, entry: str) -> dict[str, Credit]:
        """The runs that were shown steps of this trace, and what came of it."""
        return self._store.recalls(entry)

    def steps(self) -> Iterator[Experience]:
        """Every step with its credit, in the order in which they came."""
        return self._store.steps()

    def begin_with(self, text: str) -> list[Experience]:
        """Every step of the traces whose id begins with this, in their order."""
        return self._store.begin_with(text)

    def worst(self, n: int, text: str = "") -> tuple[list[Experience], int]:
        """All steps of the `n` traces that led to success least, and how many traces there are.

        Args:
            n: how many.
            text: only those that have it in a first step, in whatever case (ASCII).
        """
        chosen, total = self._store.worst(n, text)
        return [step for trace_id in chosen for step in self._store.begin_with(trace_id)], total

    def imported(self) -> list[Experience]:
        """The first step of every trajectory that another agent's log brought in."""
        return self._store.imported()

    def first_steps(self, case_ids: Sequence[str]) -> list[Experience]:
        """The first steps of all trajectories of these cases."""
        return self._store.first_steps(case_ids)

    def recall(
        self,
        query: Query,
        *,
        k: int,
        settings: RecallSettings | None = None,
        now: datetime | None = None,
        among: Set[str] | None = None,
    ) -> list[Recalled]:
        """The `k` steps that help most with what is at hand, best first, each with the steps around it.

        Words (BM25) and, where the library has an embedding, vectors are asked, and their ranks fused.

        Args:
            query: what is at hand.
            k: how many at most.
            settings: how to compare; None = the default.
            now: makes age count where the settings say so.
            among: traces whose steps may be recalled; None = all.
        """
        settings = settings or RecallSettings()
        if k <= 0 or (query.imported and not self._store.has_imports):
            return []
        with self._lock:
            self._see_others()
            n = max(MIN_HITS, 4 * k)
            found = self._found(query, settings, n, now, without_case=None)
            chosen = select_recalled(found, query, settings, k, among)
            while len(chosen) < k and len(found) >= n and n < MAX_HITS:  # what was passed over left too few
                n = min(8 * n, MAX_HITS)
                found = self._found(query, settings, n, now, without_case=query.exclude_case)
                chosen = select_recalled(found, query, settings, k, among)
            return [self._with_window(one, settings.window) for one in chosen]

    def _found(
        self,
        query: Query,
        settings: RecallSettings,
        n: int,
        now: datetime | None,
        *,
        without_case: str | None,
    ) -> list[Found]:
        by_words = dict(self._words.search(query.fields, settings.weights, n, without_case=without_case))
        rankings = [list(by_words)]
        vector = self._vector_of(query, settings)
        if vector is not None and self._vectors is not None:
            rankings.append([number for number, _ in self._vectors.search(vector, n)])
        worth = fused(rankings)
        today = None if now is None else now.timestamp() / DAY
        rows = self._store.compared(list(worth))
        return [_compared(row, worth, by_words, vector, settings, today) for row in rows]

    def _vector_of(self, query: Query, settings: RecallSettings) -> NDArray[np.float32] | None:
        if self._embed is None or self._vectors is None or not any(query.fields[text] for text in TEXTS):
            return None
        vector: NDArray[np.float32] = embedded(self._embed, [query.fields], settings.weights)[0]
        return vector

    def _with_window(self, one: Found, window: int) -> Recalled:
        step = self._store.step(one.number)
        around = self._store.around(step, one.number, window)
        return Recalled(
            experience=step,
            similarity=one.similarity,
            before=tuple(s for s in around if (s.index or 0) < (step.index or 0)),
            after=tuple(s for s in around if (s.index or 0) >= (step.index or 0)),
        )

    def _check_embedding(self, name: str) -> None:
        known = self._store.about("embedding", name)
        if known != name:
            raise BadInput(
                f"the library in {self._folder} has vectors of embedding {known!r}, not {name!r}: "
                "open it with that one, or add its steps to a new library"
            )

    def _catch_up_unless_busy(self) -> None:
        """A crash may have left the indexes behind; if another process is writing, it is the one to mend them."""
        try:
            with self._only_writer(timeout=0):
                self._catch_up()
        except Timeout:
            self._see_others()

    def _catch_up(self) -> None:
        """Index what the store has and the indexes do not; the last write tells other processes to look again."""
        while rows := self._store.after(self._words.last, _INDEXED_AT_ONCE):
            self._words.add((number, _fields(step), step.case_id) for number, step in rows)
        if self._embed is not None:
            self._embed_new(self._embed)
            self._follow_vectors()
            if self._vectors is not None:
                self._vectors.write_if_due()
        self._store.about("indexed", str(self._words.last), replace=True)

    def _embed_new(self, embed: Embed) -> None:
        while rows := self._store.after(self._store.last_vector, _EMBEDDED_AT_ONCE):
            values = embedded(embed, [_fields(step) for _, step in rows], _EVEN).astype(np.float16)
            self._store.insert_vectors(
                (number, value.tobytes() if value.any() else b"")  # a step without words lies nowhere
                for (number, _), value in zip(rows, values, strict=True)
            )

    def _follow_vectors(self) -> None:
        """Take the vectors that the store has into the index."""
        if self._vectors is None:
            first = self._store.vectors_after(0, 1)
            if not first:
                return
            folder = None if self._folder is None else self._folder / "vectors"
            self._vectors = VectorIndex(folder, len(first[0][1]) // 2)
        while rows := self._store.vectors_after(self._vectors.last, _VECTORS_AT_ONCE):
            numbers = np.array([number for number, _ in rows], dtype=np.int64)
            values = np.stack([np.frombuffer(value, dtype=np.float16) for _, value in rows])
            self._vectors.add([(numbers, values.astype(np.float32))])

    def _see_others(self) -> None:
        """Look at what other processes have added since the last time."""
        if self._store.version != self._seen_version:
            self._seen_version = self._store.version
            self._words.refresh()
            if self._embed is not None:
                self._follow_vectors()

    @contextmanager
    def _only_writer(self, timeout: float = 600) -> Iterator[None]:
        if self._folder is None:
            yield
            return
        with FileLock(self._folder / "writer.lock", timeout=timeout):
            yield


class LibraryView:
    """The steps of some traces and of no others: what a proposer may look at."""

    def __init__(self, library: Library, traces: Set[str]) -> None:
        """Look at the steps of `traces` alone; the library stays open as long as the view is used."""
        self._library, self._traces = library, traces

    def recall(self, query: Query, *, k: int) -> list[Recalled]:
        """The `k` steps of these traces that help most with what is at hand, best first."""
        return self._library.recall(query, k=k, among=self._traces)


def _compared(
    row: StepRow,
    worth: dict[int, float],
    by_words: dict[int, float],
    vector: NDArray[np.float32] | None,
    settings: RecallSettings,
    today: float | None,
) -> Found:
    number, case_id, trajectory, said, day, shown, won, stored, imported = row
    similarity = by_words.get(number, 0.0)
    if vector is not None and stored:
        cosine = float(np.frombuffer(stored, dtype=np.float16).astype(np.float32) @ vector)
        similarity = (similarity + min(max(cosine, 0.0), 1.0)) / 2
    age = None if today is None or day is None else today - day
    order = scaled(worth[number] * similarity, settings, credit=(won + 1) / (shown + 2), age_days=age)
    return Found(number, case_id, trajectory, said, similarity, order, bool(imported))


def _fields(step: Experience) -> dict[str, str]:
    return fields_of(step.goal, step.observation, step.thought, step.options)
