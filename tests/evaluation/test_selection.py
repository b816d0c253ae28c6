"""Which traces people are shown, and that the propensities are the true probabilities of being picked."""

import math
import time
from collections import Counter
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.agent.case import Case
from ratchet.agent.environment import Action
from ratchet.agent.trace import Attempt, RunError, Step, Trace
from ratchet.evaluation.data import selection
from ratchet.evaluation.data.cases import role_of, split_salt
from ratchet.evaluation.data.novelty import novelty
from ratchet.evaluation.data.selection import SelectionSettings, UnlabelledTraces, _propensity


def trace(number, confidence: float | None = 0.9, **changes):
    step = Step(observation="o", action=Action(name="a"), confidence=confidence)
    fields = {
        "trace_id": f"{number:032x}", "case": Case(inputs={"request": f"r{number}"}), "candidate_id": "c",
        "started_at": datetime(2026, 1, 5, tzinfo=UTC), "latency_s": 0.1, "attempts": (Attempt(steps=(step,)),),
    }  # fmt: skip
    return Trace(**(fields | changes))


def side(trace, rules, salt=""):
    return role_of(trace.case.case_id, gate_share=rules.gate_share, salt=salt)


def select(traces, rules, *, salt="", novelty=None, **more):
    """Of traces as they are; `novelty` is from a trace."""
    if novelty is not None:
        more["novelty"] = lambda rows: np.array([novelty(traces[row]) for row in rows], float)
    return selection.select(
        UnlabelledTraces.of(traces, gate_share=rules.gate_share, salt=salt), rules, **more
    )


TRACES = [trace(n, (n * 37 % 100) / 100) for n in range(60)]


def picked_often(rules, times):
    """How often each trace was picked, and with which propensity, over many seeds."""
    counts, propensity = Counter(), {}
    for seed in range(times):
        for pick in select(TRACES, rules, seed=seed):
            counts[pick.trace_id] += 1
            assert propensity.setdefault(pick.trace_id, pick.propensity) == pick.propensity
    return counts, propensity


@pytest.mark.parametrize(("train_labels", "share"), [(10, 0.3), (10, 1.0), (12, 0.7), (1, 0.3)])
def test_propensities_are_the_frequencies_with_which_traces_are_picked(train_labels, share):
    rules = SelectionSettings(gate_labels=8, train_labels=train_labels, random_share=share)
    times = 250
    counts, propensity = picked_often(rules, times)
    for trace_id, p in propensity.items():
        assert counts[trace_id] / times == pytest.approx(p, abs=4.5 * (p * (1 - p) / times) ** 0.5 + 1e-9)
    train = [t for t in TRACES if side(t, rules) == "train"]
    assert sum(propensity[t.trace_id] for t in train) == pytest.approx(train_labels)
    assert {t.trace_id for t in train} <= set(propensity), "everything has a chance"


def test_on_the_gates_side_picks_are_uniform():
    rules = SelectionSettings(gate_labels=8, train_labels=0)
    gate = [t for t in TRACES if side(t, rules) == "gate"]
    picks = select(TRACES, rules)
    assert {pick.trace_id for pick in picks} <= {t.trace_id for t in gate}
    assert {pick.propensity for pick in picks} == {8 / len(gate)}
    assert {pick.reason for pick in picks} == {"a random sample for the gate"}


def test_on_the_training_side_the_doubtful_come_first_and_a_random_share_remains():
    rules = SelectionSettings(gate_labels=0, train_labels=10, random_share=0.3)
    picks = select(TRACES, rules)
    at_random = [pick for pick in picks if pick.reason == "a random share"]
    assert (len(picks), len(at_random)) == (10, 3)
    train = sorted(
        (t for t in TRACES if side(t, rules) == "train"), key=lambda t: t.attempts[0].steps[0].confidence
    )
    taken = {pick.trace_id for pick in picks}
    assert {t.trace_id for t in train[:7]} <= taken
    assert all("unsure" in pick.reason for pick in picks if pick not in at_random)


@pytest.mark.parametrize("train_labels", [1, 2, 3])
def test_even_few_picks_hold_a_random_one(train_labels):
    picks = select(TRACES, SelectionSettings(gate_labels=0, train_labels=train_labels, random_share=0.1))
    assert [pick.reason for pick in picks].count("a random share") == 1
    assert len(picks) == train_labels


def test_a_new_request_is_picked_before_an_unsure_one():
    rules = SelectionSettings(gate_labels=0, train_labels=2, random_share=0.01)
    new = next(t for t in TRACES if side(t, rules) == "train" and t.attempts[0].steps[0].confidence > 0.8)
    picks = select(TRACES, rules, novelty=lambda t: float(t is new) * 2)
    assert new.trace_id in {pick.trace_id for pick in picks}
    assert next(p for p in picks if p.trace_id == new.trace_id).propensity == 1


def test_a_trace_without_confidence_counts_as_half_sure():
    rules = SelectionSettings(gate_labels=0, train_labels=2, random_share=0.01, gate_share=0.001)
    traces = [trace(n, confidence) for n, confidence in enumerate([0.9, None, 0.8, 0.7])]
    for seed in range(5):
        assert traces[1].trace_id in {p.trace_id for p in select(traces, rules, seed=seed)}


def test_what_the_infrastructure_broke_is_not_shown():
    rules = SelectionSettings(gate_labels=50, train_labels=50)
    lost = [trace(i, error=RunError(kind="infrastructure", message="x")) for i in range(20)]
    assert select([*lost, trace(20, attempts=())], rules) == []


def test_cases_that_broke_the_agent_are_judged_and_teach_nothing():
    rules = SelectionSettings(gate_labels=50, train_labels=50)
    broken = [trace(i, error=RunError(kind="agent", message="x")) for i in range(40)]
    picks = select(broken, rules)
    shares = {role_of(t.case.case_id, gate_share=rules.gate_share) for t in broken}
    assert shares == {"gate", "train"}
    picked = {p.trace_id for p in picks}
    assert picked == {
        t.trace_id for t in broken if role_of(t.case.case_id, gate_share=rules.gate_share) == "gate"
    }


@given(
    gate=st.integers(0, 40),
    train=st.integers(0, 40),
    share=st.floats(0.01, 1),
    n=st.integers(0, 60),
    data=st.data(),
)
@settings(deadline=None, max_examples=25)
def test_no_trace_is_picked_twice_numbers_hold_and_input_order_does_not_matter(gate, train, share, n, data):
    rules = SelectionSettings(gate_labels=gate, train_labels=train, random_share=share)
    traces = TRACES[:n]
    picks = select(traces, rules)
    ids = [pick.trace_id for pick in picks]
    assert len(set(ids)) == len(ids)
    sides = Counter(side(t, rules) for t in traces)
    assert len(picks) == min(gate, sides["gate"]) + min(train, sides["train"])
    assert select(data.draw(st.permutations(traces)), rules) == picks


def test_the_seed_decides_who_is_asked_and_zero_is_the_split_of_the_project_alone():
    rules = SelectionSettings(gate_labels=20, train_labels=20)
    asked = [[pick.trace_id for pick in select(TRACES, rules, seed=seed)] for seed in (1, 1, 2)]
    assert asked[0] == asked[1] != asked[2]
    assert [split_salt("p"), split_salt("p", 0), split_salt("p", 1)] == ["p", "p", "p/1"]


def test_projects_reserve_different_cases():
    rules = SelectionSettings(gate_labels=60, train_labels=0)
    assert {p.trace_id for p in select(TRACES, rules)} != {
        p.trace_id for p in select(TRACES, rules, salt="other")
    }


def test_propensities_are_those_of_counting_the_ways():
    for n, n_random, n_chosen in ((1, 1, 0), (12, 3, 4), (60, 7, 3), (119, 1, 30), (40, 20, 20)):
        for rank in range(n):
            ways = sum(
                math.comb(rank, before) * math.comb(n - 1 - rank, n_random - before)
                for before in range(rank - n_chosen + 1, min(rank, n_random) + 1)
                if before >= 0
            )
            drawn = n_random / n
            counted = drawn + (1 - drawn) * ways / math.comb(n - 1, n_random) if n_random < n else 1.0
            counted = 1.0 if rank < n_chosen else min(counted, 1.0)
            assert _propensity(rank, n, n_random, n_chosen) == pytest.approx(counted, abs=1e-12)


def many(n, rng):
    confidence = rng.random(n)
    confidence[::10] = np.nan
    ids = np.array([f"{i:032x}" for i in rng.permutation(n)], dtype="S32")
    no, yes = np.zeros(n, bool), np.ones(n, bool)
    cases = np.array([f"{i:016x}" for i in rng.permutation(n)], dtype="S16")
    return UnlabelledTraces.of_columns(ids, cases, confidence, no, no, yes, rng.random(n) < 0.4)


def test_two_hundred_thousand_are_ranked_in_seconds_and_novelty_is_asked_of_a_pool_only():
    traces, asked = many(200_000, np.random.default_rng(0)), []
    start = time.process_time()
    picks = selection.select(
        traces,
        SelectionSettings(gate_labels=100),
        novelty=lambda rows: asked.append(len(rows)) or np.zeros(len(rows)),
    )
    assert time.process_time() - start < 5
    assert asked[0] <= selection.POOL
    assert len(picks) == 160


def test_of_more_than_the_pool_the_propensities_are_still_the_frequencies(monkeypatch):
    monkeypatch.setattr(selection, "POOL", 10)
    rules = SelectionSettings(gate_labels=0, train_labels=10, gate_share=0.001)
    times, counts, propensity = 250, Counter(), {}
    for seed in range(times):
        for pick in select(TRACES, rules, seed=seed, novelty=lambda t: t.attempts[0].steps[0].confidence):
            counts[pick.trace_id] += 1
            assert propensity.setdefault(pick.trace_id, pick.propensity) == pick.propensity
    for trace_id, p in propensity.items():
        assert counts[trace_id] / times == pytest.approx(p, abs=4.5 * (p * (1 - p) / times) ** 0.5 + 1e-9)
    assert sum(propensity.values()) == pytest.approx(10)


def test_what_drifted_is_looked_at_whatever_the_pool(monkeypatch):
    monkeypatch.setattr(selection, "POOL", 10)
    rules = SelectionSettings(gate_labels=0, train_labels=3, random_share=0.01, gate_share=0.001)
    sure = sorted(TRACES, key=lambda t: -t.attempts[0].steps[0].confidence)[:2]
    picks = select(TRACES, rules, drifted={t.trace_id: "refunds" for t in sure})
    assert {t.trace_id for t in sure} <= {pick.trace_id for pick in picks}
    assert sum("drifted here (refunds)" in pick.reason for pick in picks) >= 1


def test_novelty_is_the_distance_to_the_nearest_known_text_in_blocks_as_one_by_one():
    known = ["what is the weather in Oslo", "cancel my order 17"]
    texts = ["what is the weather in Oslo", "zygote", "cancel the order 18", "x" * 5000] * 200
    new_to = novelty(known)
    together = new_to(texts)
    assert together == pytest.approx(np.array([new_to([text])[0] for text in texts[:4]] * 200))
    assert together[0] == pytest.approx(0, abs=1e-9)
    assert together[1] == 1
    assert 0 < together[2] < 1
    assert list(novelty([])(["a", "b"])) == [0, 0]
