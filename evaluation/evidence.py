"""From pairs to bets: who may enter, what is excluded and why, and which pairs are one bet.

Two sampling schemes, fixed before the first pair. *Random labels*: labelled pairs are a random sample;
a = D, c = F − F̄_U, where F̄_U is the judge's mean over the unlabelled clusters since the last bet, each used
once (a running mean over all of them would make the same error in every bet and is no martingale
difference). *Chosen labels* (`min_propensity` set): every pair is a bet, a = ξD/π, c = F(ξ/π − 1).
Sources: Angelopoulos et al., PPI++ (2023); Zrnic & Candès, active inference (2024); Csillag et al. (2025).
"""

from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from agent.errors import BadInput
from evaluation.betting import Bounds
from evaluation.pairs import Pair
from evaluation.seen import SeenKeys

INFRASTRUCTURE: Final = "infrastructure failed"
ONE_SIDE: Final = "labelled on one side only"
NO_SCORE: Final = "picked for labelling but without a score"
WAITING: Final = "not picked for labelling and not judged"
"""No fault: the only reason that does not count towards the limit on exclusions."""


class Observation(NamedTuple):
    """One bet: a is unbiased for the gain, c is the judge's control variate with mean zero."""

    a: float
    c: float
    slice: str | None


@dataclass
class Open:
    """The cluster that is still arriving: sums over its pairs."""

    cluster: str
    slice: str | None
    labelled: int = 0
    judged_labelled: int = 0
    pairs: int = 0
    d: float = 0.0
    f_labelled: float = 0.0
    judged: int = 0
    f: float = 0.0
    a: float = 0.0
    c: float = 0.0


@dataclass
class Intake:
    """Turns pairs, in order, into bets; all of its state is plain JSON."""

    min_propensity: float | None = None
    seen: int = 0
    labelled: int = 0
    judged: int = 0
    excluded: dict[str, int] = field(default_factory=dict)
    propensity: float | None = None
    unlabelled: int = 0
    unlabelled_sum: float = 0.0
    open: Open | None = None
    cases: SeenKeys = field(default_factory=SeenKeys)
    clusters: SeenKeys = field(default_factory=SeenKeys)

    @property
    def bounds(self) -> Bounds:
        """How far a bet can reach, from the declared scheme alone and never from a pair."""
        if self.min_propensity is None:
            return Bounds()
        most = 1 / self.min_propensity
        return Bounds(a_max=most, c_max=max(most - 1, 1.0))

    @property
    def faulty(self) -> int:
        """Pairs that should have carried evidence and do not."""
        return sum(count for reason, count in self.excluded.items() if reason != WAITING)

    def add(self, pair: Pair) -> list[Observation]:
        """Take one pair; return the bets that are now complete (none, one, or two when a cluster closes)."""
        self._refuse_bad(pair)
        self.cases.add(pair.case_id)
        self.seen += 1
        done = self._close_unless(pair.cluster)
        reason = self._reason_to_exclude(pair)
        if reason is not None:
            self.excluded[reason] = self.excluded.get(reason, 0) + 1
            return done
        group = self.open
        if group is None:
            group = Open(pair.cluster or "", pair.slice)
        if pair.cluster is not None and self.open is None:
            self.clusters.add(pair.cluster)
            self.open = group
        self._collect(group, pair)
        if pair.cluster is None:
            done.extend(self._bet(group))
        return done

    def finish(self) -> list[Observation]:
        """No more pairs of the open cluster will come: return its bet."""
        return self._close_unless(None)

    def _refuse_bad(self, pair: Pair) -> None:
        if pair.case_id in self.cases:
            raise BadInput(f"case_id {pair.case_id!r} appears twice; each case is one pair: drop the repeat")
        self._refuse_propensity(pair)
        if pair.cluster is None:
            return
        if self.open is not None and self.open.cluster == pair.cluster:
            if self.open.slice != pair.slice:
                raise BadInput(
                    f"cluster {pair.cluster!r} is in slice {self.open.slice!r} and in {pair.slice!r}; "
                    "a cluster is one bet in one slice: split the cluster or give its pairs one slice"
                )
        elif pair.cluster in self.clusters:
            raise BadInput(
                f"cluster {pair.cluster!r} comes back after its bet was made; "
                "put the pairs of one cluster next to each other"
            )

    def _refuse_propensity(self, pair: Pair) -> None:
        if self.min_propensity is None:
            if self.propensity is None:
                self.propensity = pair.propensity
            elif pair.propensity != self.propensity:
                raise BadInput(
                    f"case {pair.case_id!r} has propensity {pair.propensity:g}, earlier ones "
                    f"{self.propensity:g}; labels were chosen: declare the smallest as min_propensity"
                )
        elif pair.propensity < self.min_propensity:
            raise BadInput(
                f"case {pair.case_id!r} has propensity {pair.propensity:g} < min_propensity "
                f"{self.min_propensity:g}; declare the smallest propensity before the first pair"
            )

    def _reason_to_exclude(self, pair: Pair) -> str | None:
        if "infrastructure" in (pair.champion_failed, pair.challenger_failed):
            return INFRASTRUCTURE
        if _is_labelled(pair):
            return None
        labels_given = (pair.champion is not None) + (pair.challenger is not None)
        if labels_given == 1 and "agent" not in (pair.champion_failed, pair.challenger_failed):
            return ONE_SIDE
        if self.min_propensity is not None:
            return NO_SCORE if pair.propensity == 1.0 else None
        if None not in pair.judgements:
            return None
        return NO_SCORE if pair.propensity == 1.0 else WAITING

    def _collect(self, group: Open, pair: Pair) -> None:
        judged_ours, judged_theirs = pair.judgements
        f = judged_theirs - judged_ours if judged_ours is not None and judged_theirs is not None else None
        group.pairs += 1
        group.judged += f is not None
        group.f += f or 0.0
        self.judged += f is not None
        share = 0.0
        ours, theirs = pair.labels
        if _is_labelled(pair) and ours is not None and theirs is not None:
            self.labelled += 1
            group.labelled += 1
            group.judged_labelled += f is not None
            group.d += theirs - ours
            group.f_labelled += f or 0.0
            share = 1 / pair.propensity
            group.a += (theirs - ours) * share
        group.c += (f or 0.0) * (share - 1)

    def _close_unless(self, cluster: str | None) -> list[Observation]:
        if self.open is None or (cluster is not None and self.open.cluster == cluster):
            return []
        done = self._bet(self.open)
        self.open = None
        return done

    def _bet(self, group: Open) -> list[Observation]:
        if self.min_propensity is not None:
            return [Observation(group.a / group.pairs, group.c / group.pairs, group.slice)]
        if not group.labelled:
            if group.judged:
                self.unlabelled += 1
                self.unlabelled_sum += group.f / group.judged
            return []
        c = 0.0
        # A cluster judged only in part would compare different pairs: it bets without the judge.
        if self.unlabelled and group.judged_labelled == group.labelled:
            c = group.f_labelled / group.labelled - self.unlabelled_sum / self.unlabelled
            self.unlabelled, self.unlabelled_sum = 0, 0.0
        return [Observation(group.d / group.labelled, c, group.slice)]

    def state(self) -> dict[str, Any]:
        """Everything as plain JSON."""
        plain = {k: v for k, v in vars(self).items() if k not in {"open", "cases", "clusters", "excluded"}}
        return plain | {
            "excluded": dict(self.excluded),
            "open": vars(self.open).copy() if self.open else None,
            "cases": self.cases.state(),
            "clusters": self.clusters.state(),
        }

    @staticmethod
    def restore(state: dict[str, Any]) -> "Intake":
        """The inverse of `state`."""
        parts = dict(state)
        opened, cases, clusters = parts.pop("open"), parts.pop("cases"), parts.pop("clusters")
        return Intake(
            **parts,
            open=Open(**opened) if opened else None,
            cases=SeenKeys.restore(cases),
            clusters=SeenKeys.restore(clusters),
        )


def _is_labelled(pair: Pair) -> bool:
    """Both scores known because the pair was picked; two failed sides alone do not make a pair picked."""
    picked = pair.propensity == 1.0 or pair.champion is not None or pair.challenger is not None
    return picked and None not in pair.labels
