"""Turns of one conversation: on one side of the split, one bet, next to each other, used up together."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.agent.case import Case
from ratchet.agent.environment import Action, Outcome
from ratchet.agent.record import content_hash
from ratchet.agent.trace import Attempt, Step, Trace
from ratchet.evaluation.data.cases import first_sessions, fresh_for_gate, labelled_cases, released_by, side_of
from ratchet.evaluation.data.curate import CurateSettings, curate, training_rollouts
from ratchet.evaluation.data.labels import Label
from ratchet.evaluation.gate.gate import Pair, decide
from ratchet.evaluation.gate.order import batches, go_on, in_order

NOW = datetime(2026, 1, 5, tzinfo=UTC)
SHARE = 0.4


def turn(session, number, request=None, minute=0, score=1.0):
    name = f"{session}-{number}"
    words = request or f"{name} asks about {sum(map(ord, name)) * 7919 % 9973} and {name[::-1]}"
    step = Step(observation=words, action=Action(name="a"), confidence=0.5)
    return Trace(
        trace_id=content_hash([session, number, words], length=32),
        case=Case(inputs={"request": words}),
        candidate_id="c",
        session_id=session,
        started_at=NOW + timedelta(minutes=minute),
        latency_s=0.1,
        attempts=(Attempt(steps=(step,), outcome=Outcome(score=score)),),
    )


def answered(trace):
    return Label(
        trace_id=trace.trace_id,
        source="human",
        rater="ann",
        created_at=NOW,
        expected="a",
        asked=True,
        propensity=0.5,
    )


def sessions_on(side, n):
    names = (f"session {i}" for i in range(10_000))
    found = (s for s in names if side_of(turn(s, 0), gate_share=SHARE) == side)
    return [next(found) for _ in range(n)]


GATE, TRAIN = sessions_on("gate", 6), sessions_on("train", 6)


def joined(traces, labels, **more):
    return labelled_cases(traces, labels, gate_share=SHARE, **more)


def test_all_turns_of_a_session_are_on_one_side_and_without_a_session_each_case_is_its_own():
    for session in (*GATE, *TRAIN):
        assert len({side_of(turn(session, n), gate_share=SHARE) for n in range(8)}) == 1
    alone = [turn(None, n) for n in range(60)]
    assert {side_of(trace, gate_share=SHARE) for trace in alone} == {"gate", "train"}


def test_no_turn_of_a_session_that_judges_teaches():
    traces = [turn(session, n) for session in (*GATE, *TRAIN) for n in range(8)]
    labelled = joined(traces, [answered(t) for t in traces[::2]])
    taught = {c.session_id for c in curate(labelled, CurateSettings()).cases}
    ran = {t.session_id for t in training_rollouts(traces, labelled, [], gate_share=SHARE)}
    judge = {c.session_id for c in fresh_for_gate(labelled, (), {}, ())[0]}
    assert (taught, ran, judge) == (set(TRAIN), set(TRAIN), set(GATE))


def test_a_case_of_several_sessions_stays_where_it_was_first_seen():
    hello = "hello there, I have a question about my order"
    for first, later, role in ((GATE[0], TRAIN[0], "gate"), (TRAIN[0], GATE[0], "train")):
        traces = [turn(first, 0, hello, minute=1), turn(later, 0, hello, minute=2)]
        assert set(first_sessions(traces[::-1]).values()) == {first}
        (case,) = joined(traces, [answered(traces[0])])
        assert (case.role, case.session_id) == (role, first)
        (scored,) = joined(traces, [], self_scoring=True)
        assert scored.role == role


def test_what_a_case_did_in_a_session_that_judges_does_not_teach():
    hello = "hello there, I have a question about my order"
    home, elsewhere = turn(TRAIN[0], 0, hello, minute=1, score=0.0), turn(GATE[0], 0, hello, minute=2)
    assert joined([home, elsewhere], []) == []
    assert training_rollouts([home, elsewhere], [], [], gate_share=SHARE) == [home]


def test_a_case_of_the_gate_that_a_person_answered_for_training_teaches_and_its_session_stops_judging():
    """Asked where it interested, not at random: it is no evidence, and a person's answer is never dropped."""
    hello = "hello there, I have a question about my order"
    traces = [turn(GATE[0], 0, hello, 1), turn(TRAIN[0], 0, hello, 2), turn(GATE[0], 1, minute=3)]
    labelled = joined(traces, [answered(t) for t in traces])
    roles = {c.case_id: c.role for c in labelled}
    assert [roles[t.case.case_id] for t in (traces[0], traces[2])] == ["train", "gate"]
    fresh, left_out = fresh_for_gate(labelled, {traces[0].case.case_id}, {}, ())
    assert (fresh, left_out) == ([], {"seen by a proposer": 1})


def test_a_session_that_judged_once_never_judges_again_and_all_of_it_may_teach():
    early, late = turn(GATE[0], 0), turn(GATE[0], 1)
    labelled = joined([early, late], [answered(early), answered(late)])
    spent = {early.case.case_id}
    assert fresh_for_gate(labelled, (), {}, spent) == ([], {"used by an earlier gate": 2})
    assert released_by(labelled, spent) == {early.case.case_id, late.case.case_id}
    other = joined([turn(GATE[1], 0)], [answered(turn(GATE[1], 0))])
    assert released_by(other, spent) == spent


def cases_of(sizes):
    traces = [
        turn(f"s{s}" if size > 1 else None, f"{s}.{n}") for s, size in enumerate(sizes) for n in range(size)
    ]
    return labelled_cases(traces, [answered(t) for t in traces], gate_share=1 - 1e-12)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(1, 20), st.randoms())
@settings(max_examples=30, deadline=None)
def test_sessions_stay_together_in_an_order_that_nothing_decides_and_no_batch_cuts_one(sizes, size, random):
    cases = cases_of(sizes)
    ordered = in_order(cases)
    shuffled = list(cases)
    random.shuffle(shuffled)
    assert in_order(shuffled) == ordered
    assert sorted(c.case_id for c in ordered) == sorted(c.case_id for c in cases)
    changes = sum(a.session_id != b.session_id or a.session_id is None for a, b in pairwise(ordered))
    assert changes == len(sizes) - 1
    cut = list(batches(ordered, size))
    assert [c for batch in cut for c in batch] == ordered
    for one, after in pairwise(cut):
        assert len(one) >= size
        assert one[-1].session_id is None or one[-1].session_id != after[0].session_id


def test_without_sessions_the_order_is_that_of_the_cases_hashes():
    cases = cases_of([1] * 20)
    assert [c.case_id for c in in_order(cases)] == sorted(c.case_id for c in cases)


def test_a_test_goes_on_in_its_own_order_and_newcomers_come_last():
    cases = in_order(cases_of([1] * 12 + [4]))
    begun = [c for n, c in enumerate(cases) if n % 3]
    session = next(c.session_id for c in cases if c.session_id)
    order = [(c.case_id, c.session_id) for c in begun]
    on = go_on(order, cases, cases)
    assert on[: len(begun)] == begun
    assert on[len(begun) :] == [c for c in cases if c not in begun and c.session_id != session]
    withdrawn = [c for c in cases if c is not begun[0]]
    assert go_on(order, withdrawn, cases) == on[1:]


def conversations(rng, n, turns, asked):
    """Equal versions that agree in all turns of a session; of each, a random part is labelled, as people are asked."""
    for s, d in enumerate(rng.choice([-1.0, 0.0, 1.0], p=[0.21, 0.58, 0.21], size=n)):
        for t in np.flatnonzero(rng.random(turns) < asked):
            yield Pair(case_id=f"{s}.{t}", champion=(1 - d) / 2, challenger=(1 + d) / 2, cluster=f"s{s}")


@pytest.mark.parametrize("asked", [1.0, 0.4])
def test_sessions_of_agreeing_turns_promote_as_rarely_as_single_cases(asked):
    rng, alone, together, times = np.random.default_rng(12), 0, 0, 200
    for _ in range(times):
        pairs = list(conversations(rng, 60, 8, asked))
        together += decide(pairs).decision == "promote"
        alone += decide(p.model_copy(update={"cluster": None}) for p in pairs).decision == "promote"
    assert together / times <= 0.05
    assert alone / times > 0.2, "what a bet for each turn would do"
