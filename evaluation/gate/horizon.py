"""A horizon: one exact sign test at L decisive labels, paid with part of the share and watched after every label.

Decision: e = (1 − s/a)·M + B/a, and promote at e ≥ 1/a. M is the gate's mixture; B is the chance that the sign test
still succeeds if all labels to come were tossed coins: 1 once W = c wins came within L decisive labels, 0 once they
no longer can, else P(Bin(L − n, ½) ≥ c − W). L, c and so s = P(Bin(L, ½) ≥ c) ≤ 0.8·a are fixed before the first
case. L counts wins and losses, not cases: how many cases tie is unknown, and a horizon in cases has a size of
0.12–0.24 at a nominal 0.04 where ties or questions depend on the past.

Theorem. Let X_t lie in [−1, 1] with E[X_t | past] ≤ 0, and let the sign test own the money B. It stakes
δ = (B after a win − B after a loss)/2 on each X: B + δX is B after a win at X = 1, after a loss at X = −1 and B at a
tie (B is a martingale at ½, so the three lie on one line), never negative, and E[B + δX | past] ≤ B. So B/a is a
supermartingale for any tie rate, e starts at (1 − s/a) + s/a = 1, and Ville's inequality bounds P(e ever ≥ 1/a) by a.

It leaves at the first bet that is no win, loss or tie of one case (a graded score, a session of several turns, a
judged bet): from there its B + δa, with `a` the label's part of X, is the capital of a mixture that begins anew.
That is again a stake of money that it owns; misused for signs of session means the test had a size of 0.20–0.46.

Nothing here ever falls where a label turns out better: M, B, B + δa and the new mixture are nondecreasing in each D,
and when it leaves does not depend on labels. So where questions still wait, counting each as a loss gives an e that
is at most the e that all answers would give, whoever answers when, and a crossing of the one is a crossing of the
other. (A judge's ρ is no such function: its bets need completed prefixes.)
"""

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from statistics import NormalDist
from typing import Annotated, Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ratchet.agent.record import Record
from ratchet.evaluation.data.arrays import Floats
from ratchet.evaluation.gate.betting import KAPPA, LOG_WEIGHTS, Wealth, log_e_above

Counts = NDArray[np.int64]
Flags = NDArray[np.bool_]

MOST_LABELS: Final = 1000
"""Longest horizon: where one would need more decisive labels, nobody waits for it."""
_PART: Final = Fraction(4, 5)
"""Most of the share that the sign test may take; the rest is the mixture's, which decides large gains early."""
_POWER: Final = 0.8
_SHORT: Final = 60
"""Up to this horizon the mixture's part of the power is looked at in full."""
USUAL_RATE: Final = 0.7
"""Share of cases that a champion is taken to have right where nobody knows it."""


class Horizon(Record):
    """When the sign test ends, and how many wins it needs."""

    labels: Annotated[int, Field(ge=1, le=MOST_LABELS)]
    """L, decisive labels: wins and losses."""
    wins: Annotated[int, Field(ge=1, le=MOST_LABELS)]
    """c."""

    @property
    def size(self) -> float:
        """s: the chance of c wins among L tossed coins."""
        return float(chances(self.labels, self.wins)[self.labels, self.wins])


def win_rate(gain: float, *, rate: float = USUAL_RATE) -> float:
    """Share of wins among decisive labels where a champion right at `rate` gains `gain` (0.63 for 0.1 at 0.7).

    Of errors that are independent: versions that share their errors differ on fewer cases, and win more of these.
    """
    better = min(rate + gain, 1.0)
    won, lost = (1 - rate) * better, rate * (1 - better)
    return won / (won + lost)


def plan_horizon(
    alpha: float, gain: float, *, rate: float = USUAL_RATE, most: int = MOST_LABELS
) -> Horizon | None:
    """The shortest horizon by which a true gain of `gain` is proven in 80 % at the share `alpha`; None: out of reach.

    Args:
        alpha: the test's share a; planned for its first two digits, so that many tests share a plan.
        gain: the gain worth finding; 0 or less: none.
        rate: share of cases that the champion has right.
        most: decisive labels that anybody will wait for.
    """
    return _planned(_two_digits(alpha), gain, rate, most)


def _two_digits(share: float) -> float:
    """The largest number of two significant digits that is not above the share."""
    near = float(f"{share:.1e}")
    return near if near <= share else float(f"{near - 10.0 ** (math.floor(math.log10(share)) - 1):.1e}")


@lru_cache(maxsize=1024)
def _planned(alpha: float, gain: float, rate: float, most: int) -> Horizon | None:
    q = win_rate(gain, rate=rate)
    if gain <= 0 or q <= 0.5:
        return None
    spread = NormalDist().inv_cdf(1 - float(_PART) * alpha) / 2 + 0.84 * math.sqrt(q * (1 - q))
    near = (spread / (q - 0.5)) ** 2
    shortest = max(math.floor(0.95 * near) - 1, 1)
    longest = min(math.ceil(1.25 * near) + 10, most)
    if shortest > longest:
        return None
    mixture = mixture_table(-(-longest // 250) * 250)
    for labels in range(shortest, longest + 1):
        found = _at(labels, alpha)
        if found is None or (labels > _SHORT and _sign_power(found, q) < _POWER - 0.03):
            continue  # there the mixture adds less than 0.01
        if _power(found, alpha, q, mixture) >= _POWER:
            return found
    return None


@dataclass(frozen=True)
class SignTest:
    """Where the sign test stands; without a horizon e is M."""

    alpha: float
    horizon: Horizon | None = None
    wins: int = 0
    losses: int = 0
    money: float | None = None
    """What it left with, in units of e; None = it has not."""
    left_at: tuple[float, ...] = ()
    """Σ log(1 + κX) when it left, [J]."""

    def after(self, a: Floats, plain: Flags, path: Wealth) -> tuple["SignTest", Floats]:
        """The test after T bets, and ln e after each, [T]; one at a time or all at once is the same.

        Args:
            a: observations of the gain, [T], the first term of X = a − ρc.
            plain: whether the bet is one case, and nobody judged, [T].
            path: the wealth after each bet, [T].
        """
        if self.horizon is None or self.money is not None or self.succeeded:
            return self, self.log_e(path)
        off = np.flatnonzero(~(plain & ((a == 1) | (a == -1) | (a == 0))))
        stop = int(off[0]) if off.size else a.size
        won, lost = (np.cumsum(a[:stop] == side, dtype=np.int64) for side in (1, -1))
        there = np.flatnonzero((self.wins + won >= self.horizon.wins) & self._in_time(won, lost))
        if there.size:
            stop = int(there[0]) + 1
        log_e = self.log_e(_cut(path, slice(stop)), won[:stop], lost[:stop])
        now = self
        if stop:
            now = replace(self, wins=self.wins + int(won[stop - 1]), losses=self.losses + int(lost[stop - 1]))
        if stop < a.size:
            now = now if now.succeeded else now._leave(float(a[stop]), path.up[stop])
            log_e = np.concatenate([log_e, now.log_e(_cut(path, slice(stop, None)))])
        return now, log_e

    def log_e(self, wealth: Wealth, won: Counts | int = 0, lost: Counts | int = 0) -> Floats:
        """Ln e, [...]; `wealth` may already hold `won` and `lost` more decisive labels, [...] each."""
        log_m = log_e_above(wealth, 0.0)
        if self.horizon is None:
            return log_m
        with np.errstate(divide="ignore"):
            if self.money is not None:
                gone = Wealth(wealth.up - np.array(self.left_at), wealth.down, wealth.sums)
                ours = np.log(self.money) + log_e_above(gone, 0.0)
            else:
                ours = np.log(1.0 if self.succeeded else self._chance(won, lost)) - math.log(self.alpha)
        return np.asarray(np.logaddexp(math.log1p(-self.horizon.size / self.alpha) + log_m, ours))

    @property
    def succeeded(self) -> bool:
        """Whether c wins came in time, which is the verdict; wins after the horizon do not count."""
        return self.horizon is not None and self.wins >= self.horizon.wins and self._in_time(0, 0)

    def state(self) -> dict[str, Any]:
        """What the policy does not say, as plain JSON."""
        return {"wins": self.wins, "losses": self.losses, "money": self.money, "left_at": self.left_at}

    def restore(self, state: dict[str, Any]) -> "SignTest":
        """The inverse of `state`."""
        return replace(self, **(state | {"left_at": tuple(state["left_at"])}))

    def _in_time(self, won: Counts | int, lost: Counts | int) -> Any:
        assert self.horizon is not None
        return self.wins + won + self.losses + lost <= self.horizon.labels

    def _chance(self, won: Counts | int, lost: Counts | int) -> Floats:
        """B."""
        assert self.horizon is not None
        left = self.horizon.labels - self.wins - self.losses - np.asarray(won) - np.asarray(lost)
        wanted = np.clip(self.horizon.wins - self.wins - np.asarray(won), 0, None)
        table = chances(self.horizon.labels, self.horizon.wins)
        return np.where(left < 0, 0.0, table[np.maximum(left, 0), wanted])

    def _leave(self, a: float, up: Floats) -> "SignTest":
        """Take B + δa out at a bet after which the sums are `up`."""
        stake = (self._chance(1, 0) - self._chance(0, 1)) / 2
        money = float(self._chance(0, 0) + stake * a) / self.alpha
        return replace(self, money=money, left_at=tuple(up.tolist()))


def _cut(path: Wealth, part: slice) -> Wealth:
    return Wealth(path.up[part], path.down[part], path.sums[part])


def _at(labels: int, alpha: float) -> Horizon | None:
    """The fewest wins of `labels` coins whose chance is at most 0.8·a, in integers; None where even all are not."""
    allowed = _PART * Fraction(alpha) * 2**labels
    ways = total = 1
    if total > allowed:
        return None
    wins = labels
    while wins > 0:
        ways = ways * wins // (labels - wins + 1)
        if total + ways > allowed:
            break
        total += ways
        wins -= 1
    return Horizon(labels=labels, wins=wins)


@lru_cache(maxsize=256)
def chances(labels: int, wins: int) -> Floats:
    """P(Bin(r, ½) ≥ j) for r to `labels`, j to `wins`, [labels + 1, wins + 1]: each the mean of two before it."""
    table = np.zeros((labels + 1, wins + 1))
    table[:, 0] = 1.0
    for r in range(labels):
        table[r + 1, 1:] = (table[r, :-1] + table[r, 1:]) / 2
    table.setflags(write=False)
    return table


@lru_cache(maxsize=4)
def mixture_table(most: int) -> Floats:
    """M after W wins and Lo losses, [most + 1, most + 1]."""
    n = np.arange(most + 1)[:, None]
    wins, losses = np.exp(n * np.log1p(KAPPA) + LOG_WEIGHTS), np.exp(n * np.log1p(-KAPPA))
    return np.asarray(wins @ losses.T, dtype=np.float64)


def _sign_power(horizon: Horizon, q: float) -> float:
    """P(Bin(L, q) ≥ c)."""
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, horizon.labels + 1)))])
    j = np.arange(horizon.wins, horizon.labels + 1)
    ways = log_factorial[-1] - log_factorial[j] - log_factorial[horizon.labels - j]
    return float(np.exp(ways + j * math.log(q) + (horizon.labels - j) * math.log1p(-q)).sum())


def _power(horizon: Horizon, alpha: float, q: float, mixture: Floats) -> float:
    """The chance that e reaches 1/a within the horizon where a decisive label is a win with probability q; exact."""
    table, size = chances(horizon.labels, horizon.wins), horizon.size
    reach, proven = np.ones(1), 0.0
    for n in range(1, horizon.labels + 1):
        reach = np.append((1 - q) * reach, 0.0) + np.append(0.0, q * reach)
        won = np.arange(n + 1)
        chance = table[horizon.labels - n, np.clip(horizon.wins - won, 0, None)]
        crossed = (won >= horizon.wins) | (
            (1 - size / alpha) * mixture[won, n - won] + chance / alpha >= 1 / alpha
        )
        proven += float(reach[crossed].sum())
        reach[crossed] = 0.0
    return proven
