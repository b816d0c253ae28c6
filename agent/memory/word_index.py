"""Words of remembered steps, ranked by BM25: an inverted index that is memory-mapped and grows in place.

Why tantivy: see the measurements in `ratchet.agent.memory.library`. A query is cut to its rarest words, because the
cost of a query grows with its length while the common words hardly change the order; what is left out is filtered
afterwards, because only a plain union of words may skip blocks of postings (block-max WAND, Ding & Suel 2011).
"""

import math
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import tantivy

TEXTS: Final = ("goal", "observation", "thought")
FIELDS: Final = (*TEXTS, "offered")
"""`offered` holds the kinds of the actions that were offered, one word each
(`ratchet.agent.memory.delexicalization`)."""
MAX_QUERY_WORDS: Final = 12
"""Words of a field that are looked up at most."""
POSTINGS: Final = 50_000
"""Texts that all words looked up may stand in, together: what a query costs in an index of any size."""
MAX_FIELD_CHARS: Final = 2_000
"""Characters of a field that count: what a tool returns may be a whole table."""
_HEAP: Final = 32_000_000
_WORD: Final = re.compile(r"[^\W_]+")

Fields = Mapping[str, str]
"""`goal`, `observation`, `thought` and `offered`; an empty one is not looked at."""


def words_in(text: str) -> set[str]:
    """The words of the text that count, in lower case."""
    return set(_WORD.findall(text[:MAX_FIELD_CHARS].lower()))


class WordIndex:
    """Texts by number, in four fields."""

    def __init__(self, folder: Path | None) -> None:
        """Open the index in `folder`, made where absent and made anew where damaged; None = in memory."""
        self._t: Any = tantivy
        builder = tantivy.SchemaBuilder().add_integer_field("id", indexed=True, fast=True)
        for field in (*FIELDS, "case_id"):
            tokens = "whitespace" if field in FIELDS else "raw"
            builder.add_text_field(field, tokenizer_name=tokens, index_option="freq")
        self._schema = builder.build()
        try:
            self._open(folder)
        except ValueError:  # a file of it is damaged or gone: all that stands in it stands in the steps, too
            if folder is None:
                raise
            shutil.rmtree(folder)
            self._open(folder)

    def _open(self, folder: Path | None) -> None:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        self._index: Any = self._t.Index(self._schema, path=None if folder is None else str(folder))
        self._index.config_reader("manual")  # else a thread looks for changes twice a second
        self._searcher = self._index.searcher()

    def refresh(self) -> None:
        """See what was added since, by another process too."""
        self._index.reload()
        self._searcher = self._index.searcher()

    @property
    def last(self) -> int:
        """The greatest number in the index; 0 = it is empty."""
        newest = self._searcher.search(self._t.Query.all_query(), 1, count=False, order_by_field="id").hits
        return int(newest[0][0]) if newest else 0

    def add(self, rows: Iterable[tuple[int, Fields, str]]) -> None:
        """Index number, fields and case of each row; all of them or, after a crash, none."""
        writer = self._index.writer(_HEAP, 1)
        for number, fields, case_id in rows:
            texts = {name: " ".join(_WORD.findall(fields[name][:MAX_FIELD_CHARS].lower())) for name in FIELDS}
            writer.add_document(self._t.Document(id=number, case_id=case_id, **texts))
        writer.commit()
        writer.wait_merging_threads()
        self.refresh()

    def remove(self, numbers: Iterable[int]) -> None:
        """Take these out."""
        writer = self._index.writer(_HEAP, 1)
        for number in numbers:
            writer.delete_documents_by_term("id", number)
        writer.commit()
        writer.wait_merging_threads()
        self.refresh()

    def search(
        self,
        query: Fields,
        weights: Mapping[str, float],
        n: int,
        *,
        without_case: str | None = None,
    ) -> list[tuple[int, float]]:
        """Number and similarity of the `n` best, best first.

        Similarity is BM25 as a share, at most 1, of what a text of usual length gets that has every word looked up.

        The condition makes the index look at every step that has one of the words: exact, and slow in a large one
        (`recall` filters afterwards, and asks in this way only where too few are left).
        """
        t, schema = self._t, self._schema
        words = self._rarest(query, weights)
        if not words or n <= 0:
            return []
        terms = [
            (
                t.Occur.Should,
                t.Query.boost_query(t.Query.term_query(schema, field, word, "freq"), weights[field]),
            )
            for field, word in words
        ]
        asked = t.Query.boolean_query(terms)
        if without_case is not None:
            own = t.Query.term_query(schema, "case_id", without_case, "freq")
            asked = t.Query.boolean_query([(t.Occur.Must, asked), (t.Occur.MustNot, own)])
        hits = self._searcher.search(asked, n, count=False).hits
        numbers: Any = self._searcher.fast_field_values("id", [place for _, place in hits])
        whole = sum(words.values())
        return [(int(i), min(score / whole, 1.0)) for i, (score, _) in zip(numbers, hits, strict=True)]

    def _rarest(self, query: Fields, weights: Mapping[str, float]) -> dict[tuple[str, str], float]:
        """Field and word → weight × inverse document frequency (Robertson & Zaragoza 2009); common words go first."""
        total = self._searcher.num_docs
        counts = sorted(
            (self._searcher.doc_freq(field, word), field, word)
            for field in FIELDS
            if weights[field] > 0
            for word in words_in(query[field])
        )
        found: dict[tuple[str, str], float] = {}
        left, room = POSTINGS, dict.fromkeys(FIELDS, MAX_QUERY_WORDS)
        for count, field, word in counts:
            if count == 0 or room[field] == 0:
                continue
            if count > left and found:
                break
            left, room[field] = left - count, room[field] - 1
            found[field, word] = weights[field] * math.log(1 + (total - count + 0.5) / (count + 0.5))
        return found
