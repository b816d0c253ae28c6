"""Which of several proven challengers serves: the best on common cases, up to the latest of their stops.

Why common cases: each was proven where its own luck stopped it, so that the one that stopped first looks best. By
the lower end of its interval the worse of two was chosen in 20–29 %; on the cases of the later stop in 1–4 %. All
of them are proven, so that any choice among them, with any further cases, keeps the error rate.
"""

from collections.abc import Mapping, Sequence

from pydantic import Field

from ratchet.agent.record import Record
from ratchet.evaluation.gate.plays import Play
from ratchet.evaluation.gate.verdict import Verdict

CaseGains = Mapping[str, float | None]
"""Case id to a version's score less the champion's; None = not known."""


class ProvenChallenger(Record):
    """A challenger that is shown to be better than the champion."""

    candidate_id: str
    verdict: Verdict
    plays: tuple[Play, ...] = ()
    """Its test; empty where that was not kept."""

    @property
    def gains(self) -> dict[str, float | None]:
        """Over the champion, at each case of its test."""
        return {play.case_id: play.gain for play in self.plays}


class BestChallenger(Record):
    """The one to promote, and why it."""

    candidate_id: str
    verdict: Verdict
    among: int = 1
    n_common: int = 0
    """Cases that all of them played."""
    means: dict[str, float] = Field(default_factory=dict)
    """Mean gain over the champion on these, by candidate."""

    @property
    def reason(self) -> str:
        """One sentence for a person."""
        if self.among == 1:
            return self.verdict.reason
        if not self.n_common:
            return (
                f"{self.verdict.reason}; of {self.among} proven the one whose gain is surest: no common cases"
            )
        mine, others = (
            self.means[self.candidate_id],
            [m for c, m in self.means.items() if c != self.candidate_id],
        )
        beside = ", ".join(f"{mean:+.3f}" for mean in sorted(others, reverse=True))
        return (
            f"{self.verdict.reason}; best of {self.among} proven on {self.n_common} common cases: "
            f"{mine:+.3f} against {beside}"
        )


def common_order(proven: Sequence[ProvenChallenger]) -> list[str]:
    """Cases up to the latest stop: what every proven one is to be compared on."""
    longest = max(proven, key=lambda one: len(one.plays))
    return [play.case_id for play in longest.plays if play.is_evidence]


def best_proven(proven: Sequence[ProvenChallenger], gains: Mapping[str, CaseGains]) -> BestChallenger | None:
    """The best on the cases that all of `gains` know; ties by the surer gain, then the one tested first."""
    if not proven:
        return None
    known = [{c for c, gain in gains[one.candidate_id].items() if gain is not None} for one in proven]
    common = sorted(set.intersection(*known))
    means = {one.candidate_id: _mean(gains[one.candidate_id], common) for one in proven} if common else {}
    best = max(
        proven, key=lambda one: (means.get(one.candidate_id, 0.0), one.verdict.ci[0], one.verdict.gain or 0.0)
    )
    return BestChallenger(
        candidate_id=best.candidate_id,
        verdict=best.verdict,
        among=len(proven),
        n_common=len(common),
        means=means,
    )


def _mean(gains: CaseGains, cases: Sequence[str]) -> float:
    return sum(gains[case] or 0.0 for case in cases) / len(cases)
