"""The gate's evidence: one case, run by champion and challenger, and what each scored.

Why a record of its own: a pair is the only thing that may enter a bet, so every bound that the guarantee
needs (scores in [0, 1], a positive propensity) is checked here, once, before any wealth moves.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ratchet.agent.errors import BadInput

Score = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Amount = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Failure = Literal["agent", "infrastructure"]
"""Who failed: the agent, or what it runs on (state it after a second try). One side's failure of either kind is
its 0: an action at which the user's code breaks, or a prompt that an endpoint refuses, is a failure of the version
that sent it, and leaving it out would leave out what it does worst. Only `infrastructure` on both sides says
nothing about either: that pair is excluded and counted."""


class Pair(BaseModel):
    """One case (or session), both versions. Scores in [0, 1]; None = not labelled / not judged."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    case_id: Annotated[str, Field(min_length=1)]
    champion: Score | None = None
    """On the human scale: a person's label, or the environment's ground truth."""
    challenger: Score | None = None
    champion_judge: Score | None = None
    challenger_judge: Score | None = None
    cluster: str | None = None
    """Pairs of one session or task are one bet, on their mean (and one in each slice among them, on its mean
    there); they must stand next to each other."""
    propensity: Annotated[float, Field(gt=0.0, le=1.0, allow_inf_nan=False)] = 1.0
    """Probability with which this pair was picked for labelling, whether or not it was picked."""
    slice: str | None = None
    champion_failed: Failure | None = None
    challenger_failed: Failure | None = None
    champion_cost: Amount | None = None
    """In the unit that the caller uses throughout: shown beside the gain, never part of a bet."""
    challenger_cost: Amount | None = None
    champion_latency: Amount | None = None
    """Seconds."""
    challenger_latency: Amount | None = None
    champion_id: str | None = None
    """Content hash of the candidate that ran; a change in the middle of a test is refused."""
    challenger_id: str | None = None
    judge_id: str | None = None

    @property
    def is_broken(self) -> bool:
        """Whether what both sides run on failed: then the pair says nothing about either."""
        return self.champion_failed == self.challenger_failed == "infrastructure"

    @property
    def labels(self) -> tuple[float | None, float | None]:
        """Champion's and challenger's score on the human scale; a side that failed scores 0."""
        return self._unless_failed(self.champion, self.challenger)

    @property
    def judgements(self) -> tuple[float | None, float | None]:
        """The judge's scores; a side that failed has no answer to judge and scores 0."""
        return self._unless_failed(self.champion_judge, self.challenger_judge)

    def _unless_failed(self, ours: float | None, theirs: float | None) -> tuple[float | None, float | None]:
        if self.is_broken:
            return None, None
        return (
            ours if self.champion_failed is None else 0.0,
            theirs if self.challenger_failed is None else 0.0,
        )


class SideResult(BaseModel):
    """What one version did on one case, as the gate needs it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    score: Score | None = None
    judge: Score | None = None
    failed: Failure | None = None
    cost: Amount | None = None
    latency: Amount | None = None


def pair_up(champion: Mapping[str, SideResult], challenger: Mapping[str, SideResult]) -> list[Pair]:
    """Join two runs, keyed by case id, in the champion's order; a case on one side only is refused."""
    one_sided = sorted(champion.keys() ^ challenger.keys())
    if one_sided:
        raise BadInput(
            f"{len(one_sided)} cases ran on one side only (first: {one_sided[0]!r}); "
            "the gate compares the same cases: run the missing side or drop them from both"
        )
    return [_join(case_id, ours, challenger[case_id]) for case_id, ours in champion.items()]


def _join(case_id: str, champion: SideResult, challenger: SideResult) -> Pair:
    return Pair(
        case_id=case_id,
        champion=champion.score,
        challenger=challenger.score,
        champion_judge=champion.judge,
        challenger_judge=challenger.judge,
        champion_failed=champion.failed,
        challenger_failed=challenger.failed,
        champion_cost=champion.cost,
        challenger_cost=challenger.cost,
        champion_latency=champion.latency,
        challenger_latency=challenger.latency,
    )


def refuse_contaminated(pairs: Iterable[Pair], seen: Iterable[str]) -> Iterator[Pair]:
    """Pass the pairs through; BadInput at the first whose case id a proposer saw."""
    known = frozenset(seen)
    for pair in pairs:
        if pair.case_id in known:
            raise BadInput(
                f"case {pair.case_id!r} was seen by the proposer; draw fresh cases or drop this one"
            )
        yield pair
