"""Whose failure counts as what: one side's is its 0, only a failure of both sides is left out."""

import numpy as np
import pytest

from evaluation.gate import Pair, decide
from evaluation.pairs import Rollout, pair_up


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
    (pair,) = pair_up({"a": Rollout(score=1.0)}, {"a": Rollout(failed="infrastructure")})
    assert pair.labels == (1.0, 0.0)
