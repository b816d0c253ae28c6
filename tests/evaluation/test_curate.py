"""What proposers may learn from: people's word whole, the agent's own capped, the gate's cases untouched."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.agent.case import Case
from ratchet.agent.memory.forgotten import Forgotten, Oblivion
from ratchet.agent.memory.steps import Experience
from ratchet.agent.trace import RunError
from ratchet.evaluation.data.cases import LabelledCase, role_of
from ratchet.evaluation.data.curate import (
    CurateSettings,
    curate,
    training_imports,
    training_rollouts,
    without_forgotten,
)
from ratchet.evaluation.data.labels import Label

NOW = datetime(2026, 1, 5, tzinfo=UTC)


def case(number, source="human", role="train", request=None):
    request = (
        request
        or f"request {number * 7919 % 997} of {number * 104729 % 9973} and {'abcdefghij'[number % 10] * 9}"
    )
    return LabelledCase(
        case=Case(inputs={"request": request}),
        trace_id=f"{number:032x}",
        candidate_id="c",
        role=role,
        propensity=1.0,
        source=source,
        answer="a",
    )


CASES = st.lists(
    st.tuples(st.sampled_from(["human", "environment"]), st.sampled_from(["train", "gate"])), max_size=25
).map(lambda kinds: [case(n, *kind) for n, kind in enumerate(kinds)])
SETTINGS = st.builds(
    CurateSettings, own_per_human=st.floats(0, 10), max_cases=st.integers(1, 30),
    human_share=st.floats(0, 1), own_weight=st.floats(0, 1),
)  # fmt: skip


@given(labelled=CASES, rules=SETTINGS, data=st.data())
@settings(deadline=None, max_examples=60)
def test_no_human_label_is_dropped_no_gate_case_leaks_and_caps_hold(labelled, rules, data):
    gate = [c.case_id for c in labelled if c.role == "gate"]
    released = set(data.draw(st.lists(st.sampled_from(gate), unique=True))) if gate else set()
    curated = curate(labelled, rules, released=released)
    ids = [c.case_id for c in curated.cases]
    assert len(set(ids)) == len(ids)
    allowed = [c for c in labelled if c.role == "train" or c.case_id in released]
    assert set(ids) <= {c.case_id for c in allowed}
    human = {c.case_id for c in allowed if c.source == "human"}
    assert human <= set(ids)
    assert curated.n_human == len(human)
    n_own = len(ids) - len(human)
    if human:
        assert n_own <= rules.own_per_human * len(human)
        assert len(ids) <= max(rules.max_cases, len(human))
        assert curated.human_share >= rules.human_share - 1e-9
    else:
        assert n_own <= rules.max_cases
    assert len(ids) + sum(curated.left_out.values()) == len(labelled)


@given(labelled=CASES, rules=SETTINGS, data=st.data())
@settings(deadline=None, max_examples=30)
def test_the_order_in_which_cases_came_does_not_matter(labelled, rules, data):
    assert curate(data.draw(st.permutations(labelled)), rules) == curate(labelled, rules)


def test_gate_cases_are_reserved_until_a_gate_has_released_them():
    mine, reserved = case(1), case(2, role="gate")
    curated = curate([mine, reserved], CurateSettings())
    assert (curated.cases, curated.left_out) == ((mine,), {"reserved for the gate": 1})
    assert len(curate([mine, reserved], CurateSettings(), released={reserved.case_id}).cases) == 2


def test_an_own_success_that_is_nearly_a_gate_case_is_left_out_and_a_persons_answer_is_kept():
    text = "Could you please book two seats on the evening train from Vienna to Prague on Friday?"
    gate = case(1, role="gate", request=text)
    own = case(2, "environment", request=text + " !")
    human = case(3, request=text.replace("Friday", "friday "))
    curated = curate([gate, own, human], CurateSettings())
    assert curated.cases == (human,)
    assert curated.left_out == {"reserved for the gate": 1, "nearly the same as a gate case": 1}
    assert own in curate([gate, own], CurateSettings(), released={gate.case_id}).cases


def test_what_people_had_forgotten_teaches_no_more_and_goes_on_judging():
    mine, again, other, judge = case(1), case(2), case(3), case(4, role="gate")
    gone = Oblivion(
        Forgotten(entry_id=one.trace_id, case_id=one.case_id, said=("a",), at=NOW, by="anna", reason="stale")
        for one in (mine, judge)
    )
    again = again.model_copy(update={"case": mine.case})
    assert without_forgotten([mine, again, other, judge], gone) == [other, judge]
    assert without_forgotten([judge], gone, {judge.case_id}) == [], "a gate has used it: it would teach"


def test_own_successes_are_capped_per_human_label_and_the_rest_is_counted():
    labelled = [*(case(n) for n in range(4)), *(case(n, "environment") for n in range(10, 40))]
    curated = curate(labelled, CurateSettings(own_per_human=2, human_share=0))
    assert (curated.n_human, len(curated.cases)) == (4, 12)
    assert curated.left_out == {"own successes above the cap": 22}


@pytest.mark.parametrize(
    ("human", "rules", "own"),
    [
        (4, {}, 4),
        (3, {"own_weight": 1.0}, 1),
        (4, {"human_share": 0.5}, 4),
        (4, {"human_share": 0.5, "own_per_human": 10}, 8),
        (1, {"human_share": 0.9, "own_per_human": 10}, 0),
        (9, {"human_share": 0.9, "own_per_human": 10}, 2),
        (4, {"human_share": 1.0, "own_per_human": 10}, 0),
        (4, {"human_share": 1.0, "own_per_human": 2, "own_weight": 0.0}, 8),
        (4, {"human_share": 0.0, "own_per_human": 3}, 12),
        (0, {}, 30),
        (0, {"human_share": 1.0}, 30),
    ],
    ids=lambda value: str(value),
)
def test_people_have_their_share_by_weight_wherever_anybody_labels(human, rules, own):
    labelled = [*(case(n) for n in range(human)), *(case(n, "environment") for n in range(10, 40))]
    curated = curate(labelled, CurateSettings(**rules))
    assert len(curated.cases) - human == own
    assert curated.human_share >= (CurateSettings(**rules).human_share - 1e-9 if human else 0)


def test_what_weighs_nothing_has_no_share():
    labelled = [case(1, "environment")]
    assert curate(labelled, CurateSettings(own_weight=0)).human_share is None


def test_before_anybody_labelled_own_successes_are_all_there_is():
    labelled = [case(n, "environment") for n in range(10)]
    assert len(curate(labelled, CurateSettings()).cases) == 10
    assert len(curate(labelled, CurateSettings(max_cases=6)).cases) == 6


def test_more_human_labels_than_the_maximum_are_all_kept():
    labelled = [*(case(n) for n in range(10)), case(20, "environment")]
    curated = curate(labelled, CurateSettings(max_cases=5))
    assert (curated.n_human, len(curated.cases)) == (10, 10)


def test_the_seed_decides_which_own_successes_stay():
    labelled = [case(0), *(case(n, "environment") for n in range(1, 30))]
    kept = [
        curate(labelled, CurateSettings(own_per_human=5, human_share=0), seed=seed).cases
        for seed in (0, 0, 1)
    ]
    assert kept[0] == kept[1] != kept[2]


def test_nothing_gives_nothing():
    curated = curate([], CurateSettings())
    assert (curated.cases, curated.left_out, curated.n_human) == ((), {}, 0)


@pytest.mark.parametrize(
    "wrong", [{"own_per_human": -1}, {"own_weight": 2}, {"max_cases": 0}, {"human_share": 1.1}]
)
def test_settings_out_of_bounds_are_refused(wrong):
    with pytest.raises(ValueError, match="Input should be"):
        CurateSettings(**wrong)


def test_runs_of_the_gate_broken_ones_and_those_that_a_person_refused_teach_nothing(make_trace):
    at = datetime(2026, 1, 5, tzinfo=UTC)
    requests = [f"{'abcdefghij'[n % 10] * 9} {n * 104729 % 9973}" for n in range(40)]
    runs = [
        make_trace(
            trace_id=f"{n:032x}",
            case=Case(inputs={"request": text}),
            session_id=None,
            started_at=at - timedelta(hours=n),
        )
        for n, text in enumerate(requests)
    ]
    broken = make_trace(trace_id="b" * 32, error=RunError(kind="infrastructure", message="gone"))
    train = [run for run in runs if role_of(run.case.case_id, gate_share=0.5) == "train"]
    refused = Label(
        trace_id=train[0].trace_id, score=0.0, source="human", rater="anna", created_at=datetime.now(UTC)
    )
    judged = refused.model_copy(update={"trace_id": train[1].trace_id, "source": "judge"})
    released = next(run for run in runs if run not in train)
    learned = training_rollouts(
        [*runs, broken], [], [refused, judged], gate_share=0.5, released={released.case.case_id}
    )
    assert {run.trace_id for run in learned} == {run.trace_id for run in (*train[1:], released)}
    assert learned == sorted(learned, key=lambda run: run.started_at)


def test_a_run_nearly_the_same_as_a_labelled_gate_case_teaches_nothing(make_trace):
    gate = case(1, role="gate", request="please book me a flight to Paris on Monday morning")
    near = Case(inputs={"request": "please book me a flight to Paris on Monday mornings"})
    assert training_rollouts([make_trace(case=near)], [], [], gate_share=0.0)
    assert training_rollouts([make_trace(case=near)], [gate], [], gate_share=0.0) == []


def imported(request, session=None):
    step = {"observation": request, "action": "a", "goal": request, "trace_id": "1" * 32, "source": "own"}
    case_id = Case(inputs={"request": request, "task": session}).case_id
    return Experience(**step, case_id=case_id, index=0, session_id=session, imported_from="imported:old")


def test_an_imported_run_teaches_unless_its_session_or_that_of_its_case_is_the_gates(make_trace):
    sides = {name: role_of("", gate_share=0.5, session_id=name) for name in map(str, range(20))}
    steps = [imported(f"request {name} {chr(97 + int(name)) * 9}", name) for name in sides]
    train = [step for step in steps if sides[step.session_id] == "train"]
    assert 0 < len(train) < len(steps)
    assert training_imports(steps, [], [], gate_share=0.5) == train
    gate = next(name for name, side in sides.items() if side == "gate")
    case = Case(inputs={"request": train[0].goal, "task": train[0].session_id})
    met = make_trace(case=case, session_id=gate)
    assert training_imports(train, [met], [], gate_share=0.5) == train[1:]
    assert training_imports(train, [met], [], gate_share=0.5, released={case.case_id}) == train


def test_an_imported_run_nearly_the_same_as_a_labelled_gate_case_teaches_nothing():
    gate = case(1, role="gate", request="please book me a flight to Paris on Monday morning")
    near = imported("please book me a flight to Paris on Monday mornings", "s")
    assert training_imports([near], [], [], gate_share=0.0) == [near]
    assert training_imports([near], [], [gate], gate_share=0.0) == []
    assert training_imports([near], [], [gate], gate_share=0.0, released={gate.case_id}) == [near]
