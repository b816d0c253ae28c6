"""From pairs to bets: who may enter, what is excluded and why, and which pairs are one bet.

Two sampling schemes, fixed before the first pair. *Random labels*: labelled pairs are a random sample;
a = D, c = F − F̄_U, where F̄_U is the judge's mean over the unlabelled clusters since the last bet, each used
once (a running mean over all of them would make the same error in every bet and is no martingale
difference); clusters are picked whole. A label without judge's scores bets with c = 0 and leaves what waits for
F̄_U to the next. So does a case that both answered alike, which no judge needs to see: F and F̄_U are then both of
cases that differ. *Chosen labels* (`min_propensity` set): every pair is a bet,
a = ξD/π, c = F(ξ/π − 1).
Sources: Angelopoulos et al., PPI++ (2023); Zrnic & Candès, active inference (2024); Csillag et al. (2025).
"""

from copy import copy, deepcopy
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, NamedTuple

from ratchet.agent.errors import BadInput
from ratchet.evaluation.data.seen import SeenKeys
from ratchet.evaluation.gate.betting import Bounds
from ratchet.evaluation.gate.pairs import Pair

BOTH_BROKE: Final = "infrastructure failed on both sides"
ONE_SIDE: Final = "labelled on one side only"
NO_SCORE: Final = "picked for labelling but without a score"
WAITING: Final = "not picked for labelling and not judged"
"""No fault: the only reason that does not count towards the limit on exclusions."""
MOST_SLICES: Final = 1000
"""More would make each slice's budget meaningless; a slice is a channel or a language, not a user."""


class Bet(NamedTuple):
    """One bet: a is unbiased for the gain, c is the judge's control variate with mean zero."""

    a: float
    c: float
    parts: tuple[tuple[str, float], ...]
    """Slices in it, each with a of its pairs alone; a slice's bets stand apart from all others'."""
    alone: bool = True
    """Whether it is one case, and no mean over a cluster of several."""


@dataclass
class Sums:
    """Over the pairs of the open cluster, or over those of one slice in it."""

    pairs: int = 0
    labelled: int = 0
    d: float = 0.0
    a: float = 0.0

    def add(self, d: float | None, a: float) -> None:
        """Count one pair."""
        self.pairs += 1
        self.a += a
        if d is not None:
            self.labelled += 1
            self.d += d


@dataclass(slots=True)
class OpenCluster:
    """The cluster that is still arriving."""

    cluster: str
    whole: Sums = field(default_factory=Sums)
    judged: int = 0
    f: float = 0.0
    c: float = 0.0
    slices: dict[str, Sums] = field(default_factory=dict)

    def collect(self, d: float | None, f: float | None, pair: Pair) -> None:
        """Add one pair's differences: the human one and the judge's, None where not known."""
        a, c = _weighted(d, f, pair.propensity)
        self.c += c
        self.whole.add(d, a)
        if pair.slice is not None:
            self.slices.setdefault(pair.slice, Sums()).add(d, a)
        if f is not None:
            self.judged += 1
            self.f += f

    @property
    def means(self) -> tuple[float | None, float | None]:
        """Mean human difference and mean judge's difference; a cluster is labelled wholly or not at all."""
        labelled = self.whole.labelled
        if not labelled:
            return None, self.f / self.judged if self.judged else None
        # Judged only in part, the two means would be over different pairs: then it bets without the judge.
        return self.whole.d / labelled, self.f / self.judged if self.judged == labelled else None

    @staticmethod
    def restore(state: dict[str, Any]) -> "OpenCluster":
        """The inverse of `asdict`."""
        slices = {name: Sums(**sums) for name, sums in state["slices"].items()}
        return OpenCluster(**state | {"whole": Sums(**state["whole"]), "slices": slices})


@dataclass
class Intake:
    """Turns pairs, in order, into bets; all of its state is plain JSON."""

    min_propensity: float | None = None
    seen: int = 0
    labelled: int = 0
    judged: int = 0
    excluded: dict[str, int] = field(default_factory=dict)
    slices: dict[str, int] = field(default_factory=dict)
    """Pairs seen in each slice."""
    propensity: float | None = None
    unlabelled: int = 0
    unlabelled_sum: float = 0.0
    open: OpenCluster | None = None
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

    def add(self, pair: Pair) -> list[Bet]:
        """Take one pair; return the bets that are now complete (none, one, or two when a cluster closes)."""
        d, f = _differences(pair)
        reason = self._reason_to_exclude(pair, d, f)
        self._refuse_bad(pair, counts=reason is None, labelled=d is not None)
        self.seen += 1
        if pair.slice is not None:
            self.slices[pair.slice] = self.slices.get(pair.slice, 0) + 1
        done = self._close_unless(pair.cluster) if self.open is not None else []
        if reason is not None:
            self.excluded[reason] = self.excluded.get(reason, 0) + 1
            return done
        self.labelled += d is not None
        self.judged += f is not None
        if pair.cluster is None:
            return done + self._bet_pair(d, f, pair)
        if self.open is None:
            self.clusters.is_new(pair.cluster)
            self.open = OpenCluster(pair.cluster)
        self.open.collect(d, f, pair)
        return done

    def finish(self) -> list[Bet]:
        """No more pairs of the open cluster will come: return its bet."""
        return self._close_unless(None)

    def _refuse_bad(self, pair: Pair, *, counts: bool, labelled: bool) -> None:
        if pair.slice is not None and len(self.slices) >= MOST_SLICES and pair.slice not in self.slices:
            raise BadInput(
                f"slice {pair.slice!r} is number {MOST_SLICES + 1}, the limit is {MOST_SLICES}; "
                "use a coarser slice, such as channel or language"
            )
        self._refuse_propensity(pair)
        if pair.cluster is not None:
            self._refuse_returning(pair.cluster)
            if counts and self.open is not None and self.open.cluster == pair.cluster:
                self._refuse_partial(self.open, labelled)
        if not self.cases.is_new(pair.case_id):
            raise BadInput(f"case_id {pair.case_id!r} appears twice; each case is one pair: drop the repeat")

    def _refuse_returning(self, cluster: str) -> None:
        if (self.open is None or self.open.cluster != cluster) and cluster in self.clusters:
            raise BadInput(
                f"cluster {cluster!r} comes back after its bet was made; "
                "put the pairs of one cluster next to each other"
            )

    def _refuse_partial(self, group: OpenCluster, labelled: bool) -> None:
        # Clusters with a label would be the large ones, and no random sample of all clusters.
        if self.min_propensity is None and labelled != (group.whole.labelled > 0):
            raise BadInput(
                f"cluster {group.cluster!r} is labelled in part; label whole clusters, or state each pair's "
                "propensity and declare the smallest as min_propensity"
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

    def _reason_to_exclude(self, pair: Pair, d: float | None, f: float | None) -> str | None:
        if pair.is_broken:
            return BOTH_BROKE
        if d is not None:
            return None
        one_sided = (pair.champion is None) != (pair.challenger is None)
        if one_sided and pair.champion_failed is None and pair.challenger_failed is None:
            return ONE_SIDE
        if self.min_propensity is not None:
            return NO_SCORE if pair.propensity == 1.0 else None
        if f is not None:
            return None
        return NO_SCORE if pair.propensity == 1.0 else WAITING

    def _close_unless(self, cluster: str | None) -> list[Bet]:
        if self.open is None or (cluster is not None and self.open.cluster == cluster):
            return []
        done = self._bet_cluster(self.open)
        self.open = None
        return done

    def _bet_cluster(self, group: OpenCluster) -> list[Bet]:
        if self.min_propensity is not None:
            n = group.whole.pairs
            parts = tuple((name, part.a / part.pairs) for name, part in group.slices.items())
            return [Bet(group.whole.a / n, group.c / n, parts, alone=n == 1)]
        parts = tuple((name, part.d / part.labelled) for name, part in group.slices.items() if part.labelled)
        bets = self._bet_sampled(*group.means, parts)
        return [one._replace(alone=group.whole.pairs == 1) for one in bets]

    def _bet_pair(self, d: float | None, f: float | None, pair: Pair) -> list[Bet]:
        if self.min_propensity is not None:
            a, c = _weighted(d, f, pair.propensity)
            return [Bet(a, c, () if pair.slice is None else ((pair.slice, a),))]
        return self._bet_sampled(d, f, () if pair.slice is None or d is None else ((pair.slice, d),))

    def _bet_sampled(
        self, d: float | None, f: float | None, parts: tuple[tuple[str, float], ...]
    ) -> list[Bet]:
        """Labels are a random sample: the judged but unlabelled wait for the next label, each used once."""
        if d is None:
            if f is not None:
                self.unlabelled += 1
                self.unlabelled_sum += f
            return []
        c = 0.0
        if f is not None and self.unlabelled:
            c = f - self.unlabelled_sum / self.unlabelled
            self.unlabelled, self.unlabelled_sum = 0, 0.0
        return [Bet(d, c, parts)]

    def copy(self) -> "Intake":
        """Another one that goes on from here."""
        return replace(
            self,
            excluded=dict(self.excluded),
            slices=dict(self.slices),
            open=deepcopy(self.open),
            cases=self.cases.copy(),
            clusters=self.clusters.copy(),
        )

    def state(self) -> dict[str, Any]:
        """Everything as plain JSON."""
        plain = {k: copy(v) for k, v in vars(self).items() if k not in {"open", "cases", "clusters"}}
        return plain | {
            "open": asdict(self.open) if self.open else None,
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
            open=OpenCluster.restore(opened) if opened else None,
            cases=SeenKeys.restore(cases),
            clusters=SeenKeys.restore(clusters),
        )


def _differences(pair: Pair) -> tuple[float | None, float | None]:
    """Challenger − champion on the human scale and as the judge sees it; None = not known.

    Two failed sides are 0 against 0, but they count as labelled only if the pair was picked: an unpicked pair
    that labels itself would make the labelled ones no random sample.
    """
    ours, theirs, judged_ours, judged_theirs = (
        pair.champion,
        pair.challenger,
        pair.champion_judge,
        pair.challenger_judge,
    )
    if not pair.is_broken and (pair.champion_failed is not None or pair.challenger_failed is not None):
        picked = pair.propensity == 1.0 or ours is not None or theirs is not None
        (ours, theirs), (judged_ours, judged_theirs) = pair.labels, pair.judgements
        if not picked:
            ours = None
    d = None if ours is None or theirs is None else theirs - ours
    f = None if judged_ours is None or judged_theirs is None else judged_theirs - judged_ours
    return d, f


def _weighted(d: float | None, f: float | None, propensity: float) -> tuple[float, float]:
    """Return a = ξD/π and c = F(ξ/π − 1); a pair that the judge did not see has F = 0."""
    share = 0.0 if d is None else 1 / propensity
    return (d or 0.0) * share, (f or 0.0) * (share - 1)
