"""Whole lifetimes at once: thousands of ledgers, each with many tests that have horizons, and what they promote.

The vectorized twin of `Gate` with a horizon and of `Ledger`; a test holds it to both.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from ratchet.evaluation.data.arrays import Floats
from ratchet.evaluation.gate.betting import LOG_WEIGHTS, NO_PRIOR, Bounds, TrustPrior
from ratchet.evaluation.gate.characteristics.simulation import Counts, capitals
from ratchet.evaluation.gate.horizon import Flags, chances, mixture_table, plan_horizon
from ratchet.evaluation.gate.ledger import share_taken

_BLOCK: Final = 1000
_FAST: Final = 500
"""Bets up to which M is looked up by wins and losses."""


class Bets(NamedTuple):
    """N tests of T bets each: see `Bet`."""

    a: Floats
    """[N, T]."""
    c: Floats | None = None
    """[N, T]; None: nobody judged."""
    alone: bool = True
    """Whether a bet is one case; sessions of several are not."""
    bounds: Bounds = Bounds()
    """Other bounds than these (chosen labels) have no horizon."""
    prior: TrustPrior = NO_PRIOR


@dataclass(frozen=True)
class Plans:
    """The horizons of N tests; one without has L = 0 and s = 0."""

    labels: Counts
    wins: Counts
    part: Floats
    """s/a."""
    _table: Floats
    _offset: Counts

    @staticmethod
    def of(shares: Floats, gain: float) -> "Plans":
        """Each test's own, for the gain worth finding; gain 0: none has one."""
        planned = [plan_horizon(share, gain) if gain else None for share in shares.tolist()]
        flat, offsets, at = [np.zeros(1)], {}, 1
        for one in {one for one in planned if one is not None}:
            table = chances(one.labels, one.wins).ravel()
            offsets[one] = at
            at += table.size
            flat.append(table)
        table = np.concatenate(flat)
        sizes = np.array([0.0 if one is None else one.size for one in planned])
        return Plans(
            np.array([0 if one is None else one.labels for one in planned], dtype=np.int64),
            np.array([0 if one is None else one.wins for one in planned], dtype=np.int64),
            sizes / shares,
            table,
            np.array([0 if one is None else offsets[one] for one in planned], dtype=np.int64),
        )

    def rows(self, rows: slice) -> "Plans":
        """Of some of the tests."""
        return Plans(self.labels[rows], self.wins[rows], self.part[rows], self._table, self._offset[rows])

    def chance(self, won: Counts, lost: Counts) -> Floats:
        """B of each test, at counts [N] or [N, T]."""
        labels, wins, offset = (
            part.reshape(-1, *[1] * (won.ndim - 1)) for part in (self.labels, self.wins, self._offset)
        )
        left = labels - won - lost
        at = offset + np.maximum(left, 0) * (wins + 1) + np.maximum(wins - won, 0)
        return np.where((left < 0) | (labels == 0), 0.0, self._table[at])


def evidence(bets: Bets, shares: Floats, plans: Plans) -> Floats:
    """E after every bet, [N, T], as a `Gate` of that share and horizon shows it."""
    one_by_one = bets.c is not None or not bets.alone or not np.isin(bets.a, (-1, 0, 1)).all()
    measure = _evidence if one_by_one or bets.a.shape[1] > _FAST else _of_counts
    blocks = [
        measure(bets, slice(start, start + _BLOCK), shares, plans)
        for start in range(0, bets.a.shape[0], _BLOCK)
    ]
    return np.concatenate(blocks)


def _of_counts(bets: Bets, rows: slice, shares: Floats, plans: Plans) -> Floats:
    """The same where all bets are wins, losses and ties of one case: then it follows from how many of each."""
    a, shares, plans = bets.a[rows], shares[rows], plans.rows(rows)
    won, lost = np.cumsum(a == 1, axis=1), np.cumsum(a == -1, axis=1)
    chance = plans.chance(won, lost)
    there = (plans.labels > 0)[:, None] & (won >= plans.wins[:, None]) & (won + lost <= plans.labels[:, None])
    chance[np.maximum.accumulate(there, axis=1)] = 1.0
    mixture = mixture_table(_FAST)[won, lost]
    return np.asarray((1 - plans.part)[:, None] * mixture + chance / shares[:, None])


def _evidence(bets: Bets, rows: slice, shares: Floats, plans: Plans) -> Floats:
    a, shares, plans = bets.a[rows], shares[rows], plans.rows(rows)
    c = np.zeros_like(a) if bets.c is None else bets.c[rows]
    tests, length = a.shape
    on_it: Flags = plans.labels > 0
    won, lost = np.zeros(tests, dtype=np.int64), np.zeros(tests, dtype=np.int64)
    done = np.zeros(tests, dtype=np.bool_)
    money, began = np.zeros(tests), np.ones((tests, LOG_WEIGHTS.size))
    path, weights = np.empty((tests, length)), np.exp(LOG_WEIGHTS)
    chance = np.where(on_it, plans.chance(won, lost), 0.0)
    for t, capital in enumerate(capitals(a, c, bounds=bets.bounds, prior=bets.prior)):
        x = a[:, t]
        plain = (c[:, t] == 0) & ((x == 1) | (x == -1) | (x == 0)) & bets.alone
        going = on_it & ~done
        leaving = going & ~plain
        if leaving.any():
            stake = (plans.chance(won + 1, lost) - plans.chance(won, lost + 1)) / 2
            money[leaving] = ((chance + stake * x) / shares)[leaving]
            began[leaving] = (capital / weights)[leaving]
            on_it &= ~leaving
        going &= plain
        won += going & (x == 1)
        lost += going & (x == -1)
        chance = np.where(done, 1.0, np.where(on_it, plans.chance(won, lost), 0.0))
        done |= on_it & (won >= plans.wins) & (won + lost <= plans.labels)
        left = money > 0
        rides = np.zeros(tests)
        if left.any():
            rides[left] = money[left] * (capital[left] / began[left]).sum(axis=1)
        path[:, t] = (1 - plans.part) * capital.sum(axis=1) + chance / shares + rides
    return path


Draw = Callable[[np.random.Generator, int, int], Sequence[Bets]]
"""So many lifetimes, and so many candidates that are tested at once: the bets of each, [lifetimes, T]."""


def false_lifetimes(
    draw: Draw,
    *,
    lifetimes: int,
    rng: np.random.Generator,
    candidates: int = 60,
    at_once: int = 3,
    alpha: float = 0.05,
    gain: float = 0.1,
) -> Flags:
    """Whether any of a lifetime's candidates was promoted, [lifetimes]; none of those that are drawn is better."""
    reserve, wrong = np.full(lifetimes, alpha), np.zeros(lifetimes, dtype=np.bool_)
    for first in range(0, candidates, at_once):
        shares = []
        for k in range(first, first + at_once):
            shares.append(share_taken(k + 1) * reserve)
            reserve = reserve - shares[-1]
        for share, bets in zip(shares, draw(rng, lifetimes, at_once), strict=True):
            e = evidence(bets, share, Plans.of(share, 0.0 if bets.bounds.a_max > 1 else gain))
            promoted: Flags = np.any(e >= 1 / share[:, None], axis=1)
            reserve = given_back(reserve, share, promoted, e[:, -1])
            wrong |= promoted
    return wrong


def given_back(reserve: Floats, shares: Floats, promoted: Flags, last: Floats) -> Floats:
    """The reserves after tests that took `shares` ended with evidence `last`, [N]; as `Entry.returned`."""
    return np.asarray(reserve + shares * np.where(promoted, 1.0, np.minimum(last, 1.0)))
