"""How far people agree beyond chance: Cohen's κ for two, Krippendorff's α for any number with gaps, with intervals.

Decision: bootstrap over items, widened by the exact interval of the items agreed on. Why: of ten items that all
agree, every bootstrap sample agrees, and 1.0 [1.0, 1.0] would promise what ten items cannot show. Where nobody used
more than one value neither can be told from chance, and is None.

Sources: Cohen (1960), https://doi.org/10.1177/001316446002000104; Krippendorff (2011), Computing Krippendorff's
Alpha-Reliability, sections C–E. Checked against scikit-learn and the `krippendorff` package in
`tests/evaluation/test_agreement.py`.
"""

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from typing import Any, Final, Literal

import numpy as np
from pydantic import Field

from ratchet.agent.errors import BadInput
from ratchet.agent.record import Json, Record, as_text
from ratchet.evaluation.data.arrays import Floats
from ratchet.evaluation.data.labels import Label
from ratchet.evaluation.data.raters import rater_name
from ratchet.evaluation.data.scorers import as_object, plain

Level = Literal["nominal", "ordinal", "interval"]
"""What the distance of two values means: other or the same; ranks between; squared difference."""
_SAMPLES: Final = 1000


class Reliability(Record):
    """Agreement beyond chance in [-1, 1], with its 95 % interval."""

    value: float | None
    """1 = always agree, 0 = as chance would; None = nobody used more than one value."""
    low: float | None = None
    high: float | None = None
    n: int = Field(ge=0)
    """Items that at least two raters answered."""

    def __str__(self) -> str:
        if self.value is None or self.low is None or self.high is None:
            return f"cannot be told (n={self.n})"
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}] (n={self.n})"


class Opinion(Record):
    """What one rater said of one item, as a value that two of them may share."""

    item: str
    rater: str
    said: str | float | None
    rubric: str = "1"


class PairAgreement(Record):
    """Two raters, on the items that both answered under one version of the rubric."""

    rubric: str
    one: str
    other: str
    kappa: Reliability


def cohen_kappa(one: Sequence[Json], other: Sequence[Json]) -> float | None:
    """Cohen's κ of two raters' values, item by item; None where both used one and the same value only.

    Raises:
        BadInput: the two have not the same number of items, or none.
    """
    return _kappa(_confusion(one, other))


def kappa_interval(one: Sequence[Json], other: Sequence[Json], *, seed: int = 0) -> Reliability:
    """κ with its 95 % interval: bootstrap, or Clopper–Pearson's for the share agreed on, the wider."""
    table = _confusion(one, other)
    value, n = _kappa(table), len(one)
    if value is None:
        return Reliability(value=None, n=n)
    drawn = np.random.default_rng(seed).multinomial(n, table.ravel() / n, size=_SAMPLES)
    found = [_kappa(sample.reshape(table.shape).astype(float)) for sample in drawn]
    chance = float(table.sum(0) @ table.sum(1)) / n**2
    low, high = ((share - chance) / (1 - chance) for share in _exact(round(float(np.trace(table))), n))
    return _widest(value, [one for one in found if one is not None], low, high, n)


def krippendorff_alpha(items: Sequence[Sequence[Any]], level: Level = "nominal") -> float | None:
    """Krippendorff's α of any number of raters; None where all said one and the same value, or none was said twice.

    Args:
        items: what each rater said of each item, `None` where nothing; shape (n items, any number of raters).
        level: what distance means; numbers for all but nominal.

    Raises:
        BadInput: values that are no numbers, where the level needs them.
    """
    counts, values = _counted(items, level)
    return _alpha(counts, values, level)


def alpha_interval(items: Sequence[Sequence[Any]], level: Level = "nominal", *, seed: int = 0) -> Reliability:
    """α with its 95 % interval: bootstrap over items, and where all agree, as far as so many could have hidden."""
    counts, values = _counted(items, level)
    value, n = _alpha(counts, values, level), len(counts)
    if value is None:
        return Reliability(value=None, n=n)
    draw = np.random.default_rng(seed)
    samples = (draw.multinomial(n, np.full(n, 1 / n)) for _ in range(_SAMPLES))
    found = [_alpha(counts, values, level, weights=weights.astype(float)) for weights in samples]
    low = value
    if value == 1:
        delta = _distances(counts.sum(0), values, level)
        apart, _ = _disagreements(counts, delta, np.ones(n))[::-1]
        low = 1 - (1 - _exact(n, n)[0]) * float(delta.max()) / apart
    return _widest(value, [one for one in found if one is not None], low, value, n)


def opinions_of(labels: Sequence[Label], kind: Literal["score", "expected"]) -> list[Opinion]:
    """What people said of traces; of a right answer the words, as scorers compare them."""
    return [
        Opinion(item=label.trace_id, rater=rater_name(label.rater), said=said, rubric=label.rubric_version)
        for label in labels
        if label.source == "human"
        and (said := label.score if kind == "score" else _words(label.expected)) is not None
    ]


def pair_agreements(opinions: Sequence[Opinion]) -> list[PairAgreement]:
    """κ of every two raters who answered the same items, for each version of the rubric by itself."""
    return [
        PairAgreement(
            rubric=rubric,
            one=one,
            other=other,
            kappa=kappa_interval([by[one][i] for i in both], [by[other][i] for i in both]),
        )
        for rubric, by in sorted(_by_rubric(opinions).items())
        for one, other in combinations(sorted(by), 2)
        if (both := sorted(by[one].keys() & by[other].keys()))
    ]


def rubric_agreements(opinions: Sequence[Opinion], level: Level = "nominal") -> dict[str, Reliability]:
    """α of all raters together, by version of the rubric."""
    found = {}
    for rubric, by in sorted(_by_rubric(opinions).items()):
        items = sorted({item for said in by.values() for item in said})
        found[rubric] = alpha_interval([[said.get(item) for said in by.values()] for item in items], level)
    return found


def _by_rubric(opinions: Sequence[Opinion]) -> dict[str, dict[str, dict[str, Any]]]:
    """Rubric → rater → item → value; of two the later in the list."""
    found: dict[str, dict[str, dict[str, Any]]] = defaultdict(lambda: defaultdict(dict))
    for one in opinions:
        found[one.rubric][one.rater][one.item] = one.said
    return found


def _words(answer: Json) -> str | None:
    return None if answer is None else plain(as_text(as_object(answer)))


def _confusion(one: Sequence[Json], other: Sequence[Json]) -> Floats:
    if len(one) != len(other) or not one:
        raise BadInput(
            f"{len(one)} values of one rater and {len(other)} of the other: give both for the same items"
        )
    names = {name: place for place, name in enumerate(dict.fromkeys(map(as_text, (*one, *other))))}
    table = np.zeros((len(names), len(names)))
    for left, right in zip(one, other, strict=True):
        table[names[as_text(left)], names[as_text(right)]] += 1
    return table


def _kappa(table: Floats) -> float | None:
    n = float(table.sum())
    chance = float(table.sum(0) @ table.sum(1)) / n**2
    return None if chance == 1 else (float(np.trace(table)) / n - chance) / (1 - chance)


def _counted(items: Sequence[Sequence[Any]], level: Level) -> tuple[Floats, Floats]:
    """How often each value was said of each item that two answered, and the values, in order."""
    pairable = [said for item in items if len(said := [one for one in item if one is not None]) > 1]
    wrong = [v for said in pairable for v in said if level != "nominal" and not isinstance(v, int | float)]
    if wrong:
        raise BadInput(f"{wrong[0]!r} is no number, as {level} agreement needs: use level 'nominal'")
    keys = [[as_text(one) if level == "nominal" else float(one) for one in said] for said in pairable]
    values = sorted({one for said in keys for one in said}, key=lambda one: (isinstance(one, str), one))
    places = {value: place for place, value in enumerate(values)}
    counts = np.zeros((len(keys), len(values)))
    for row, said in enumerate(keys):
        for one in said:
            counts[row, places[one]] += 1
    return counts, np.array(values if level == "interval" else range(len(values)), dtype=float)


def _alpha(counts: Floats, values: Floats, level: Level, weights: Floats | None = None) -> float | None:
    weights = np.ones(len(counts)) if weights is None else weights
    delta = _distances(weights @ counts, values, level)
    observed, expected = _disagreements(counts, delta, weights)
    return None if expected == 0 else 1 - observed / expected


def _disagreements(counts: Floats, delta: Floats, weights: Floats) -> tuple[float, float]:
    """Observed and expected; each item counts with `weights`, which is how often the bootstrap drew it."""
    of_item = counts.sum(1)
    share = weights / (of_item - 1)
    pairs = (counts * share[:, None]).T @ counts - np.diag(share @ counts)
    totals = weights @ counts
    n = float(totals.sum())
    if n == 0:
        return 0.0, 0.0
    return float((pairs * delta).sum()) / n, float(totals @ delta @ totals) / (n * (n - 1))


def _distances(totals: Floats, values: Floats, level: Level) -> Floats:
    if level == "interval":
        return np.asarray((values[:, None] - values[None, :]) ** 2)
    if level == "nominal":
        return 1 - np.eye(len(values))
    upto = np.cumsum(totals) - totals / 2  # the middle rank of each value
    return np.asarray((upto[:, None] - upto[None, :]) ** 2)


def _exact(agreed: int, n: int) -> tuple[float, float]:
    from scipy.stats import binomtest

    found = binomtest(agreed, n).proportion_ci(method="exact")
    return float(found.low), float(found.high)


def _widest(value: float, samples: Sequence[float], low: float, high: float, n: int) -> Reliability:
    drawn = np.quantile(samples, (0.025, 0.975)) if samples else (value, value)
    low, high = min(low, value, float(drawn[0])), max(high, value, float(drawn[1]))
    return Reliability(value=value, low=max(-1.0, low), high=min(1.0, high), n=n)
