"""Whose word counts, and how much: weights, limits on how fast one source may speak, and one name for the nameless.

Why a limit looks at when somebody spoke and never at what was said: leaving answers out by what they say would choose
the verdict. Why the whole hour of a flood is held back and not its end: the first hundred of it are as bad as the
rest. What is held back counts once somebody else, who is not held back there, says the same.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Final, Literal, Protocol

from pydantic import Field

from ratchet.agent.record import StageSettings
from ratchet.evaluation.data.labels import ANONYMOUS, Label, contradict, one_per_rater
from ratchet.evaluation.data.scorers import same

_HOUR: Final = timedelta(hours=1)
_FREE: Final = 10
"""Answers of one rater that no share limits: of the first answer to anything, somebody has given all."""

Weight = Annotated[float, Field(ge=0, le=10)]


class RaterSettings(StageSettings):
    """Who is asked, and what their word weighs."""

    per_item: int = Field(default=1, ge=1, le=5)
    """People whose answers must agree on a question of the gate; where they contradict, one more is asked."""
    names: tuple[str, ...] = ()
    """Who is asked, a queue each; left out: whoever comes, a queue for the first to look at an item, the second, …"""
    weights: dict[str, Weight] = Field(default_factory=dict)
    """What a rater's word weighs, by name; 0 = it is not heard."""
    others: Weight = 1.0
    """What the word of a rater weighs who is not in `weights`; 0 = only those are heard."""
    most_per_hour: int = Field(default=600, ge=1)
    """Answers an hour by one rater; a faster one is held back for that hour, until others say the same."""
    most_share: float = Field(default=1.0, gt=0, le=1)
    """Share of all answers that one rater may give; what is above it is held back until others say the same."""
    limit_feedback: bool = False
    """Hold feedback to these limits that nobody asked for, too. An application often gives all of its users' feedback
    under one name."""
    answer_days: int = Field(default=14, ge=1)
    """Days until a question of the gate counts as unanswered; a later answer teaches and does not judge."""
    backend: Literal["mlflow", "label-studio"] = "mlflow"
    """Where people answer the gate's questions."""

    def weight_of(self, rater: str) -> float:
        """What this rater's word weighs; names are compared without regard to case."""
        named = {rater_name(name): weight for name, weight in self.weights.items()}
        return named.get(rater_name(rater), self.others)


def rater_name(text: str) -> str:
    """One name a rater, however it is written; all who gave none are one."""
    return text.strip().casefold() or ANONYMOUS


class _Dated(Protocol):
    @property
    def rater(self) -> str: ...
    @property
    def created_at(self) -> datetime: ...


def held_back(said: Sequence[_Dated], rules: RaterSettings) -> frozenset[int]:
    """Places in `said` of what came faster, or was more, than one rater may say.

    Args:
        said: in any order; looked at are `rater` and `created_at`.
        rules: the limits.
    """
    by_rater: dict[str, list[int]] = defaultdict(list)
    order = sorted(range(len(said)), key=lambda place: said[place].created_at)
    held: set[int] = set()
    for total, place in enumerate(order, 1):
        mine = by_rater[rater_name(said[place].rater)]
        mine.append(place)
        if len(mine) > max(_FREE, rules.most_share * total):
            held.add(place)
    for mine in by_rater.values():
        held.update(
            mine[n] for n in _in_floods([said[place].created_at for place in mine], rules.most_per_hour)
        )
    return frozenset(held)


def _in_floods(times: Sequence[datetime], most: int) -> set[int]:
    """Places of the times, oldest first, that lie in an hour with more than `most`."""
    held: set[int] = set()
    end = 0
    for start, time in enumerate(times):
        end = max(end, start)
        after = bisect_right(times, time + _HOUR)
        if after - start > most:
            held.update(range(max(start, end), after))
            end = after
    return held


def heard(labels: Sequence[Label], rules: RaterSettings) -> list[Label]:
    """The labels that count, oldest first: each person's newest, without what weighs nothing, is above the limits, or
    is contradicted by more weight than stands behind it.

    Of what is above the limits, that counts which somebody else says of the same trace. Answers of equal weight that
    contradict each other all stay: see `ratchet.infra.review.answers.contradictions`. What judges and environments
    say is left as it is.
    """
    limited = [one for one in labels if one.source == "human" and (one.asked or rules.limit_feedback)]
    held = {id(limited[place]) for place in held_back(limited, rules)}
    weighing = [one for one in labels if one.source != "human" or rules.weight_of(one.rater) > 0]
    by_trace: dict[str, list[Label]] = defaultdict(list)
    for one in weighing:
        if one.source == "human" and id(one) not in held:
            by_trace[one.trace_id].append(one)
    counted = [one for one in weighing if id(one) not in held or _confirmed(one, by_trace[one.trace_id])]
    return _prevailing(one_per_rater(counted), rules)


def _confirmed(label: Label, others: Iterable[Label]) -> bool:
    return any(
        rater_name(one.rater) != rater_name(label.rater) and _agreement(label, one) == 1 for one in others
    )


def _prevailing(labels: Sequence[Label], rules: RaterSettings) -> list[Label]:
    by_trace: dict[str, list[Label]] = defaultdict(list)
    for one in labels:
        if one.source == "human":
            by_trace[one.trace_id].append(one)

    def stands(label: Label) -> bool:
        others = [one for one in by_trace[label.trace_id] if one is not label]
        behind = [rules.weight_of(one.rater) * _agreement(label, one) for one in others]
        return label.source != "human" or rules.weight_of(label.rater) + sum(behind) >= 0

    return [one for one in labels if stands(one)]


def _agreement(one: Label, other: Label) -> Literal[-1, 0, 1]:
    """1: both say the same; -1: they contradict each other; 0: neither."""
    if one.expected is not None and other.expected is not None:
        if contradict(one.expected, other.expected, free=True):
            return -1
        return 1 if same(one.expected, other.expected) else 0
    if one.score is None or other.score is None:
        return 0
    return 1 if (one.score < 1) == (other.score < 1) else -1
