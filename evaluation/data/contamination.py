"""Did a proposer see this case? By content hash, and by text that is nearly the same.

Nearly the same is a Jaccard similarity of shingles of five characters of 0.8 or more
(`ratchet.evaluation.data.near_text`, which says when one may be missed); the same text is always found, by itself.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from ratchet.agent.errors import BadInput
from ratchet.evaluation.data.near_text import nearest_texts
from ratchet.evaluation.gate.pairs import Pair

NEAR: Final = 0.8
"""Jaccard similarity of shingles from which two texts are the same case."""


class Overlap(BaseModel):
    """A gate case that a proposer saw."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    case_id: str
    kind: Literal["same id", "same text", "near text"]
    similarity: float
    """Jaccard similarity of the texts' shingles, 1 for the same."""


def find_overlap(
    cases: Mapping[str, str | None], seen: Mapping[str, str | None], *, near: float = NEAR
) -> list[Overlap]:
    """Cases, id → text, that are in `seen`, id → text, in the order of `cases`; None = text not known.

    One overlap a case: the same id first, then the same text (case and spacing aside), then the nearest text.
    """
    known = {normal for text in seen.values() if (normal := _normal(text or ""))}
    normals = {case: _normal(text or "") for case, text in cases.items() if case not in seen}
    asked = {case: text for case, text in normals.items() if text and text not in known}
    found = zip(asked, nearest_texts(list(asked.values()), sorted(known)), strict=True)
    nearest = {case: similarity for case, (_, similarity) in found}

    def overlap(case: str) -> Overlap | None:
        if case in seen:
            return Overlap(case_id=case, kind="same id", similarity=1.0)
        if normals[case] in known:
            return Overlap(case_id=case, kind="same text", similarity=1.0)
        similarity = nearest.get(case, 0.0)
        return Overlap(case_id=case, kind="near text", similarity=similarity) if similarity >= near else None

    return [found for found in map(overlap, cases) if found is not None]


def refuse_contaminated(pairs: Iterable[Pair], seen: Iterable[str]) -> Iterator[Pair]:
    """Pass the pairs through; BadInput at the first whose case id a proposer saw."""
    known = frozenset(seen)
    for pair in pairs:
        if pair.case_id in known:
            raise BadInput(
                f"case {pair.case_id!r} was seen by the proposer; draw fresh cases or drop this one"
            )
        yield pair


def _normal(text: str) -> str:
    """Lower case, words and digits only, single spaces."""
    return re.sub(r"\W+", " ", text.casefold()).strip()
