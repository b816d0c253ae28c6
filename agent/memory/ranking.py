"""What is asked of a memory, and how the answers are ordered: pure functions, whatever index found them.

Why ranks are fused and not scores: BM25 and cosine have no common scale, their ranks do (reciprocal rank
fusion, Cormack et al. 2009). Similarity, credit and recency then scale the fused rank: ranks alone would let an
exemplar that was shown often and never led to success sink below others that have nothing to do with the case,
and one that nobody tried yet is left where it is.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ratchet.agent.memory.delexicalization import template_hashes
from ratchet.agent.memory.steps import Recalled
from ratchet.agent.memory.word_index import FIELDS, TEXTS
from ratchet.agent.record import Record

Embed = Callable[[Sequence[str]], NDArray[np.floating]]
"""Texts (n) → vectors (n, dimensions); must not change while a memory lives."""

_RANK = 60
"""Of reciprocal rank fusion: how slowly a rank's worth falls."""


class RecallSettings(Record):
    """How a memory answers; part of a snapshot's identity where it is not the default."""

    goal: float = Field(default=1.0, ge=0, le=10)
    """Weight of the goal, beside those of observation and reasoning."""
    observation: float = Field(default=1.0, ge=0, le=10)
    thought: float = Field(default=1.0, ge=0, le=10)
    offered: float = Field(default=1.0, ge=0, le=10)
    """Weight of the kinds of action that were offered."""
    window: int = Field(default=5, ge=0, le=20)
    """Steps before and after a recalled one that come with it."""
    max_distance: float = Field(default=1.0, ge=0, le=1)
    """1 − similarity above which nothing is recalled."""
    per_trajectory: int = Field(default=1, ge=1, le=20)
    """Steps of one trajectory among the recalled; their windows overlap."""
    credit: float = Field(default=0.5, ge=0, le=4)
    """How much it counts that an exemplar led to success; 0 = not at all."""
    half_life_days: float | None = Field(default=None, gt=0)
    """Age at which an exemplar counts half, in a snapshot from its newest on; None = age does not count."""
    embedding: str | None = None
    """Name of the embedding whose vectors are asked beside the words; None = words alone."""

    @property
    def weights(self) -> dict[str, float]:
        """Of the four fields."""
        return {field: float(getattr(self, field)) for field in FIELDS}


class Query(Record):
    """What is at hand."""

    observation: str
    goal: str = ""
    thought: str = ""
    exclude_case: str | None = None
    """The case at hand: its own steps must not be shown to it."""
    offered: tuple[str, ...] = ()
    """The actions to choose from."""
    imported: bool = False
    """Only steps that logs of other agents brought in."""

    @property
    def fields(self) -> dict[str, str]:
        """The texts that are compared."""
        return fields_of(self.goal, self.observation, self.thought, self.offered)


class Retriever(Protocol):
    """What can be asked for steps that worked: a candidate's snapshot, a project's library, a view of it."""

    def recall(self, query: Query, *, k: int) -> list[Recalled]:
        """The `k` steps that help most with what is at hand, best first."""


def fields_of(goal: str, observation: str, thought: str, offered: Sequence[str]) -> dict[str, str]:
    """What an index compares of a step; without a goal, what is seen says what is wanted."""
    texts = {"goal": goal, "observation": observation, "thought": thought}
    return texts | {"offered": template_hashes(offered, goal or observation) if offered else ""}


@dataclass(frozen=True, slots=True)
class Found:
    """What choosing needs to know of a remembered step."""

    number: int
    case_id: str
    trajectory: str
    said: str
    """The same for two steps that saw and did the same."""
    similarity: float
    worth: float
    """What it is ordered by: fused rank and similarity, scaled by credit and recency."""
    imported: bool = False

    @property
    def trace_id(self) -> str:
        """Of the run that it is a step of."""
        return self.trajectory.rpartition("/")[0]


def fused(rankings: Iterable[Sequence[int]]) -> dict[int, float]:
    """Reciprocal rank fusion, scaled so that the first of every ranking has 1: number → worth in (0, 1]."""
    rankings = [ranking for ranking in rankings if ranking]
    worth: dict[int, float] = {}
    for ranking in rankings:
        for place, number in enumerate(ranking):
            worth[number] = worth.get(number, 0.0) + _RANK / (_RANK + place) / len(rankings)
    return worth


def scaled(
    worth: float, settings: RecallSettings, *, credit: float = 0.5, age_days: float | None = None
) -> float:
    """Worth times credit (in (0, 1); one half, as for what was never shown, changes nothing) and recency."""
    value = worth * (2 * credit) ** settings.credit
    if settings.half_life_days is not None and age_days is not None:
        value *= 0.5 ** (max(age_days, 0.0) / settings.half_life_days)
    return float(value)


def select_recalled(
    found: Iterable[Found], query: Query, settings: RecallSettings, k: int, among: Set[str] | None = None
) -> list[Found]:
    """The best `k` that may be shown: near enough, of another case, no step twice, few of one trajectory.

    `among` are the traces whose steps may be; None = all.
    """
    chosen: list[Found] = []
    said: set[str] = set()
    shown: dict[str, int] = {}
    for one in sorted(found, key=lambda f: (-f.worth, f.number)):
        if one.case_id == query.exclude_case or (query.imported and not one.imported):
            continue
        if among is not None and one.trace_id not in among:
            continue
        if one.similarity <= 0 or 1 - one.similarity > settings.max_distance:
            continue
        if one.said in said or shown.get(one.trajectory, 0) >= settings.per_trajectory:
            continue
        said.add(one.said)
        shown[one.trajectory] = shown.get(one.trajectory, 0) + 1
        chosen.append(one)
        if len(chosen) >= k:
            break
    return chosen


def embedded(
    embed: Embed, texts: Sequence[Mapping[str, str]], weights: Mapping[str, float]
) -> NDArray[np.float32]:
    """One vector of length one for goal, observation and reasoning of each: the weighted sum of the fields' vectors.

    One instead of three, so that one index and one search serve any weighting of a query; what goal and
    observation share counts for both.
    """
    distinct = list(dict.fromkeys(fields[f] for fields in texts for f in TEXTS if fields[f]))
    if not distinct:
        return np.zeros((len(texts), 0), dtype=np.float32)
    vectors = np.asarray(embed(distinct), dtype=np.float32)
    place = {text: row for row, text in enumerate(distinct)}
    sums = np.zeros((len(texts), vectors.shape[1]), dtype=np.float32)
    for row, fields in enumerate(texts):
        for field in TEXTS:
            if fields[field]:
                vector = vectors[place[fields[field]]]
                sums[row] += weights[field] * vector / max(float(np.linalg.norm(vector)), 1e-12)
    length = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.asarray(sums / np.where(length > 0, length, 1), dtype=np.float32)
