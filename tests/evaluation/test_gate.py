import math

import numpy as np
import pytest

from ratchet.agent.errors import BadInput
from ratchet.evaluation.gate.gate import Gate, GatePolicy, Pair, Verdict, decide

BROKEN = Pair(case_id="c", champion_failed="infrastructure", challenger_failed="infrastructure")


def won_and_lost(wins: int, losses: int, ties: int = 0) -> list[Pair]:
    spread = [((i + 0.5) / wins, 0.0, 1.0) for i in range(wins)]
    spread += [((i + 0.5) / losses, 1.0, 0.0) for i in range(losses)]
    spread += [((i + 0.5) / ties, 1.0, 1.0) for i in range(ties)]
    return [
        Pair(case_id=f"c{i}", champion=champion, challenger=challenger)
        for i, (_, champion, challenger) in enumerate(sorted(spread))
    ]


def drawn(n: int, gain: float, seed: int, **more: object) -> list[Pair]:
    rng = np.random.default_rng(seed)
    champion, challenger = rng.random(n) < 0.5, rng.random(n) < 0.5 + gain
    return [
        Pair(case_id=f"c{i}", champion=float(a), challenger=float(b), **more)
        for i, (a, b) in enumerate(zip(champion, challenger, strict=True))
    ]


def test_reflexion_on_humaneval_ten_wins_one_loss_promotes():
    verdict = decide(won_and_lost(10, 1, ties=153))
    assert verdict.decision == "promote"
    assert verdict.e_value >= 20


def test_reflexion_on_mbpp_python_17_wins_29_losses_shows_the_harm_side():
    verdict = decide(won_and_lost(17, 29, ties=351))
    assert verdict.decision == "continue"
    assert verdict.e_value < 1 < verdict.harm_e_value


def test_reflexion_on_mbpp_rust_31_wins_15_losses_continues_where_mcnemar_would_promote():
    two_sided_mcnemar = 2 * sum(math.comb(46, k) for k in range(16)) / 2**46
    assert two_sided_mcnemar == pytest.approx(0.026, abs=5e-4)
    verdict = decide(won_and_lost(31, 15, ties=308), alpha=0.05)
    assert verdict.decision == "continue"
    assert 1 < verdict.e_value < 20


def test_ties_cost_nothing():
    few, many = decide(won_and_lost(8, 1)), decide(won_and_lost(8, 1, ties=5000))
    assert many.e_value == pytest.approx(few.e_value)


def test_large_binary_gain_is_proved_within_ninety_pairs():
    proved = [decide(drawn(90, 0.25, seed), alpha=0.03).decision == "promote" for seed in range(40)]
    assert np.mean(proved) > 0.6


@pytest.mark.parametrize("pairs", [[], [BROKEN]])
def test_empty_or_all_excluded_evidence_never_promotes(pairs):
    verdict = decide(pairs)
    assert verdict.decision == "continue"
    assert verdict.gain is None
    assert verdict.ci == (-1.0, 1.0)
    assert verdict.e_value == 1.0


def test_one_at_a_time_equals_all_at_once_bit_for_bit():
    pairs = drawn(300, 0.1, seed=1, slice="de")
    single, block = Gate(), Gate()
    for pair in pairs:
        single.update(pair)
    block.extend(pairs)
    assert single.to_json() == block.to_json()
    assert single.verdict() == block.verdict()


def test_state_goes_through_json_and_continues_exactly():
    pairs = drawn(200, 0.05, seed=2)
    whole, first = Gate(GatePolicy(min_gain=0.02)), Gate(GatePolicy(min_gain=0.02))
    whole.extend(pairs)
    first.extend(pairs[:77])
    second = Gate.from_json(first.to_json())
    second.extend(pairs[77:])
    assert second.to_json() == whole.to_json()


def test_later_pairs_do_not_undo_a_promotion():
    good = won_and_lost(30, 0)
    bad = [Pair(case_id=f"late{i}", champion=1.0, challenger=0.0) for i in range(60)]
    verdict = decide(good + bad)
    assert verdict.decision == "promote"
    assert verdict.decided_at == decide(good).decided_at
    assert verdict.gain is not None
    assert verdict.gain < 0


def test_a_worse_challenger_is_rejected_early():
    verdict = decide(won_and_lost(2, 30))
    assert verdict.decision == "reject"
    assert verdict.decided_at is not None
    assert verdict.decided_at < 32


def test_a_slice_with_harm_blocks_a_promotion_that_is_good_on_average():
    good = [Pair(case_id=f"g{i}", champion=0.0, challenger=1.0, slice="web") for i in range(60)]
    harmed = [Pair(case_id=f"h{i}", champion=1.0, challenger=0.0, slice="phone") for i in range(15)]
    verdict = decide(good + harmed)
    assert verdict.decision == "reject"
    assert "phone" in verdict.blocked_by[0]
    assert verdict.gain is not None
    assert verdict.gain > 0.5


def test_non_inferiority_promotes_as_good_but_cheaper():
    pairs = [
        Pair(case_id=f"c{i}", champion=0.9, challenger=0.9, champion_cost=2.0, challenger_cost=1.0)
        for i in range(200)
    ]
    verdict = decide(pairs, min_gain=-0.05)
    assert verdict.decision == "promote"
    assert verdict.cost is not None
    assert (verdict.cost.champion, verdict.cost.challenger, verdict.cost.n) == (2.0, 1.0, 200)
    assert decide(pairs).decision == "continue"


def test_a_failure_of_one_side_scores_zero_whatever_failed():
    for kind in ("agent", "infrastructure"):
        failed = [Pair(case_id=f"a{i}", champion=1.0, challenger_failed=kind) for i in range(12)]
        assert decide(failed).decision == "reject"


def test_too_many_exclusions_block():
    pairs = won_and_lost(40, 0)
    broken = [BROKEN.model_copy(update={"case_id": f"b{i}"}) for i in range(10)]
    verdict = decide(pairs + broken)
    assert verdict.decision == "continue"
    assert "10 of 50" in verdict.blocked_by[0]
    assert decide(pairs + broken[:3]).decision == "promote"


def test_pairs_of_a_cluster_are_one_bet():
    pairs = [
        Pair(case_id=f"{s}-{i}", champion=0.0, challenger=1.0, cluster=f"s{s}")
        for s in range(3)
        for i in range(50)
    ]
    verdict = decide(pairs)
    assert verdict.n_bets == 3
    assert verdict.n_labelled == 150
    assert verdict.decision == "continue"


def test_verdict_survives_json_and_refuses_unknown_fields():
    verdict = decide(won_and_lost(10, 1))
    assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict
    with pytest.raises(ValueError, match="extra"):
        Verdict.model_validate({**verdict.model_dump(), "score": 1})


def test_the_sentence_for_a_person():
    reason = decide(won_and_lost(30, 2, ties=10)).reason
    assert reason.startswith("+0.667 on 42 labelled cases, 95 % interval +")
    assert reason.endswith(": proven")
    assert "≥ 20" in reason
    assert f"at bet {decide(won_and_lost(30, 2, ties=10)).decided_at}" in reason


def test_a_refused_pair_changes_nothing():
    gate = Gate()
    gate.extend(won_and_lost(5, 1))
    before = gate.to_json()
    with pytest.raises(BadInput, match="appears twice"):
        gate.update(Pair(case_id="c0", champion=0.0, challenger=1.0))
    assert gate.to_json() == before
