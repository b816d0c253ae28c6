"""Which labelled cases teach and which judge."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.agent.case import Case
from ratchet.agent.environment import Action, Outcome
from ratchet.agent.trace import Attempt, RunError, Step, Trace
from ratchet.evaluation.data.cases import case_text, fresh_for_gate, labelled_cases, role_of
from ratchet.evaluation.data.labels import Label

NOW = datetime(2026, 1, 5, tzinfo=UTC)


def trace(number, request, score=None, action="a", **changes):
    attempt = Attempt(
        steps=(Step(observation=request, action=Action(name=action)),), outcome=Outcome(score=score)
    )
    fields = {
        "trace_id": f"{number:032x}", "case": Case(inputs={"request": request}), "candidate_id": "c",
        "session_id": None, "started_at": NOW, "latency_s": 0.1, "attempts": (attempt,),
    }  # fmt: skip
    return Trace(**(fields | changes))


def answer(number, expected="a", **changes):
    fields = {
        "trace_id": f"{number:032x}",
        "source": "human",
        "rater": "ann",
        "created_at": NOW,
        "expected": expected,
        "propensity": 1.0,
        "asked": True,
    }
    return Label(**(fields | changes))


def on_side(role, n, share=0.4, salt=""):
    """Requests whose case falls on this side."""
    requests = (f"request number {i} about {i * 37 % 101} things" for i in range(10_000))
    found = (
        r
        for r in requests
        if role_of(Case(inputs={"request": r}).case_id, gate_share=share, salt=salt) == role
    )
    return [next(found) for _ in range(n)]


TRAIN, GATE = on_side("train", 4), on_side("gate", 4)


def join(traces, labels, **changes):
    return labelled_cases(traces, labels, **({"gate_share": 0.4} | changes))


@pytest.mark.parametrize("share", [0.1, 0.4, 0.8])
def test_about_the_share_asked_for_goes_to_the_gate(share):
    roles = [role_of(f"case {i}", gate_share=share) for i in range(4000)]
    assert roles.count("gate") / 4000 == pytest.approx(share, abs=0.03)


@given(case_id=st.text(max_size=10), share=st.floats(0.01, 0.99), more=st.floats(0, 1))
@settings(deadline=None, max_examples=50)
def test_a_role_never_changes_and_a_larger_share_only_adds_to_the_gate(case_id, share, more):
    role = role_of(case_id, gate_share=share)
    assert role == role_of(case_id, gate_share=share)
    if role == "gate":
        assert role_of(case_id, gate_share=max(share, more)) == "gate"


def test_projects_split_differently():
    one, other = (
        [role_of(f"case {i}", gate_share=0.5, salt=salt) for i in range(200)] for salt in ("one", "other")
    )
    assert one != other


def test_a_persons_answer_becomes_a_case_with_its_propensity_and_session():
    for session in ("s1", "s2", "s3", "s4", None):
        run = trace(1, GATE[0], session_id=session)
        (case,) = join([run], [answer(1, "b", propensity=0.25)])
        role = role_of(run.case.case_id, gate_share=0.4, session_id=session)
        assert (case.source, case.answer, case.case.expected, case.role) == ("human", "b", "b", role)
        assert (case.propensity, case.session_id, case.candidate_id) == (0.25, session, "c")
        assert case.case_id == run.case.case_id


def test_a_case_knows_when_it_came_or_else_when_it_was_run():
    told = Case(inputs={"request": TRAIN[1]}, seen_at=NOW - timedelta(days=3))
    runs = [trace(1, TRAIN[0]), trace(2, "", case=told), trace(3, TRAIN[2], score=1.0)]
    cases = join(runs, [answer(1, "b"), answer(2, "b")])
    assert [one.case.seen_at for one in cases] == [NOW, told.seen_at, NOW]


def test_an_own_success_teaches_and_never_judges():
    traces = [trace(1, TRAIN[0], score=1.0, action="x"), trace(2, GATE[0], score=1.0)]
    (case,) = join(traces, [])
    assert (case.source, case.answer, case.role, case.propensity) == ("environment", "x", "train", 1.0)


@pytest.mark.parametrize(
    "broken",
    [{"score": 0.0}, {"score": 0.99}, {"score": None}, {"score": 1.0, "error": RunError(kind="agent", message="x")},
     {"attempts": ()}],
)  # fmt: skip
def test_what_did_not_succeed_teaches_nothing_by_itself(broken):
    assert join([trace(1, TRAIN[0], **broken)], []) == []


def test_where_the_environment_scores_everything_each_case_on_the_gates_side_counts():
    traces = [trace(1, GATE[0], score=0.0), trace(2, GATE[1], score=1.0), trace(3, TRAIN[0], score=0.0)]
    cases = join(traces, [], self_scoring=True)
    assert [(c.trace_id, c.role, c.source, c.answer) for c in cases] == [
        (f"{n:032x}", "gate", "environment", None) for n in (1, 2)
    ]


def test_a_person_outranks_the_environment_in_whatever_order_they_come():
    traces = [trace(1, TRAIN[0], score=1.0, action="x"), trace(2, TRAIN[0], score=1.0, action="x")]
    for order in (traces, traces[::-1]):
        (case,) = join(order, [answer(2, "b")])
        assert (case.source, case.answer) == ("human", "b")


def test_contradicting_answers_to_one_trace_leave_the_case_out_even_after_a_success():
    traces = [trace(1, TRAIN[0], score=1.0), trace(2, TRAIN[1])]
    cases = join(traces, [answer(1, "a"), answer(1, "b", rater="bob"), answer(2, "a")])
    assert [c.trace_id for c in cases] == [f"{2:032x}"]


def test_contradicting_answers_to_two_traces_of_one_case_leave_it_out():
    for request in (TRAIN[0], GATE[0]):
        traces = [trace(1, request, score=1.0), trace(2, request, score=1.0)]
        assert join(traces, [answer(1, "a"), answer(2, "b")]) == []


def test_agreeing_answers_are_one_case():
    (case,) = join([trace(1, GATE[0])], [answer(1, "a"), answer(1, "a", rater="bob")])
    assert case.answer == "a"


def test_a_success_that_a_person_scored_as_wrong_does_not_teach():
    success = trace(1, TRAIN[0], score=1.0)
    assert join([success], [answer(1, None, score=0.0)]) == []
    assert len(join([success], [answer(1, None, score=1.0)])) == 1


def test_thumbs_up_teach_the_agents_action_and_judge_where_they_were_asked_for():
    up = {"expected": None, "score": 1.0}
    traces = [trace(0, TRAIN[0]), trace(1, GATE[0]), trace(2, GATE[1], action="b")]
    labels = [
        answer(0, asked=False, propensity=None, **up), answer(1, **up),
        answer(2, asked=False, propensity=None, **up),
    ]  # fmt: skip
    cases = {item.trace_id[-1]: item for item in join(traces, labels)}
    assert {key: (item.role, item.answer, item.source) for key, item in cases.items()} == {
        "0": ("train", "a", "human"),
        "1": ("gate", "a", "human"),
    }


def test_a_newer_answer_to_another_trace_of_a_case_that_teaches_supersedes_the_older():
    traces = [trace(n, TRAIN[0], session_id=None) for n in (1, 2)]
    later = answer(2, "b", created_at=NOW + timedelta(days=1))
    (found,) = join(traces, [later, answer(1, "a")])
    assert (found.answer, found.trace_id, found.supersedes) == (
        "b",
        traces[1].trace_id,
        (traces[0].trace_id,),
    )
    assert join(traces, [later, answer(1, "a"), answer(2, "a", rater="bob")]) == [], (
        "they differ on the newest, too"
    )
    judging = [trace(n, GATE[0]) for n in (1, 2)]
    assert join(judging, [later, answer(1, "a")]) == [], "what judges is not in dispute"


@pytest.mark.parametrize(
    "others",
    [
        [answer(0, expected=None, score=0.0, rater="ben")],
        [answer(0, expected="b", rater="ben")],
        [answer(0, expected=None, score=0.5, rater="ben")],
    ],
)
def test_thumbs_up_that_others_contradict_teach_nothing(others):
    assert join([trace(0, TRAIN[0])], [answer(0, expected=None, score=1.0), *others]) == []


def test_thumbs_up_beside_the_same_raters_answer_say_nothing_more():
    said = [answer(0, expected="b"), answer(0, expected=None, score=1.0)]
    assert [case.answer for case in join([trace(0, TRAIN[0])], said)] == ["b"]


def test_thumbs_up_for_a_run_that_broke_approve_nothing():
    broken = trace(0, TRAIN[0], error=RunError(kind="agent", message="garbage"))
    assert join([broken], [answer(0, expected=None, score=1.0)]) == []


def test_only_people_answer_and_labels_of_unknown_traces_are_ignored():
    labels = [answer(1, source="judge"), answer(1, source="environment"), answer(99)]
    assert join([trace(1, TRAIN[0])], labels) == []


def fresh(cases, seen=(), texts=None, spent=()):
    kept, left_out = fresh_for_gate(cases, seen, texts or {}, spent)
    return [c.case_id for c in kept], left_out


def test_the_gate_gets_its_own_unspent_unseen_cases_in_order():
    traces = [trace(n, request) for n, request in enumerate((*GATE, *TRAIN))]
    cases = join(traces, [answer(n) for n in range(8)])
    ids = [t.case.case_id for t in traces[:4]]
    assert fresh(cases) == (ids, {})
    assert fresh(cases, seen={ids[0]}, spent={ids[1], ids[2]}) == (
        [ids[3]],
        {"seen by a proposer": 1, "used by an earlier gate": 2},
    )


def test_a_near_duplicate_of_what_a_proposer_saw_does_not_judge():
    request = "Could you please book two seats on the evening train from Vienna to Prague on Friday?"
    cases = join([trace(1, request)], [answer(1)], gate_share=0.999999)
    near = {"seen": request.upper() + "  "}
    assert fresh(cases, texts=near) == ([], {"nearly the same as a case that a proposer saw": 1})
    assert fresh(cases, texts={"seen": "What is the weather in Oslo?", "unknown": None})[1] == {}


@pytest.mark.parametrize(
    ("inputs", "text"),
    [({"tools": [], "request": "r"}, "r"), ({"message": "m"}, "m"), ({"question": "q", "text": "t"}, "q"),
     ({"request": 3, "text": "t"}, "t"), ({"a": 1, "b": "x"}, "1 x"), ({}, "")],
)  # fmt: skip
def test_a_cases_text_is_what_it_asks(inputs, text):
    assert case_text(Case(inputs=inputs)) == text
