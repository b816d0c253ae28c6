"""Did a proposer see this case? By content hash, and by text that is nearly the same.

Nearly the same is a Jaccard similarity of shingles of five characters of 0.8 or more
(`ratchet.evaluation.data.near_text`, which says when one may be missed); the same text is always found, by itself.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from ratchet.evaluation.data.near_text import nearest_texts

NEAR: Final = 0.8
"""Jaccard similarity of shingles from which two texts are the same case."""


def overlapping(
    cases: Mapping[str, str | None], seen: Mapping[str, str | None], *, near: float = NEAR
) -> set[str]:
    """Those of the cases, id → text, that are in `seen`, id → text; None = text not known.

    By the same id, the same text (case and spacing aside), or a text that is nearly the same.
    """
    known = {normal for text in seen.values() if (normal := _normal(text or ""))}
    normals = {case: _normal(text or "") for case, text in cases.items() if case not in seen}
    same = {case for case in cases if case in seen or normals[case] in known}
    asked = {case: text for case, text in normals.items() if text and case not in same}
    nearest = zip(asked, nearest_texts(list(asked.values()), sorted(known)), strict=True)
    return same | {case for case, (_, similarity) in nearest if similarity >= near}


def planted(
    withheld: Mapping[str, str],
    seen: Collection[str],
    shown: Iterable[tuple[str | None, str]],
    *,
    known: Collection[str] = (),
) -> list[str]:
    """Ids of the withheld cases, id → text, that stand in what a proposer made: it was taught by what must judge it.

    Args:
        withheld: cases that are kept for the gate.
        seen: ids of cases that the proposer saw.
        shown: case id and request of every example that its candidate shows; without an id the request tells.
        known: requests that stand on the training side, too: to show these is no leak.
    """
    by_text = {_normal(text): case_id for case_id, text in withheld.items()}
    for text in map(_normal, known):
        by_text.pop(text, None)
    told = {case_id or by_text.get(_normal(request), "") for case_id, request in shown}
    return sorted((told | {*seen}) & withheld.keys())


def _normal(text: str) -> str:
    """Lower case, words and digits only, single spaces."""
    return re.sub(r"\W+", " ", text.casefold()).strip()
