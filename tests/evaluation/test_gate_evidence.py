import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.agent.errors import BadInput, CorruptRecord
from ratchet.evaluation.data.seen import SeenKeys
from ratchet.evaluation.gate.betting import NO_PRIOR, Bounds, TrustPrior, Wealth, bet
from ratchet.evaluation.gate.evidence import MOST_SLICES, Intake
from ratchet.evaluation.gate.gate import Gate, GatePolicy, Pair, Registration, decide
from ratchet.evaluation.gate.pairs import SideResult, pair_up
from ratchet.evaluation.gate.slices import Slices


def judged(case_id: str, f: float, d: float | None = None, **more: object) -> Pair:
    """Judge difference f, and human difference d if labelled."""
    label = {} if d is None else {"champion": (1 - d) / 2, "challenger": (1 + d) / 2}
    return Pair(case_id=case_id, champion_judge=(1 - f) / 2, challenger_judge=(1 + f) / 2, **label, **more)


def test_each_unlabelled_pair_is_used_once():
    intake = Intake()
    for pair in (judged("u1", 0.2), judged("u2", 0.4)):
        assert intake.add(pair) == []
    (first,) = intake.add(judged("l1", 0.5, d=1.0))
    assert (first.a, first.c) == pytest.approx((1.0, 0.5 - 0.3))
    (second,) = intake.add(judged("l2", 0.5, d=1.0))
    assert second.c == 0.0


def test_a_label_without_judge_leaves_the_judged_pairs_for_the_next():
    intake = Intake()
    intake.add(judged("u", 0.4))
    (plain,) = intake.add(Pair(case_id="p", champion=0, challenger=1))
    assert plain.c == 0.0
    (controlled,) = intake.add(judged("l", 0.1, d=0.0))
    assert controlled.c == pytest.approx(-0.3)


def test_chosen_labels_weigh_by_propensity_and_every_pair_is_a_bet():
    intake = Intake(min_propensity=0.1)
    (labelled,) = intake.add(judged("l", 0.5, d=1.0, propensity=0.25))
    assert (labelled.a, labelled.c) == pytest.approx((4.0, 0.5 * 3))
    (unlabelled,) = intake.add(judged("u", 0.5, propensity=0.25))
    assert (unlabelled.a, unlabelled.c) == pytest.approx((0.0, -0.5))
    (dark,) = intake.add(Pair(case_id="d", propensity=0.5))
    assert (dark.a, dark.c) == (0.0, 0.0)


def test_uneven_propensities_are_refused_unless_declared():
    pairs = [judged("a", 0.1, d=0.0, propensity=0.5), judged("b", 0.1, d=0.0, propensity=0.2)]
    with pytest.raises(BadInput, match="declare the smallest as min_propensity"):
        decide(pairs)
    assert decide(pairs, policy=GatePolicy(min_propensity=0.2)).n_bets == 2
    with pytest.raises(BadInput, match="< min_propensity"):
        decide(pairs, policy=GatePolicy(min_propensity=0.3))


def test_even_propensities_are_a_plain_random_sample():
    pairs = [judged(f"c{i}", 0.0, d=1.0, propensity=0.1) for i in range(12)]
    assert decide(pairs).decision == "promote"


def test_two_failed_sides_label_themselves_only_if_the_pair_was_picked():
    failed = {"champion_failed": "agent", "challenger_failed": "agent"}
    assert decide([Pair(case_id="a", **failed)]).n_labelled == 1
    unpicked = decide([Pair(case_id="a", propensity=0.2, **failed)])
    assert (unpicked.n_labelled, unpicked.n_judged) == (0, 1)


def test_a_score_on_one_side_only_is_excluded_with_its_reason():
    verdict = decide([Pair(case_id="a", champion=1.0)])
    assert verdict.excluded == {"labelled on one side only": 1}


def test_picked_but_unscored_counts_as_a_fault_and_unpicked_does_not():
    pairs = [Pair(case_id=f"w{i}", champion=0.0, challenger=1.0, propensity=0.5) for i in range(20)]
    waiting = [Pair(case_id=f"n{i}", propensity=0.5) for i in range(20)]
    assert decide(pairs + waiting).decision == "promote"
    sure = [pair.model_copy(update={"propensity": 1.0}) for pair in pairs + waiting]
    verdict = decide(sure)
    assert verdict.decision == "continue"
    assert verdict.excluded == {"picked for labelling but without a score": 20}


def test_cluster_mean_is_one_bet_and_the_judge_counts_clusters_too():
    intake = Intake()
    for i, f in enumerate((0.2, 0.4)):
        intake.add(judged(f"u{i}", f, cluster="u"))
    for i, d in enumerate((1.0, 0.0)):
        assert intake.add(judged(f"l{i}", 0.5, d=d, cluster="l")) == []
    (only,) = intake.finish()
    assert (only.a, only.c) == pytest.approx((0.5, 0.5 - 0.3))


def test_a_cluster_that_comes_back_is_refused():
    pairs = [
        Pair(case_id=str(i), champion=0, challenger=1, cluster=cluster) for i, cluster in enumerate("aba")
    ]
    with pytest.raises(BadInput, match="comes back"):
        decide(pairs)


@pytest.mark.parametrize("policy", [GatePolicy(), GatePolicy(min_propensity=0.5)])
def test_a_cluster_is_one_bet_and_one_more_in_each_of_its_slices_on_its_mean_there(policy):
    def pair(name: str, part: str | None, d: float) -> Pair:
        return Pair(case_id=name, champion=(1 - d) / 2, challenger=(1 + d) / 2, cluster="s", slice=part)

    gate = Gate(policy)
    gate.extend([pair("1", "x", 1.0), pair("2", "y", -1.0), pair("3", "x", 0.5), pair("4", None, 0.0)])
    gate = Gate.from_json(gate.to_json())
    gate.finish()
    verdict = gate.verdict()
    assert (verdict.n_bets, verdict.gain) == (1, pytest.approx(0.125))
    assert {part.name: (part.n_bets, part.gain) for part in verdict.slices} == {
        "x": (1, 0.75),
        "y": (1, -1.0),
    }


def test_a_partly_labelled_cluster_is_refused_unless_propensities_are_declared():
    pairs = [
        judged("a", 0.5, d=1.0, cluster="s", propensity=0.5),
        judged("b", 0.5, cluster="s", propensity=0.5),
    ]
    with pytest.raises(BadInput, match="cluster 's' is labelled in part"):
        decide(pairs)
    assert decide(pairs, policy=GatePolicy(min_propensity=0.5)).n_bets == 1


def test_an_open_cluster_is_no_evidence_until_it_is_finished():
    gate = Gate()
    gate.extend(Pair(case_id=f"c{i}", champion=0, challenger=1, cluster="s") for i in range(3))
    assert gate.verdict().n_bets == 0
    restored = Gate.from_json(gate.to_json())
    restored.finish()
    assert restored.verdict().n_bets == 1


def test_too_many_slices_are_refused():
    pairs = [Pair(case_id=f"c{i}", champion=0, challenger=1, slice=f"s{i}") for i in range(MOST_SLICES + 1)]
    with pytest.raises(BadInput, match="use a coarser slice"):
        decide(pairs)


def test_slices_without_harm_rarely_block():
    rng = np.random.default_rng(9)
    blocked = 0
    for _ in range(60):
        d = rng.choice([-1, 1], size=150)
        pairs = [
            Pair(case_id=f"c{i}", champion=float(x < 0), challenger=float(x > 0), slice=f"s{i % 5}")
            for i, x in enumerate(d)
        ]
        blocked += any(part.harmed for part in decide(pairs).slices)
    assert blocked <= 9


def test_any_number_of_slices_without_harm_blocks_as_rarely_as_one():
    rng, n_slices, times = np.random.default_rng(10), 40, 100
    blocked = 0
    for _ in range(times):
        slices = Slices()
        slices.bet(
            ((f"s{i % n_slices}", d) for i, d in enumerate(rng.choice([-1.0, 1.0], 60 * n_slices))), Bounds()
        )
        blocked += any(part.harmed for part in slices.evidence(0.1, 0.0, Bounds()))
    assert blocked / times <= 0.1
    assert [round(part.threshold, 2) for part in slices.evidence(0.1, 0.0, Bounds())[:3]] == [
        16.45,
        65.8,
        148.04,
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"champion_id": "other"}, "names champion 'other'"),
        ({"challenger_id": "other"}, "names challenger 'other'"),
        ({"judge_id": "other"}, "names judge 'other'"),
        ({"champion_judge": 0.5, "challenger_judge": 0.5}, "no judge was registered"),
    ],
)
def test_what_was_not_registered_before_the_first_case_is_refused(change, message):
    registration = Registration(champion="a", challenger="b")
    good = {"case_id": "c", "champion": 0.0, "challenger": 1.0, "champion_id": "a", "challenger_id": "b"}
    assert decide([Pair(**good)], registration=registration).n_bets == 1
    with pytest.raises(BadInput, match=message):
        decide([Pair(**{**good, **change})], registration=registration)


def test_trust_in_the_judge_begins_where_its_registration_says_and_stays_with_the_state():
    prior = TrustPrior.of([1.0, 0.0, -1.0, 1.0] * 12, [0.9, 0.1, -0.8, 0.8] * 12)
    pairs = [judged("u", 0.2), judged("l", 0.9, d=1.0)]
    taken = {}
    for trust in (NO_PRIOR, prior):
        gate = Gate(registration=Registration(champion="a", challenger="b", judge="j", trust=trust))
        gate = Gate.from_json(gate.to_json())
        gate.extend(pairs)
        run = bet(Wealth.start(), np.array([1.0]), np.array([0.9 - 0.2]), prior=trust)
        assert gate.snapshot().e_value == pytest.approx(float(np.exp(run.log_up[-1])))
        taken[trust] = gate.verdict().gain
    assert taken[NO_PRIOR] == 1.0
    assert taken[prior] < 0.6
    before = json.loads(gate.to_json())
    del before["provenance"]["registration"]["trust"]
    assert Gate.from_json(json.dumps(before)).verdict().n_bets == 1


def test_a_case_that_both_answered_alike_bets_nothing_and_leaves_the_judged_ones_for_the_next_label():
    intake = Intake()
    intake.add(judged("u", 0.4))
    (alike,) = intake.add(Pair(case_id="same", champion=0.0, challenger=0.0))
    assert (alike.a, alike.c) == (0.0, 0.0)
    (differing,) = intake.add(judged("l", 0.9, d=1.0))
    assert differing.c == pytest.approx(0.5)


def test_without_registration_the_first_pair_fixes_candidates_and_judge():
    gate = Gate()
    gate.update(Pair(case_id="1", champion=0, challenger=1, judge_id="j1"))
    gate = Gate.from_json(gate.to_json())
    with pytest.raises(BadInput, match="open a new test"):
        gate.update(Pair(case_id="2", champion=0, challenger=1, judge_id="j2"))


def test_a_case_that_ran_on_one_side_only_is_refused():
    with pytest.raises(BadInput, match="2 cases ran on one side only"):
        pair_up(
            {"a": SideResult(score=1), "b": SideResult(score=1)},
            {"a": SideResult(score=0), "c": SideResult(score=0)},
        )
    (pair,) = pair_up({"a": SideResult(score=1, cost=2.0)}, {"a": SideResult(failed="agent", cost=1.0)})
    assert pair.labels == (1.0, 0.0)
    assert decide([pair]).cost is not None


def test_a_state_of_another_schema_is_refused():
    with pytest.raises(BadInput, match="schema 99"):
        Gate.from_json('{"schema": 99}')


@pytest.mark.parametrize("state", ["", "[]", '{"schema": 2}', Gate().to_json()[:-20]])
def test_a_state_that_does_not_parse_is_named_as_corrupt(state):
    with pytest.raises(CorruptRecord, match="gate state does not parse"):
        Gate.from_json(state)


def test_seen_ids_survive_settling_and_restoring():
    keys = SeenKeys()
    assert all(keys.is_new(f"id-{i}") for i in range(70_000))
    assert not keys.is_new("id-3")
    again = SeenKeys.restore(keys.state())
    assert len(again) == 70_000
    assert "id-69999" in again
    assert "id-70000" not in again
    assert again.state() == keys.state()


label = st.one_of(st.none(), st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1))
failure = st.sampled_from([None, None, None, "agent", "infrastructure"])


@st.composite
def pair_lists(draw):
    n = draw(st.integers(1, 40))
    cluster = draw(st.sampled_from([None, 1, 3]))
    score = label if cluster is None else st.floats(0, 1)
    return [
        Pair(
            case_id=f"c{i}",
            champion=draw(score),
            challenger=draw(score),
            champion_judge=draw(label),
            challenger_judge=draw(label),
            champion_failed=draw(failure),
            challenger_failed=draw(failure),
            slice=draw(st.sampled_from([None, "a", "b"])),
            cluster=None if cluster is None else f"s{i // cluster}",
        )
        for i in range(n)
    ]


@given(pair_lists(), st.integers(0, 40), st.sampled_from([-0.1, 0.0, 0.1]))
@settings(max_examples=60, deadline=None)
def test_any_evidence_streams_restores_and_adds_up(pairs, cut, min_gain):
    policy = GatePolicy(min_gain=min_gain)
    whole, parts = Gate(policy), Gate(policy)
    whole.extend(pairs)
    for pair in pairs[:cut]:
        parts.update(pair)
    parts = Gate.from_json(parts.to_json())
    parts.extend(pairs[cut:])
    assert parts.to_json() == whole.to_json()
    verdict = whole.verdict()
    assert verdict.n_seen == len(pairs)
    assert verdict.ci[0] <= verdict.ci[1]
    assert verdict.n_labelled + sum(verdict.excluded.values()) <= len(pairs)
