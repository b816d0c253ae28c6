"""What share of answers is right, when a judge looked at all of them and people at a few.

The judge's own share is biased by what it misses and lets through. Rogan & Gladen (1978) turn it back by TPR and
TNR; PPI++ moves the mean that people gave by what the judge sees in the rest. Both hold for any judge; a bad one
makes them wide. Two ways on the same data: where they differ by more than their width, the audits are no random
sample.
Sources: Rogan & Gladen, Am. J. Epidemiol. 107 (1978); interval: Lang & Reiczigel, Prev. Vet. Med. 113 (2014), who
add two pseudo-audits a rate, because the plain one covers too little; Angelopoulos, Duchi & Zrnic, PPI++
(2311.01453).
"""

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from ratchet.agent.errors import BadInput
from ratchet.agent.record import Record
from ratchet.evaluation.data.arrays import Floats
from ratchet.evaluation.judge.agreement import Audit, Verdicts


class CorrectedRate(Record):
    """A share with its 95 % interval (or as asked)."""

    estimate: float
    low: float
    high: float
    weight: float = Field(default=1.0, ge=0, le=1)
    """Of the judge in it (PPI++'s λ); 0 = people alone."""

    def __str__(self) -> str:
        return f"{self.estimate:.3f} [{self.low:.3f}, {self.high:.3f}]"


def rogan_gladen(judged: Verdicts, audits: Sequence[Audit], *, alpha: float = 0.05) -> CorrectedRate:
    """The share of right answers, from the judge's verdicts on all and its rates in the audits, drawn alike.

    Raises:
        BadInput: it is no better than chance there, so that nothing can be turned back.
    """
    right = [a.approved for a in audits if a.is_right]
    wrong = [not a.approved for a in audits if not a.is_right]
    n = judged.approved + judged.refused
    if not right or not wrong or not n:
        raise BadInput(
            f"{len(right)} audited right answers and {len(wrong)} wrong ones: some of each are needed; "
            "label more answers"
        )
    return prevalence(judged.approved, n, sum(right), len(right), sum(wrong), len(wrong), alpha=alpha)


def prevalence(
    positive: int, tested: int, hits: int, diseased: int, cleared: int, healthy: int, *, alpha: float = 0.05
) -> CorrectedRate:
    """The share that is truly positive.

    Args:
        positive: tested positive,
        tested: of so many.
        hits: tested positive,
        diseased: of so many that truly are; infinite trials are not needed: give large numbers for a known rate.
        cleared: tested negative,
        healthy: of so many that truly are not.
        alpha: probability that the interval misses it.

    Raises:
        BadInput: TPR + TNR ≤ 1.
    """
    from scipy.stats import norm

    q, tpr, tnr = positive / tested, hits / diseased, cleared / healthy
    if tpr + tnr <= 1:
        raise BadInput(f"TPR {tpr:.2f} + TNR {tnr:.2f} ≤ 1: no better than chance, nothing can be corrected")
    z = float(norm.ppf(1 - alpha / 2))
    n, n_tpr, n_tnr = tested + z * z, diseased + 2, healthy + 2
    q_, tpr_, tnr_ = (positive + z * z / 2) / n, (hits + 1) / n_tpr, (cleared + 1) / n_tnr
    youden = tpr_ + tnr_ - 1
    middle = (q_ + tnr_ - 1) / youden
    var_tpr, var_tnr = tpr_ * (1 - tpr_) / n_tpr, tnr_ * (1 - tnr_) / n_tnr
    spread = q_ * (1 - q_) / n + var_tpr * middle**2 + var_tnr * (1 - middle) ** 2
    half = z * float(np.sqrt(spread)) / abs(youden)
    shift = 2 * z * z * (middle * var_tpr - (1 - middle) * var_tnr)
    low, high = (min(max(middle + shift + end, 0.0), 1.0) for end in (-half, half))
    estimate = min(max((q + tnr - 1) / (tpr + tnr - 1), 0.0), 1.0)
    return CorrectedRate(estimate=estimate, low=min(low, estimate), high=max(high, estimate))


def ppi_mean(
    people: Sequence[float], judge: Sequence[float], unlabelled: Sequence[float], *, alpha: float = 0.05
) -> CorrectedRate:
    """Mean of what people would say, by PPI++ with the weight that makes the interval shortest.

    Args:
        people: scores of the answers that people graded, drawn at random.
        judge: the judge's of the same answers.
        unlabelled: the judge's of all others.
        alpha: probability that the interval misses it, for large samples.

    Raises:
        BadInput: fewer than two labels, or none unlabelled.
    """
    y, f, rest = (np.asarray(one, float) for one in (people, judge, unlabelled))
    if len(y) != len(f) or len(y) < 2 or not len(rest):
        raise BadInput(
            f"{len(y)} labels, {len(f)} of them judged, {len(rest)} other answers judged: two labels and one other "
            "answer are the least"
        )
    from scipy.stats import norm

    weight = _weight(y, f, rest)
    estimate = float(weight * rest.mean() + (y - weight * f).mean())
    error = np.sqrt((weight * rest).var() / len(rest) + (y - weight * f).var() / len(y))
    half = float(norm.ppf(1 - alpha / 2) * error)
    return CorrectedRate(estimate=estimate, low=estimate - half, high=estimate + half, weight=weight)


def _weight(y: Floats, f: Floats, rest: Floats) -> float:
    """λ of PPI++, equation 6 for a mean; clipped to [0, 1] as its authors' package does."""
    spread = np.concatenate([f, rest]).var(ddof=1)
    if spread == 0:
        return 0.0
    covariance = ((y - y.mean()) * (f - f.mean())).mean()
    return float(np.clip(covariance / ((1 + len(y) / len(rest)) * spread), 0.0, 1.0))
