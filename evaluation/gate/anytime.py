"""The interval of a mean that somebody watches grow, and may stop at when it looks good."""

import math
from collections.abc import Sequence

import numpy as np

from ratchet.evaluation.data.intervals import Interval, known_scores
from ratchet.evaluation.gate.betting import EVERYTHING, Wealth, bet, narrowed


def anytime_interval(
    scores: Sequence[float | None], clusters: Sequence[str | None] | None = None
) -> Interval:
    """Mean and 95 % interval that holds wherever one stops, as a test does at its verdict.

    A betting confidence sequence for a bounded mean (Waudby-Smith & Ramdas 2023), intersected over time. Wilson's
    holds for a number of cases fixed beforehand; where a promotion decides when to stop, lucky runs stop early
    and it covers 83–85 %.

    Args:
        scores: in the order in which they were looked at.
        clusters: the session of each, None for a case of its own; turns of one count together, by their mean.

    Raises:
        BadInput: as `mean_interval`.
    """
    known = known_scores(scores)
    groups: dict[object, list[float]] = {}
    for place, (score, cluster) in enumerate(zip(scores, clusters or [None] * len(scores), strict=True)):
        if score is not None:
            groups.setdefault(place if cluster is None else cluster, []).append(score)
    means = np.array([math.fsum(group) / len(group) for group in groups.values()])
    run = bet(Wealth.start(), 2 * means - 1, np.zeros_like(means))
    low, high = ((end + 1) / 2 for end in narrowed(EVERYTHING, run.path))
    mean = float(means.mean())
    return Interval(
        mean=mean, low=min(low, mean), high=max(high, mean), n=len(known), excluded=len(scores) - len(known)
    )
