"""Whose failure counts as what: one side's is its 0, only a failure of both sides is left out."""

from datetime import UTC, datetime

import numpy as np
import pytest

from ratchet.agent.case import Case
from ratchet.agent.trace import RunError, Trace
from ratchet.evaluation.gate.failures import unbroken_runs
from ratchet.evaluation.gate.gate import Pair, decide
from ratchet.evaluation.gate.pairs import SideResult, pair_up


def with_own_failures(rng, n, share):
    """Equal sides, both right in 70 %: what the challenger wins where it answers it loses where it breaks."""
    ours, theirs, breaks = rng.random(n) < 0.7, rng.random(n) < 0.7 / (1 - share), rng.random(n) < share
    return [
        Pair(
            case_id=str(i),
            champion=float(a),
            challenger=None if broken else float(b),
            challenger_failed="infrastructure" if broken else None,
        )
        for i, (a, b, broken) in enumerate(zip(ours, theirs, breaks, strict=True))
    ]


def test_a_challenger_that_breaks_where_it_would_lose_is_not_promoted_for_it():
    rng = np.random.default_rng(11)
    rate = np.mean([decide(with_own_failures(rng, 300, 0.09)).decision == "promote" for _ in range(300)])
    assert rate <= 0.05


FINE = Trace(
    trace_id="0" * 32,
    case=Case(inputs={}),
    candidate_id="c",
    started_at=datetime(2026, 1, 5, tzinfo=UTC),
    latency_s=0,
)
GONE = FINE.model_copy(update={"error": RunError(kind="infrastructure", message="gone")})


def test_with_what_both_run_on_failing_now_and_then_own_failures_still_earn_nothing():
    """As above, and every run of either side blinks in 5 %: both play once more, by the rule of the flow."""
    rng, times, n, promoted = np.random.default_rng(13), 150, 300, 0
    for _ in range(times):
        own = rng.random(n) < 0.09
        blinks = rng.random((n, 2, 2)) < 0.05
        blinks[:, :, 1] |= own[:, None]
        won = rng.random((n, 2)) < (0.7, 0.7 / 0.91)
        pairs = []
        for i, runs in enumerate(blinks):
            first, second = (tuple(GONE if gone else FINE for gone in run) for run in runs)
            ends = unbroken_runs(first, second) if GONE in first else first
            failed = [None if end is FINE else "infrastructure" for end in ends]
            scores = [None if kind else float(w) for kind, w in zip(failed, won[i], strict=True)]
            pairs.append(
                Pair(
                    case_id=str(i), champion=scores[0], challenger=scores[1],
                    champion_failed=failed[0], challenger_failed=failed[1],
                )
            )  # fmt: skip
        promoted += decide(pairs).decision == "promote"
    assert promoted / times <= 0.05


@pytest.mark.parametrize(
    ("first", "second", "ends"),
    [
        ((FINE, GONE), (FINE, FINE), (FINE, FINE)),
        ((FINE, GONE), (FINE, GONE), (FINE, GONE)),
        ((FINE, GONE), (GONE, GONE), (GONE, GONE)),
        ((GONE, GONE), (FINE, FINE), (FINE, FINE)),
        ((GONE, GONE), (GONE, FINE), (GONE, FINE)),
        ((GONE, FINE), (FINE, GONE), (FINE, FINE)),
    ],
)
def test_a_failure_is_a_versions_own_if_it_comes_twice_while_the_other_side_runs(first, second, ends):
    assert unbroken_runs(first, second) == ends


@pytest.mark.parametrize(
    ("champion", "challenger", "labels"),
    [
        ("infrastructure", None, (0.0, 1.0)),
        (None, "infrastructure", (1.0, 0.0)),
        ("agent", "infrastructure", (0.0, 0.0)),
        ("infrastructure", "agent", (0.0, 0.0)),
        ("agent", "agent", (0.0, 0.0)),
        ("infrastructure", "infrastructure", (None, None)),
    ],
)
def test_a_failed_side_scores_zero_unless_both_lost_what_they_run_on(champion, challenger, labels):
    pair = Pair(
        case_id="a",
        champion=None if champion else 1.0,
        challenger=None if challenger else 1.0,
        champion_failed=champion,
        challenger_failed=challenger,
    )
    assert pair.labels == labels
    verdict = decide([pair])
    assert verdict.n_labelled == (labels != (None, None))
    assert verdict.excluded == ({} if verdict.n_labelled else {"infrastructure failed on both sides": 1})


def test_the_limit_on_exclusions_is_over_labelled_pairs_however_many_wait_unlabelled():
    good = [Pair(case_id=f"g{i}", champion=0.0, challenger=1.0, propensity=0.1) for i in range(60)]
    failed = {"champion_failed": "infrastructure", "challenger_failed": "infrastructure"}
    broken = [Pair(case_id=f"b{i}", propensity=0.1, **failed) for i in range(120)]
    waiting = [Pair(case_id=f"w{i}", propensity=0.1) for i in range(1500)]
    verdict = decide(good + broken + waiting)
    assert verdict.decision == "continue"
    assert verdict.blocked_by[0].startswith("120 of 180 labelled pairs excluded")


def test_a_side_that_broke_is_joined_with_its_reason():
    (pair,) = pair_up({"a": SideResult(score=1.0)}, {"a": SideResult(failed="infrastructure")})
    assert pair.labels == (1.0, 0.0)
