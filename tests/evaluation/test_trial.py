"""A test that waits for people: what is not answered counts at its worst, and what is counts in the order of asking."""

from datetime import UTC, datetime, timedelta

import pytest

from ratchet.agent.case import Case
from ratchet.agent.environment import Outcome, respond
from ratchet.agent.trace import Attempt, RunError, Step, Trace
from ratchet.evaluation.data.cases import LabelledCase
from ratchet.evaluation.data.scorers import same
from ratchet.evaluation.gate.asking import Asking
from ratchet.evaluation.gate.gate import GatePolicy
from ratchet.evaluation.gate.horizon import plan_horizon
from ratchet.evaluation.gate.order import in_order, sessions
from ratchet.evaluation.gate.questions import Settled
from ratchet.evaluation.gate.trial import Trial, TrialState

NOW = datetime(2026, 11, 1, tzinfo=UTC)
SOON = datetime.now(UTC) + timedelta(hours=1)
POLICY = GatePolicy(alpha=0.03, horizon=plan_horizon(0.03, 0.1))


def case(number, session=None):
    return LabelledCase(
        case=Case(inputs={"request": f"request {number}"}), trace_id=f"{number + 1:032x}", candidate_id="c",
        role="gate", propensity=1.0, session_id=session, source="nobody", answer=None,
    )  # fmt: skip


def ran(one, said, score=None):
    error = RunError(kind="agent", message="broke") if said is None else None
    steps = () if said is None else (Step(observation="o", action=respond(said)),)
    attempt = Attempt(steps=steps, outcome=Outcome(score=score))
    return Trace(
        trace_id="0" * 32, case=one.case, candidate_id="c", started_at=NOW, latency_s=0.1, attempts=(attempt,),
        error=error,
    )  # fmt: skip


def begun(cases, policy=POLICY):
    return Trial.begin("a", "b", NOW, policy, cases, 1000)


def take(trial, cases, theirs, ours=lambda n: "No.", score=lambda n: None, audit=0.0):
    """All of these cases are played; returns what people are asked."""
    asking = Asking(same, audit, "salt")
    places = {one.case_id: n for n, one in enumerate(cases)}
    sides = [
        {one.case_id: ran(one, said(places[one.case_id]), score(places[one.case_id])) for one in cases}
        for said in (ours, theirs)
    ]
    asking.lay(trial, trial.compare(cases, *sides, same))
    return [question for session in sessions(cases) for question in asking.take(session)]


def settled(question, right, at=SOON):
    good = tuple(n for n, one in enumerate(question.answers) if one == right)
    return {
        question.question_id: Settled(
            question_id=question.question_id, good=good, settled_at=at, raters=("anna",)
        )
    }


def all_settled(questions, right):
    return {k: v for question in questions for k, v in settled(question, right).items()}


CASES = in_order([case(n) for n in range(60)])


def came(day, number, session=None):
    one = case(number, session)
    return one.model_copy(update={"case": one.case.model_copy(update={"seen_at": NOW + timedelta(days=day)})})


def test_a_test_plays_the_newest_cases_in_their_order_and_goes_on_with_the_newest_of_what_comes_in():
    old, undated = [came(0, n) for n in range(20)], [case(n) for n in range(20, 25)]
    new, session = [came(9, n) for n in range(30, 40)], [came(1, 50, "s"), came(8, 51, "s")]
    order = in_order([*undated, *old, *new, *session])
    trial = Trial.begin("a", "b", NOW, POLICY, order, 12)
    assert trial.rest == [one for one in order if one in (*new, *session)]
    assert in_order(undated) == Trial.begin("a", "b", NOW, POLICY, in_order(undated), 5).rest
    later = [came(20, n) for n in range(60, 70)]
    again = Trial.resume(trial.state(), order, [*order, *later], 15)
    assert again.rest[:12] == trial.rest
    assert len(again.rest) == 15
    assert all(one in later for one in again.rest[12:])
    assert Trial.resume(trial.state(), order, [*order, *later], 12).rest == trial.rest


def test_the_same_answer_needs_nobody_and_is_a_bet_of_zero():
    trial = begun(CASES)
    assert take(trial, CASES, lambda n: "no") == []
    verdict = trial.verdict
    assert (verdict.decision, verdict.gain, verdict.n_alike, verdict.n_labelled) == ("continue", 0.0, 60, 0)
    assert verdict.e_value == pytest.approx(1.0)
    assert trial.accuracy is None, "nobody knows it"
    assert set(trial.used) == {one.case_id for one in CASES}


def test_a_known_score_asks_nobody_whatever_the_answers():
    trial = begun(CASES)
    assert take(trial, CASES, lambda n: f"Yes {n}.", score=lambda n: 1.0) == []
    assert (trial.verdict.n_labelled, trial.verdict.gain) == (60, 0.0)


def test_what_waits_is_a_loss_for_promotion_and_a_win_for_harm_and_nothing_more_is_asked_than_could_decide():
    trial = begun(CASES)
    asked = take(trial, CASES, lambda n: "Yes.")
    assert 5 < len(asked) < 20
    assert trial.in_flight_decides
    before = trial.verdict
    assert (before.e_value < 1, before.harm_e_value < 1, before.decision) == (True, True, "continue")
    assert len(trial.rest) == 60 - len(asked), "the others stay where they are, in order"
    trial.hear(all_settled(asked[: len(asked) // 2], "Yes."), same, SOON)
    half = trial.verdict
    assert (half.decision, half.gain, half.n_waiting) == ("continue", 1.0, len(asked) - len(asked) // 2)
    assert before.e_value < half.e_value
    won = Trial.resume(trial.state(), CASES, [], 1000)
    won.hear(all_settled(asked, "Yes."), same, SOON)
    while more := take(won, list(won.rest), lambda n: "Yes."):
        won.hear(all_settled(more, "Yes."), same, SOON)
    assert (won.verdict.decision, won.verdict.n_waiting) == ("promote", 0)
    assert won.verdict.e_value >= won.verdict.threshold
    lost = begun(CASES)
    lost.hear(all_settled(take(lost, CASES, lambda n: "Yes."), "No."), same, SOON)
    assert lost.verdict.decision == "reject", "so many answers could decide"


@pytest.mark.parametrize("wins", [range(0, 60, 2), range(5, 60), range(40), ()])
def test_what_is_never_answered_counts_as_lost_where_it_was_asked_whatever_came_in_between(wins):
    """Only wins are answered, late; a bettor who had seen them and as many losses, in that order, is no richer."""
    waiting, asked = begun(CASES), []
    while new := take(waiting, list(waiting.rest), lambda n: "Yes."):
        asked += new
        waiting.hear(all_settled([q for n, q in enumerate(asked) if n in wins], "Yes."), same, SOON)
        expired = [p.model_copy(update={"asked_at": NOW}) if p.waits else p for p in waiting.plays]
        waiting.plays = expired  # long ago: no answer is in flight any more
        waiting.hear({}, same, SOON)
    known = begun(CASES)
    order = [next(one for one in CASES if one.case_id == question.case.case_id) for question in asked]
    for n, one in enumerate(order):
        scores = (0.0, 1.0) if n in wins else (1.0, 0.0)
        known.bet(known.compare([one], *({one.case_id: ran(one, "x", score)} for score in scores), same))
    assert waiting.verdict.e_value == pytest.approx(known.verdict.e_value)
    assert (waiting.verdict.decision == "promote") == (known.verdict.decision == "promote")
    assert waiting.verdict.harm_e_value <= known.verdict.harm_e_value + 1e-9


def test_an_answer_after_the_deadline_changes_nothing():
    trial = begun(CASES)
    asked = take(trial, CASES, lambda n: "Yes.")
    late = datetime.now(UTC) + timedelta(days=15)
    before = trial.verdict
    trial.hear({k: v for q in asked for k, v in settled(q, "Yes.", at=late).items()}, same, late)
    assert trial.verdict.e_value == before.e_value
    assert not trial.in_flight_decides, "others may be asked"
    trial.hear(all_settled(asked, "Yes."), same, SOON)
    assert trial.verdict.e_value == before.e_value, "what was late once stays late"


def test_a_side_that_broke_is_never_right_and_the_other_needs_a_person():
    trial = begun(CASES[:1])
    (question,) = take(trial, CASES[:1], lambda n: None)
    assert set(question.answers) == {"No.", None}
    trial.hear(settled(question, None), same, SOON)
    assert (trial.plays[0].champion, trial.plays[0].challenger) == (0.0, 0.0)


def test_a_session_is_one_bet_and_waits_as_a_whole():
    turns = in_order([case(n, session=f"s{n // 4}") for n in range(16)])
    trial = begun(turns, GatePolicy(alpha=0.03))
    asked = take(trial, turns, lambda n: "Yes." if n % 4 == 1 else "no")
    assert len(asked) == 4
    trial.hear(all_settled(asked[:1], "Yes."), same, SOON)
    assert (int(trial.gate.verdict().n_bets), trial.verdict.n_bets) == (1, 4)
    trial.hear(all_settled(asked, "Yes."), same, SOON)
    assert trial.verdict.gain == pytest.approx(0.25)


def test_a_stored_test_goes_on_exactly_where_it_was():
    trial = begun(CASES)
    asked = take(trial, CASES, lambda n: "Yes.")
    trial.hear(all_settled(asked[1:3], "Yes."), same, SOON)
    again = Trial.resume(TrialState.from_json(trial.state().to_json()), CASES, [], 1000)
    assert again.verdict == trial.verdict
    for one in (trial, again):
        one.hear(all_settled(asked, "Yes."), same, SOON)
    assert again.verdict == trial.verdict
    assert again.state() == trial.state()


def test_what_people_named_as_right_may_teach_once_the_case_cannot_judge_any_more():
    trial = begun(CASES)
    asked = take(trial, CASES, lambda n: "Yes.")
    trial.hear(all_settled(asked[:2], "Yes.") | settled(asked[2], "neither"), same, SOON)
    labels = trial.labels(NOW)
    assert [(one.expected, one.rater, one.asked) for one in labels] == [("Yes.", "anna", False)] * 2
    assert {one.over for one in labels} == {"No."}, "what they saw beside it is a preference to learn from"
    first, second = trial.plays[:2]
    assert [one.trace_id for one in labels] == [first.trace_id, second.trace_id]


def test_answers_that_count_as_the_same_are_audited_and_a_difference_that_people_see_blocks():
    trial = begun(CASES)
    asked = take(trial, CASES, lambda n: "no", audit=1.0)
    assert {question.audit for question in asked} == {True}
    assert len(asked) == 60, "an audit holds no test up"
    trial.hear(all_settled(asked[:12], "no"), same, SOON)
    (why,) = trial.verdict.blocked_by
    assert why.startswith("of 12 answers that count as the same people saw a difference in 12")
    assert trial.verdict.gain == 0.0
