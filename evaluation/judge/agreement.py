"""How far a judge agrees with people: TPR, TNR and Cohen's κ, each with an exact lower bound.

Audits are answers that both graded, each with the probability with which a person was asked. Where that depends on
what the judge said (people saw what it flagged), the plain shares are wrong: sensitivity comes out too high and
specificity too low. Estimates weigh each audit by 1/probability (Horvitz & Thompson 1952), which where it follows
from the verdict alone is the correction of Begg & Greenes (1983). Bounds need samples drawn alike: each verdict's
audits are thinned to their smallest probability, by the hash of the trace, and from the exact bounds of P(right |
verdict) and the known share of verdicts follow those of TPR, TNR and κ. Where nobody was asked about a verdict its
bound is the whole [0, 1]: what was never looked at is not known.

Why κ's bound is at a corner: with J = TPR + TNR − 1, κ = 2π(1−π)J / (π + q − 2πq) rises with TPR and with TNR, and
in π first rises and then falls; so its least value over a box is at the lowest rates and one end of π.
"""

from collections.abc import Sequence
from datetime import datetime

from pydantic import Field

from ratchet.agent.record import Record, content_hash
from ratchet.evaluation.judge.bounds import Bound, exact_high, exact_low
from ratchet.evaluation.judge.judge import RIGHT


class Audit(Record):
    """One answer that a judge and a person graded, neither knowing of the other."""

    trace_id: str
    at: datetime
    """When the person answered."""
    judge: float = Field(ge=0, le=1)
    person: float = Field(ge=0, le=1)
    propensity: float = Field(default=1.0, gt=0, le=1)
    """Probability with which a person was asked about it."""
    slice: str | None = None
    rubric_version: str = "1"
    length: int = Field(default=0, ge=0)
    """Characters of the answer."""

    @property
    def approved(self) -> bool:
        """Whether the judge says that the answer is right."""
        return self.judge >= RIGHT

    @property
    def is_right(self) -> bool:
        """Whether the person says so."""
        return self.person >= RIGHT


class Rate(Record):
    """A share, or κ, with its lower bound."""

    estimate: float | None = None
    """None = nothing was seen of which it is a share."""
    low: float = Field(ge=-1, le=1)

    def __str__(self) -> str:
        return "–" if self.estimate is None else f"{self.estimate:.2f} (≥ {self.low:.2f})"


class Agreement(Record):
    """A judge beside people."""

    tpr: Rate
    """Share of the right answers that it approves."""
    tnr: Rate
    """Share of the wrong answers that it refuses."""
    kappa: Rate
    n: int = Field(ge=0)
    n_right: int = Field(ge=0)
    """Audits whose answer is right; the bound of `tpr` rests on them, that of `tnr` on the others."""
    naive_tpr: float | None = None
    """Among those that people saw, whatever made them look."""
    naive_tnr: float | None = None

    @property
    def reliability(self) -> float:
        """What its word is worth beside a person's, in [0, 1]: Youden's J at the lower bounds."""
        return max(self.tpr.low + self.tnr.low - 1, 0.0)


class Verdicts(Record):
    """How often a judge approved and refused, of all answers that audits were drawn from."""

    approved: int = Field(ge=0)
    refused: int = Field(ge=0)


def agreement(
    audits: Sequence[Audit],
    *,
    alpha: float = 0.05,
    judged: Verdicts | None = None,
    low: Bound = exact_low,
    high: Bound = exact_high,
) -> Agreement:
    """What the audits say.

    Args:
        audits: each answer once.
        alpha: probability that the bound of TPR is wrong; of TNR; of κ.
        judged: all of the judge's verdicts; needed where people were asked depending on them, else all audits are
            thinned alike.
        low: lower end of a share.
        high: upper end of one.
    """
    n_right = sum(a.is_right for a in audits)
    seen = {(a, r): sum(x.approved == a and x.is_right == r for x in audits) for a in _BOTH for r in _BOTH}
    even = len({a.propensity for a in audits}) <= 1
    if judged is None:
        bounds = _bounds_of_sample(audits if even else _thinned(audits), alpha, low, high)
    else:
        bounds = _bounds_by_verdict(audits, judged, alpha, low, high)
    tpr, tnr, kappa = _estimates(audits, judged)
    return Agreement(
        tpr=Rate(estimate=tpr, low=bounds[0]),
        tnr=Rate(estimate=tnr, low=bounds[1]),
        kappa=Rate(estimate=kappa, low=bounds[2]),
        n=len(audits),
        n_right=n_right,
        naive_tpr=_share(seen[True, True], n_right),
        naive_tnr=_share(seen[False, False], len(audits) - n_right),
    )


_BOTH = (True, False)


def by_slice(audits: Sequence[Audit], *, alpha: float = 0.05) -> dict[tuple[str, str], Agreement]:
    """The same for each slice and rubric version; bounds hold for each alone."""
    groups: dict[tuple[str, str], list[Audit]] = {}
    for audit in audits:
        groups.setdefault((audit.slice or "", audit.rubric_version), []).append(audit)
    return {key: agreement(groups[key], alpha=alpha) for key in sorted(groups)}


def kappa_of(tpr: float, tnr: float, prevalence: float) -> float:
    """Cohen's κ of two raters, from how one of them meets the other; 0 where either says but one thing.

    Example:
        >>> round(kappa_of(tpr=2 / 3, tnr=3 / 4, prevalence=0.6), 3)
        0.4
    """
    share = prevalence * tpr + (1 - prevalence) * (1 - tnr)
    by_chance = prevalence + share - 2 * prevalence * share
    if by_chance <= 0 or prevalence <= 0 or prevalence >= 1:
        return 0.0
    return 2 * prevalence * (1 - prevalence) * (tpr + tnr - 1) / by_chance


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


def _estimates(
    audits: Sequence[Audit], judged: Verdicts | None
) -> tuple[float | None, float | None, float | None]:
    weight = {(a, r): 0.0 for a in _BOTH for r in _BOTH}
    for audit in audits:
        weight[audit.approved, audit.is_right] += 1 / audit.propensity
    if (
        judged is not None
    ):  # how many there are of each verdict is known: weigh to that, not to the sampled number
        for verdict, count in ((True, judged.approved), (False, judged.refused)):
            there = weight[verdict, True] + weight[verdict, False]
            if count and not there:
                return None, None, None
            for truth in _BOTH:
                weight[verdict, truth] *= count / there if there else 0.0
    right = weight[True, True] + weight[False, True]
    wrong = weight[True, False] + weight[False, False]
    tpr, tnr = _share(weight[True, True], right), _share(weight[False, False], wrong)
    if tpr is None or tnr is None:
        return tpr, tnr, None
    return tpr, tnr, kappa_of(tpr, tnr, right / (right + wrong))


def _thinned(audits: Sequence[Audit]) -> list[Audit]:
    """Each kept with least probability / its own, so that all were drawn alike; by hash, and so always the same."""
    least = min((a.propensity for a in audits), default=1.0)
    return [a for a in audits if _place(a.trace_id) * a.propensity < least]


def _place(trace_id: str) -> float:
    """In [0, 1), uniform over traces."""
    return int(content_hash(["audit", trace_id], length=13), 16) / 16**13


def _bounds_of_sample(
    audits: Sequence[Audit], alpha: float, low: Bound, high: Bound
) -> tuple[float, float, float]:
    """Of a plain random sample: exact bounds of both rates, and κ's by a quarter of alpha for each end it needs."""
    n, right = len(audits), sum(a.is_right for a in audits)
    hits = sum(a.is_right and a.approved for a in audits)
    refusals = sum(not a.is_right and not a.approved for a in audits)
    quarter = alpha / 4
    rates = low(hits, right, quarter), low(refusals, n - right, quarter)
    ends = low(right, n, quarter), high(right, n, quarter)
    kappa = min(kappa_of(*rates, end) for end in ends)
    return low(hits, right, alpha), low(refusals, n - right, alpha), kappa


def _bounds_by_verdict(
    audits: Sequence[Audit], judged: Verdicts, alpha: float, low: Bound, high: Bound
) -> tuple[float, float, float]:
    """From P(right | approved), P(wrong | refused), each at half of alpha, and the known share of verdicts."""
    approved = _thinned([a for a in audits if a.approved])
    refused = _thinned([a for a in audits if not a.approved])
    half = alpha / 2
    good = [sum(a.is_right for a in side) for side in (approved, refused)]
    ppv_low = low(good[0], len(approved), half)
    missed_high = high(good[1], len(refused), half)
    share = judged.approved / (judged.approved + judged.refused)
    found, missed = ppv_low * share, missed_high * (1 - share)
    kept, slipped = (1 - missed_high) * (1 - share), (1 - ppv_low) * share
    tpr, tnr = _share(found, found + missed), _share(kept, kept + slipped)
    # the same κ with the roles changed: how people meet the judge's verdicts, whose share is known
    return tpr or 0.0, tnr or 0.0, kappa_of(ppv_low, 1 - missed_high, share)
