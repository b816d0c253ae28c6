"""Which cases judge, and in which order: the newest, by hash, a session's turns together, never changed once begun.

Why the newest: what is promoted will serve what comes in now. After a drift, a test on a random part of all that is
left looks at traffic that is gone. The choice looks at no label and no answer, so the evidence holds as it did: it is
for the gain on the newest cases.
Why by hash: an order that depends on labels or outcomes would let a test stop where its luck is best. Why kept:
a killed test that went on in another order would look at its luckiest beginning twice (1.5 % → 3.7 % false
promotions after four runs at a share of 3.0 %); so what came in later stands at the end.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby

from ratchet.agent.record import content_hash
from ratchet.evaluation.data.cases import LabelledCase

Place = tuple[str, str | None]
"""Case id and session."""


def in_order(cases: Sequence[LabelledCase]) -> list[LabelledCase]:
    """By the hash of the session, or of the case where it has none; turns of a session by their own hash."""
    return sorted(cases, key=lambda c: (_position(c), c.case_id))


def _position(case: LabelledCase) -> str:
    return case.case_id if case.session_id is None else content_hash(case.session_id)


def newest(cases: Sequence[LabelledCase], most: int) -> list[LabelledCase]:
    """The `most` that came last, in the order given; of a session its last turn counts, and none known is oldest."""
    never = datetime.min.replace(tzinfo=UTC)
    came: dict[str, datetime] = {}
    for case in cases:
        place = _position(case)
        came[place] = max(came.get(place, never), case.case.seen_at or never)
    last = sorted(range(len(cases)), key=lambda i: came[_position(cases[i])], reverse=True)[:most]
    return [cases[i] for i in sorted(last)]


def go_on(
    order: Sequence[Place], known: Sequence[LabelledCase], fresh: Sequence[LabelledCase]
) -> list[LabelledCase]:
    """The cases of a test that began with `order`: those that are still `known`, then `fresh` ones.

    A newcomer from a session of `order` is left out: the session's one bet may have been made.
    """
    by_id = {case.case_id: case for case in known}
    sessions = {session for _, session in order if session is not None}
    mine = {case_id for case_id, _ in order}
    new = [case for case in fresh if case.case_id not in mine and case.session_id not in sessions]
    kept = [
        by_id[case_id].model_copy(update={"session_id": session})
        for case_id, session in order
        if case_id in by_id
    ]
    return kept + in_order(new)


def merged(orders: Sequence[Sequence[LabelledCase]]) -> list[LabelledCase]:
    """The cases of several tests, each once and a session's together, in the order of the first that has them."""
    together: dict[str, dict[str, LabelledCase]] = {}
    for order in orders:
        for case in order:
            together.setdefault(_position(case), {}).setdefault(case.case_id, case)
    return [case for cases in together.values() for case in cases.values()]


def sessions(cases: Sequence[LabelledCase]) -> Iterator[list[LabelledCase]]:
    """The cases that are one bet: those of a session, or one without."""
    for _, together in groupby(cases, key=_position):
        yield list(together)


def batches(cases: Sequence[LabelledCase], size: int) -> Iterator[list[LabelledCase]]:
    """Portions of at least `size` cases that cut no session; the last may be smaller."""
    batch: list[LabelledCase] = []
    for together in sessions(cases):
        batch += together
        if len(batch) >= size:
            yield batch
            batch = []
    if batch:
        yield batch
