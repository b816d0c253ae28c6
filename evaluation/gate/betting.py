"""Wealth of a bettor against "the mean gain is at most m": the evidence behind every verdict and interval.

Theorem. Let X_t lie in [−b, b] with E[X_t | past] = μ, and let 0 ≤ κ < 1/b be fixed beforehand. Then
∏ (1 + κX_t) / (1 + κm) is non-negative and, whenever μ ≤ m, a supermartingale that starts at 1, because
E[1 + κX | past] = 1 + κμ ≤ 1 + κm. So is every average of such products with weights fixed beforehand, and
by Ville's inequality P(it ever reaches 1/α) ≤ α: looking after every label is free. With −κ it tests μ ≥ m.
X_t = a_t − ρ_t c_t, where E[a_t | past] = μ and E[c_t | past] = 0, keeps that mean for every ρ_t chosen from
the past: the judge (c) can lower the variance and never move the mean.

This is 1 + λ(D − g)/(1 + g) of Waudby-Smith & Ramdas (2023, eq. 25) written with κ = λ/(1 + g − λg). The
form pays because ∏ (1 + κX_t) does not depend on m: the promotion test, the harm test and the confidence
sequence at every m share one row of sums. Bets are a fixed mixture over κ (a discrete universal portfolio).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from ratchet.evaluation.data.arrays import Floats

MAX_STAKE: Final = 0.995
"""Largest share of wealth that one bet may lose; below 1 so that wealth never becomes exactly 0."""
KAPPA: Final[Floats] = np.concatenate([np.geomspace(0.004, 0.72, 24), [0.8, 0.87, 0.92, 0.96, MAX_STAKE]])
"""Bet sizes of the mixture, [J]. A mixture and not aGRAPA or ONS: it needs no warm-up (ten wins in a row are
worth ten doublings), a tie costs exactly nothing at m = 0, and its final value ignores the order of bets."""
MOST_TRUST: Final = 2.0
"""Largest ρ; above 1 for a judge whose differences are smaller than people's."""
_HALVINGS: Final = 36
CELL: Final = 2.0 / 2**_HALVINGS
"""Ends of an interval are multiples of it: coarse enough that rounding in e never moves one."""
EVERYTHING: Final = (-1.0, 1.0)
"""The interval before the first bet."""
RIDGE: Final = 4.0
"""Pseudo-bets against the judge: trust stays near 0 until it has paid, so a useless judge costs nothing."""


def prior_weights() -> Floats:
    """Weights of the mixture, [J], sum 1: density κ^−0.4, and 3 % more on the largest stake.

    Between uniform in log κ (small gains first) and uniform in κ (large gains first), by measured labels to a
    verdict at gains 0.02 to 0.2; the extra atom is for graded scores with little spread, where the best κ is
    the largest allowed.
    """
    edges = np.concatenate([[KAPPA[0] / 2], np.sqrt(KAPPA[1:] * KAPPA[:-1]), [1.0]])
    weights: Floats = np.diff(edges**0.6)
    weights = 0.97 * weights / weights.sum()
    weights[-1] += 0.03
    return weights


LOG_WEIGHTS: Final[Floats] = np.log(prior_weights())


@dataclass(frozen=True)
class Bounds:
    """How far a bet X = a − ρc can reach: |a| ≤ a_max and |c| ≤ c_max, declared before the first bet."""

    a_max: float = 1.0
    c_max: float = 2.0

    @property
    def stakes(self) -> Floats:
        """κ_j for these bounds, [J]."""
        return KAPPA / self.a_max

    @property
    def trust_caps(self) -> Floats:
        """Largest ρ with which a bet of size κ_j can never lose all wealth, [J]: large bets trust less."""
        caps: Floats = (MAX_STAKE / self.stakes - self.a_max) / self.c_max
        return np.maximum(caps, 0.0)


@dataclass(frozen=True)
class Wealth:
    """Sums over all bets so far; leading axes (if any) are independent bettors.

    up, down: Σ log(1 ± κ_j X_t), [..., J]. sums: number of bets, Σ ac, Σ c², Σ X, [..., 4].
    All else (any m, either side, the interval) follows from these.
    """

    up: Floats
    down: Floats
    sums: Floats

    @staticmethod
    def start(shape: tuple[int, ...] = ()) -> "Wealth":
        """Wealth 1 before the first bet."""
        return Wealth(np.zeros((*shape, KAPPA.size)), np.zeros((*shape, KAPPA.size)), np.zeros((*shape, 4)))

    @property
    def bets(self) -> Floats:
        """Number of bets so far, [...]."""
        return self.sums[..., 0]

    @property
    def mean(self) -> Floats:
        """Mean of X, the estimate of the gain, [...]; NaN before the first bet."""
        with np.errstate(invalid="ignore"):
            mean: Floats = self.sums[..., 3] / self.bets
        return mean


@dataclass(frozen=True)
class TrustPrior:
    """What labels from before the test say of the judge: n, Σac and Σc², as if they had been its first bets.

    Fixed before the first bet, so ρ stays predictable and the mean of X what it was: labels that teach little about
    these candidates cost labels, never validity.
    """

    bets: float = 0.0
    cross: float = 0.0
    control: float = 0.0

    @staticmethod
    def of(people: Sequence[float], judge: Sequence[float]) -> "TrustPrior":
        """From differences between two answers to one case as people and as the judge saw them, in [−1, 1]."""
        a, f = np.asarray(people, dtype=np.float64), np.asarray(judge, dtype=np.float64)
        if not a.size:
            return TrustPrior()
        c = f - f.mean()
        return TrustPrior(float(a.size), float((a * c).sum()), float((c * c).sum()))

    @property
    def sums(self) -> Floats:
        """As `trust` takes them, [3]."""
        return np.array([self.bets, self.cross, self.control])


NO_PRIOR: Final = TrustPrior()


@dataclass(frozen=True)
class Run:
    """What a block of T bets did: the wealth after each bet, and on demand ln e there, [..., T]."""

    path: Wealth
    """[..., T]."""
    _bounds: Bounds
    _null: float

    @property
    def wealth(self) -> Wealth:
        """After the last bet."""
        path = self.path
        return Wealth(path.up[..., -1, :], path.down[..., -1, :], path.sums[..., -1, :])

    @property
    def log_up(self) -> Floats:
        """Evidence against "mean ≤ null" after each bet."""
        return log_e_above(self.path, self._null, self._bounds)

    @property
    def log_down(self) -> Floats:
        """Evidence against "mean ≥ null" after each bet."""
        return log_e_below(self.path, self._null, self._bounds)


def bet(
    wealth: Wealth,
    a: Floats,
    c: Floats,
    *,
    null: float = 0.0,
    bounds: Bounds | None = None,
    prior: TrustPrior = NO_PRIOR,
) -> Run:
    """Make T bets in order, [..., T], against `null`; one at a time or all at once is the same, bit for bit.

    a: unbiased observations of the gain (D, or ξD/π). c: the judge's control variate, mean zero
    (F − F̄_U, or F(ξ/π − 1); 0 without a judge).
    """
    bounds = bounds or Bounds()
    stakes = bounds.stakes
    past = _accumulate(wealth.sums[..., :3], np.stack([np.ones_like(a), a * c, c * c], axis=-1))
    rho = trust(past[..., :-1, :] + prior.sums)
    x = a[..., None]
    if c.any():
        x = x - np.minimum(rho[..., None], bounds.trust_caps) * c[..., None]
    step = stakes * x
    up = _accumulate(wealth.up, np.log1p(step))
    down = _accumulate(wealth.down, np.log1p(-step))
    gain = _accumulate(wealth.sums[..., 3:], (a - rho * c)[..., None])
    sums = np.concatenate([past[..., 1:, :], gain[..., 1:, :]], axis=-1)
    return Run(Wealth(up[..., 1:, :], down[..., 1:, :], sums), bounds, null)


def trust(past: Floats) -> Floats:
    """Trust ρ in the judge for the next bet, [...], from n, Σac and Σc² of the past bets, [..., 3 or more].

    The least-squares coefficient of a on c minimizes Var(a − ρc) (PPI++, eq. 7; the cost of F̄_U is inside c),
    shrunk by RIDGE pseudo-bets, as its own error would otherwise be paid for in the first dozen labels.
    """
    n, cross, control = past[..., 0], past[..., 1], past[..., 2]
    shrunk = control * (1 + RIDGE / np.maximum(n, 1.0))
    rho: Floats = np.clip(cross / np.maximum(shrunk, 1e-12), 0.0, MOST_TRUST)
    return rho


def log_e_above(wealth: Wealth, null: float | Floats, bounds: Bounds | None = None) -> Floats:
    """Ln e against "mean ≤ null", [...]; decreasing in null."""
    return _mixture(wealth.up - _null_drift(wealth, null, (bounds or Bounds()).stakes))


def log_e_below(wealth: Wealth, null: float | Floats, bounds: Bounds | None = None) -> Floats:
    """Ln e against "mean ≥ null", [...]; increasing in null."""
    return _mixture(wealth.down - _null_drift(wealth, null, -(bounds or Bounds()).stakes))


def confidence_sequence(
    wealth: Wealth, *, confidence: float = 0.95, bounds: Bounds | None = None
) -> tuple[Floats, Floats]:
    """Confidence sequence for the gain, (low, high), each [...]: all m that neither side refutes.

    Covers the mean at every n at once with probability ≥ confidence; half of the error on each side.
    Both one-sided wealths are monotone in m, so the set is an interval and bisection finds its ends.
    """
    limit = float(np.log(2 / (1 - confidence)))
    return _low_end(wealth, limit, bounds), 0.0 - _low_end(_mirrored(wealth), limit, bounds)


def narrowed(
    ends: tuple[float, float], path: Wealth, *, confidence: float = 0.95, bounds: Bounds | None = None
) -> tuple[float, float]:
    """`ends` intersected with the interval after every bet of `path`, [T]: (low, high).

    A confidence sequence holds the mean at all times at once, so what any time refuted stays refuted. Equal in
    whatever blocks the bets come; low > high where the mean moved on the way (or in the promised 5 %).
    """
    limit = float(np.log(2 / (1 - confidence)))
    low, high = ends
    mirrored = _raised(-high, _mirrored(path), limit, bounds)
    return _raised(low, path, limit, bounds), 0.0 - mirrored  # 0 − 0 is 0, and −0 would be shown as −0


def _raised(low: float, path: Wealth, limit: float, bounds: Bounds | None) -> float:
    """The largest lower end of `low` and those after each bet."""
    while True:  # each turn takes the bet that refutes most, so there are only a few
        refuted = log_e_above(path, low + CELL, bounds)
        at = int(refuted.argmax())
        if refuted[at] < limit:
            return low
        low = float(_low_end(Wealth(path.up[at], path.down[at], path.sums[at]), limit, bounds))


def _mirrored(wealth: Wealth) -> Wealth:
    """The same bets on −X: what is above for the one is below for the other."""
    return Wealth(wealth.down, wealth.up, wealth.sums)


def _low_end(wealth: Wealth, limit: float, bounds: Bounds | None) -> Floats:
    """Largest multiple of CELL that is refuted as a mean from below, [...]."""
    out, inside = np.full(wealth.bets.shape, -1.0), np.full(wealth.bets.shape, 1.0)
    for _ in range(_HALVINGS):
        middle = (out + inside) / 2
        refuted = log_e_above(wealth, middle, bounds) >= limit
        out, inside = np.where(refuted, middle, out), np.where(refuted, inside, middle)
    return out


def _accumulate(before: Floats, steps: Floats) -> Floats:
    """Running sums, [..., T + 1, K], from `before`; strictly left to right, so blocks do not change a bit."""
    path: Floats = np.cumsum(np.concatenate([before[..., None, :], steps], axis=-2), axis=-2)
    return path


def _null_drift(wealth: Wealth, null: float | Floats, stakes: Floats) -> Floats:
    """N log(1 + κ_j m), [..., J]."""
    if isinstance(null, float) and not null:
        return np.zeros(1)
    m = np.asarray(null, dtype=np.float64)[..., None]
    drift: Floats = wealth.bets[..., None] * np.log1p(stakes * m)
    return drift


def _mixture(log_products: Floats) -> Floats:
    """Ln Σ_j w_j exp(log_products_j), [...]."""
    terms = log_products + LOG_WEIGHTS
    peak = terms.max(axis=-1)
    total: Floats = peak + np.log(np.exp(terms - peak[..., None]).sum(axis=-1))
    return total
