"""Wealth of a bettor against "the mean gain is at most m": the evidence behind every verdict and interval.

Theorem. Let X_t lie in [−b, b] with E[X_t | past] = μ, and let 0 ≤ κ < 1/b be fixed beforehand or chosen
from the past. Then ∏ (1 + κ_t X_t) / (1 + κ_t m) is non-negative and, whenever μ ≤ m, a supermartingale that
starts at 1, because E[1 + κX | past] = 1 + κμ ≤ 1 + κm. So is every average of such products with weights
fixed beforehand, and by Ville's inequality P(it ever reaches 1/α) ≤ α: looking after every label is free.
With −κ it tests μ ≥ m. This is 1 + λ(D − g)/(1 + g) of Waudby-Smith & Ramdas (2023, eq. 25) written with
κ = λ/(1 + g − λg); the form pays because log ∏ (1 + κX_t) does not depend on m, so the promotion test, the
harm test and the confidence sequence at every m share one table of sums.

Bets are a fixed mixture over κ (a discrete universal portfolio), not a plug-in: see `KAPPA`.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MAX_STAKE: Final = 0.995
"""Largest share of wealth that one bet may lose; below 1 so that wealth never becomes exactly 0."""
KAPPA: Final[Floats] = np.concatenate([np.geomspace(0.004, 0.72, 24), [0.8, 0.87, 0.92, 0.96, MAX_STAKE]])
"""Bet sizes of the mixture, [J]. A mixture and not aGRAPA or ONS: it needs no warm-up (ten wins in a row are
worth ten doublings), a tie costs exactly nothing at m = 0, and its final value ignores the order of bets."""
RHO: Final[Floats] = np.linspace(0.0, 1.0, 9)
"""Trust in the judge, [R]; the level for the next bet is chosen from past bets only."""
RIDGE: Final = 4.0
"""Pseudo-bets against the judge: trust stays at 0 until it has paid, so a useless judge costs nothing."""


def prior_weights(kappa: Floats = KAPPA) -> Floats:
    """Weights of the mixture, [J], sum 1: half uniform in κ (large gains soon), half uniform in log κ."""
    edges = np.concatenate([[0.0], (kappa[1:] + kappa[:-1]) / 2, [1.0]])
    uniform = np.diff(edges)
    logarithmic = np.gradient(np.log(kappa))
    weights: Floats = 0.5 * uniform / uniform.sum() + 0.5 * logarithmic / logarithmic.sum()
    return weights


LOG_WEIGHTS: Final[Floats] = np.log(prior_weights())


@dataclass(frozen=True)
class Bounds:
    """How far a bet X = a − ρc can reach: |a| ≤ a_max and |c| ≤ c_max, declared before the first bet."""

    a_max: float = 1.0
    c_max: float = 2.0

    def stakes(self) -> Floats:
        """Bet sizes by trust level, [R, J]: κ_j, capped so that no bet can lose all wealth."""
        cap = MAX_STAKE / (self.a_max + RHO * self.c_max)
        stakes: Floats = np.minimum(KAPPA[None, :], cap[:, None])
        return stakes


@dataclass(frozen=True)
class Wealth:
    """Sums over all bets so far; leading axes (if any) are independent bettors.

    up, down: Σ log(1 ± κ_j X_t), [..., J]. levels: bets made at each trust, [..., R].
    moments: Σ a, a², ac, c², X, [..., 5]. All else (any m, either side, the interval) follows from these.
    """

    up: Floats
    down: Floats
    levels: Floats
    moments: Floats

    @staticmethod
    def start(shape: tuple[int, ...] = ()) -> "Wealth":
        """Wealth 1 before the first bet."""
        return Wealth(
            np.zeros((*shape, KAPPA.size)),
            np.zeros((*shape, KAPPA.size)),
            np.zeros((*shape, RHO.size)),
            np.zeros((*shape, 5)),
        )

    @property
    def bets(self) -> Floats:
        """Number of bets so far, [...]."""
        count: Floats = self.levels.sum(axis=-1)
        return count

    @property
    def mean(self) -> Floats:
        """Mean of X, the estimate of the gain, [...]; NaN before the first bet."""
        with np.errstate(invalid="ignore"):
            mean: Floats = self.moments[..., 4] / self.bets
        return mean


@dataclass(frozen=True)
class Run:
    """What a block of T bets did: the wealth after it, and ln e after each bet, [..., T]."""

    wealth: Wealth
    log_up: Floats
    log_down: Floats
    trust: Floats


def bet(wealth: Wealth, a: Floats, c: Floats, *, null: float = 0.0, bounds: Bounds | None = None) -> Run:
    """Make T bets in order, [..., T], against `null`; one at a time or all at once is the same, bit for bit.

    a: unbiased observations of the gain (D, or ξD/π). c: the judge's control variate, mean zero
    (F − F̄_U, or F(ξ/π − 1); 0 without a judge). X = a − ρc with ρ predictable.
    """
    stakes = (bounds or Bounds()).stakes()
    moments = _accumulate(wealth.moments[..., :4], np.stack([a, a * a, a * c, c * c], axis=-1))
    counts = wealth.bets[..., None] + np.arange(a.shape[-1])
    level = choose_trust(moments[..., :-1, :], counts, stakes)
    x = a - RHO[level] * c
    stake = stakes[level]
    up = _accumulate(wealth.up, np.log1p(stake * x[..., None]))
    down = _accumulate(wealth.down, np.log1p(-stake * x[..., None]))
    visits = _accumulate(wealth.levels, (level[..., None] == np.arange(RHO.size)).astype(np.float64))
    gain = _accumulate(wealth.moments[..., 4:], x[..., None])
    after = Wealth(
        up[..., -1, :],
        down[..., -1, :],
        visits[..., -1, :],
        np.concatenate([moments[..., -1, :], gain[..., -1, :]], axis=-1),
    )
    return Run(
        after,
        _mixture(up[..., 1:, :], _null_drift(visits[..., 1:, :], stakes, null)),
        _mixture(down[..., 1:, :], _null_drift(visits[..., 1:, :], -stakes, null)),
        RHO[level],
    )


def choose_trust(moments: Floats, counts: Floats, stakes: Floats) -> NDArray[np.intp]:
    """Trust level with the fastest estimated growth, [...], from Σa, Σa², Σac, Σc² of past bets, [..., 4].

    Growth of one bet is κμ − κ²E[X²]/2 to second order, maximized over κ below the level's cap: strong
    trust lowers the variance but also the largest safe stake, so least variance alone would be wrong.
    """
    n = np.maximum(counts, 1.0)[..., None]
    total, square, cross, control = (moments[..., i, None] for i in range(4))
    second = (square - 2 * RHO * cross + RHO**2 * control * (1 + RIDGE / n)) / n
    second = np.maximum(second, 1e-12)
    drift = np.maximum(np.abs(total) / n, np.sqrt(np.maximum(square, 1e-12)) / n)
    kappa = np.minimum(drift / second, stakes.max(axis=1))
    growth = kappa * drift - kappa**2 * second / 2
    level: NDArray[np.intp] = np.argmax(growth, axis=-1)
    return level


def log_e_above(wealth: Wealth, null: float | Floats, bounds: Bounds | None = None) -> Floats:
    """Ln e against "mean ≤ null", [...]; decreasing in null."""
    stakes = (bounds or Bounds()).stakes()
    return _mixture(wealth.up, _null_drift(wealth.levels, stakes, null))


def log_e_below(wealth: Wealth, null: float | Floats, bounds: Bounds | None = None) -> Floats:
    """Ln e against "mean ≥ null", [...]; increasing in null."""
    stakes = (bounds or Bounds()).stakes()
    return _mixture(wealth.down, _null_drift(wealth.levels, -stakes, null))


def interval(
    wealth: Wealth, *, confidence: float = 0.95, bounds: Bounds | None = None
) -> tuple[Floats, Floats]:
    """Confidence sequence for the gain, (low, high), each [...]: all m that neither side refutes.

    Covers the mean at every n at once with probability ≥ confidence; half of the error on each side.
    Both one-sided wealths are monotone in m, so the set is an interval and bisection finds its ends.
    """
    limit = np.log(2 / (1 - confidence))
    shape = wealth.bets.shape
    low_out, low_in = np.full(shape, -1.0), np.full(shape, 1.0)
    high_in, high_out = np.full(shape, -1.0), np.full(shape, 1.0)
    for _ in range(48):
        low, high = (low_out + low_in) / 2, (high_in + high_out) / 2
        refuted = log_e_above(wealth, low, bounds) >= limit
        low_out, low_in = np.where(refuted, low, low_out), np.where(refuted, low_in, low)
        refuted = log_e_below(wealth, high, bounds) >= limit
        high_in, high_out = np.where(refuted, high_in, high), np.where(refuted, high, high_out)
    return low_out, high_out


def _accumulate(before: Floats, steps: Floats) -> Floats:
    """Running sums, [..., T + 1, K], from `before`; strictly left to right, so blocks do not change a bit."""
    path: Floats = np.cumsum(np.concatenate([before[..., None, :], steps], axis=-2), axis=-2)
    return path


def _null_drift(levels: Floats, stakes: Floats, null: float | Floats) -> Floats:
    """Σ_t log(1 + κ_t m), [..., J], from how often each level was used, [..., R]."""
    m = np.asarray(null, dtype=np.float64)[..., None]
    drift = np.zeros(())
    # Level by level and not as one matrix product, whose rounding depends on how many rows it gets.
    for level in range(RHO.size):
        visits = levels[..., level, None]
        if m.any() and visits.any():
            drift = drift + visits * np.log1p(stakes[level] * m)
    return drift


def _mixture(log_products: Floats, drift: Floats) -> Floats:
    """Ln Σ_j w_j exp(log_products_j − drift_j), [...]."""
    terms = log_products - drift + LOG_WEIGHTS
    peak = terms.max(axis=-1)
    total: Floats = peak + np.log(np.exp(terms - peak[..., None]).sum(axis=-1))
    return total
