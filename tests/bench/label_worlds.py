"""Worlds in which nobody is better, each with something that tempts a gate to promote: what `bench_labels` measures.

Each gives the bets as the project's rules make them of what happened: a failure of one side is its 0, a session is
one bet on its mean, an unanswered question is a loss, a flood counts as `settle_replies` counts it. Cases on which
both are right or both wrong are left out: at a gain of 0 a tie moves nothing (a test of the horizon says so).
"""

import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np

from ratchet.agent.case import Case
from ratchet.evaluation.data.arrays import Floats
from ratchet.evaluation.data.raters import RaterSettings
from ratchet.evaluation.gate.betting import Bounds, TrustPrior
from ratchet.evaluation.gate.characteristics.lifetimes import (
    Bets,
    Draw,
    Plans,
    evidence,
    false_lifetimes,
    given_back,
)
from ratchet.evaluation.gate.characteristics.simulation import binary, with_flattering_judge
from ratchet.evaluation.gate.horizon import Flags
from ratchet.evaluation.gate.ledger import share_taken
from ratchet.evaluation.gate.questions import Question, Reply
from ratchet.evaluation.gate.replies import picks_of, settle_replies

RATE: Final = 0.7
CASES: Final = 300
"""Of one test; on some 120 of them one of two equal versions alone is right."""
LABELS: Final = 110
CHANCES: Final = {
    "one-sided failures": 0.06,
    "turns agree": 0.9,
    "rater errs": 0.1,
    "skipped where lost": 0.3,
}

World = Callable[[np.random.Generator, int], Flags]
"""So many lifetimes: whether any of the 60 candidates of each was promoted falsely."""


def worlds() -> Iterator[tuple[str, World]]:
    """By the names that the issue gives them."""
    yield "peeking at every label", _measured(peeking)
    yield "sessions of 8 turns", _measured(sessions_of_turns)
    yield "one-sided failures", _measured(one_sided_failures)
    yield "unanswered, late", late_answers
    yield "unanswered, skipped where hard", _measured(skipped_where_hard)
    yield "adversarial judge", _measured(adversarial_judge)
    yield "scrambled uncertainty", _measured(scrambled_uncertainty)
    yield "flooded rater", flooded
    yield "approvals in the middle", approvals_in_the_middle


def _measured(draw: Draw) -> World:
    return lambda rng, lifetimes: false_lifetimes(draw, lifetimes=lifetimes, rng=rng)


def decisive(d: Floats, most: int = LABELS) -> Floats:
    """The wins and losses of each test in order, [N, most]; 0 where a test has fewer."""
    order = np.argsort(d == 0, axis=1, kind="stable")[:, :most]
    return np.take_along_axis(d, order, axis=1)


def peeking(rng: np.random.Generator, lifetimes: int, at_once: int) -> list[Bets]:
    """Equal versions on the same cases, looked at after every label."""
    ours = rng.random((lifetimes, CASES), dtype=np.float32) < RATE
    theirs = (rng.random((lifetimes, CASES), dtype=np.float32) < RATE for _ in range(at_once))
    return [Bets(decisive(one.astype(np.float64) - ours)) for one in theirs]


def sessions_of_turns(rng: np.random.Generator, lifetimes: int, at_once: int) -> list[Bets]:
    """Eight turns that mostly share the session's luck: one bet, on their mean."""

    def mean(agree: float) -> Floats:
        shape = (lifetimes, 40, 8)
        shared = rng.random((lifetimes, 40, 1), dtype=np.float32)
        own = rng.random(shape, dtype=np.float32)
        luck = np.where(rng.random(shape, dtype=np.float32) < agree, shared, own)
        return np.asarray((luck < RATE).mean(axis=2))

    ours = mean(CHANCES["turns agree"])
    return [Bets(mean(CHANCES["turns agree"]) - ours, alone=False) for _ in range(at_once)]


def one_sided_failures(rng: np.random.Generator, lifetimes: int, at_once: int) -> list[Bets]:
    """The challenger breaks in 6 % of the cases, and is as much better in the others: a failure is its 0."""
    fails = CHANCES["one-sided failures"]
    ours = rng.random((lifetimes, CASES), dtype=np.float32) < RATE
    theirs = (rng.random((lifetimes, CASES), dtype=np.float32) < RATE / (1 - fails) for _ in range(at_once))
    broke = (rng.random((lifetimes, CASES), dtype=np.float32) < fails for _ in range(at_once))
    return [
        Bets(decisive((one & ~out).astype(np.float64) - ours)) for one, out in zip(theirs, broke, strict=True)
    ]


def skipped_where_hard(rng: np.random.Generator, lifetimes: int, at_once: int) -> list[Bets]:
    """Three of ten questions that the challenger lost are skipped by all, none that it won: they stay losses."""
    found = []
    for bets in peeking(rng, lifetimes, at_once):
        skipped = (bets.a < 0) & (rng.random(bets.a.shape) < CHANCES["skipped where lost"])
        found.append(Bets(np.where(skipped, -1.0, bets.a)))
    return found


def late_answers(rng: np.random.Generator, lifetimes: int) -> Flags:
    """Wins are answered at once and losses late, or never; four looks at all prefixes, what waits counted as lost."""
    reserve, wrong = np.full(lifetimes, 0.05), np.zeros(lifetimes, dtype=np.bool_)
    for k in range(60):
        share = share_taken(k + 1) * reserve
        (bets,) = peeking(rng, lifetimes, 1)
        delay = np.where(bets.a > 0, 0, rng.integers(5, 60, bets.a.shape))
        asked, plans = np.arange(bets.a.shape[1]), Plans.of(share, 0.1)
        promoted = np.zeros(lifetimes, dtype=np.bool_)
        for look in (30, 60, 90, 110):
            known = np.where(asked + delay <= look, bets.a, -1.0)[:, :look]
            e = evidence(Bets(known), share, plans)
            promoted |= np.any(e >= 1 / share[:, None], axis=1)
        reserve = given_back(reserve - share, share, promoted, e[:, -1])
        wrong |= promoted
    return wrong


def adversarial_judge(rng: np.random.Generator, lifetimes: int, at_once: int) -> list[Bets]:
    """It likes the challenger always, the more the worse it is, and its licence says to trust it blindly."""
    world = with_flattering_judge(binary(RATE, 0.0), per_label=5)
    return [Bets(*world.draw(rng, (lifetimes, 60)), prior=TrustPrior(50, 100, 50)) for _ in range(at_once)]


def scrambled_uncertainty(rng: np.random.Generator, lifetimes: int, at_once: int) -> list[Bets]:
    """Labels are picked by an uncertainty that means nothing, with its propensity (0.2 to 1); every pair is a bet."""
    least = 0.2
    found = []
    for _ in range(at_once):
        d, _none = binary(RATE, 0.0).draw(rng, (lifetimes, 80))
        propensity = least + (1 - least) * rng.random(d.shape)
        share = (rng.random(d.shape) < propensity) / propensity
        f = rng.uniform(-1, 1, d.shape)
        found.append(Bets(share * d, f * (share - 1), bounds=Bounds(1 / least, 1 / least - 1)))
    return found


def flooded(rng: np.random.Generator, lifetimes: int) -> Flags:
    """See `flooded_rater`; what stands for the flood there is held to the rule first."""
    flood_moves_nothing(rng)
    return false_lifetimes(flooded_rater, lifetimes=lifetimes, rng=rng)


def flooded_rater(rng: np.random.Generator, lifetimes: int, at_once: int) -> list[Bets]:
    """One source answers everything for the challenger within minutes; an honest rater, who errs in 10 %, later."""
    found = []
    for bets in peeking(rng, lifetimes, at_once):
        errs = rng.random(bets.a.shape) < CHANCES["rater errs"]
        found.append(Bets(np.where(errs, -bets.a, bets.a)))
    return found


def flood_moves_nothing(rng: np.random.Generator, questions: int = 700) -> None:
    """What stands for the flood in the simulation, held to the rule itself: who floods settles nothing.

    Raises:
        AssertionError: a question was settled otherwise than by its honest reply.
    """
    start = datetime(2026, 11, 1, tzinfo=UTC)
    asked, replies, honest = {}, [], {}
    for n in range(questions):
        question = Question(
            case=Case(inputs={"n": n}), trace_id=uuid.UUID(int=n).hex, answers=("champion's", "challenger's")
        )
        asked[question.question_id] = question
        flood = Reply(
            question_id=question.question_id,
            rater="flood",
            good=(1,),
            created_at=start + timedelta(seconds=n),
        )
        own = Reply(
            question_id=question.question_id,
            rater="anna",
            good=(int(rng.integers(2)),),
            created_at=start + timedelta(hours=2, minutes=n),
        )
        replies += [flood, own]
        honest[question.question_id] = picks_of(question, own)
    settled = settle_replies(asked, replies, RaterSettings(), start + timedelta(days=9))
    for name, picks in honest.items():
        assert settled[name].good == tuple(place for place, good in enumerate(picks) if good), name


def approvals_in_the_middle(rng: np.random.Generator, lifetimes: int) -> Flags:
    """Three open tests; a person lets a proven one serve 10 labels later, and the others end there, as losers.

    A fifth is truly better by 0.1 than the first champion; those that lost go into new tests against the new one.
    """
    reserve, wrong = np.full(lifetimes, 0.05), np.zeros(lifetimes, dtype=np.bool_)
    champion = np.full(lifetimes, RATE)
    levels = np.where(rng.random((lifetimes, 3)) < 0.2, RATE + 0.1, RATE)
    rows = np.arange(lifetimes)
    for first in range(0, 60, 3):
        shares = []
        for k in range(first, first + 3):
            shares.append(share_taken(k + 1) * reserve)
            reserve = reserve - shares[-1]
        ours = rng.random((lifetimes, CASES)) < champion[:, None]
        paths = []
        for one, share in enumerate(shares):
            theirs = rng.random((lifetimes, CASES)) < levels[:, one, None]
            d = decisive(theirs.astype(np.float64) - ours)
            paths.append(evidence(Bets(d), share, Plans.of(share, 0.1)))
        crossed = np.stack(
            [path >= 1 / share[:, None] for path, share in zip(paths, shares, strict=True)], axis=1
        )
        at = np.where(crossed.any(axis=2), crossed.argmax(axis=2), LABELS)
        end = np.minimum(at.min(axis=1) + 10, LABELS - 1)
        proven = at <= end[:, None]
        for one, (path, share) in enumerate(zip(paths, shares, strict=True)):
            reserve = given_back(reserve, share, proven[:, one], path[rows, end])
            wrong |= proven[:, one] & (levels[:, one] <= champion)
        any_proven = proven.any(axis=1)
        best = np.argmin(np.where(proven, at, LABELS + 1), axis=1)
        champion = np.where(any_proven, levels[rows, best], champion)
        fresh = np.where(rng.random((lifetimes, 3)) < 0.2, RATE + 0.1, RATE)
        again = any_proven[:, None] & (np.arange(3) != best[:, None]) & (rng.random((lifetimes, 3)) < 0.5)
        levels = np.where(again, levels, fresh)
    return wrong
