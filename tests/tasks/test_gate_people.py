"""The gate where no scorer knows: a real registry and MLflow's real review queues, versions whose answers are scripted."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from tests.tasks.test_gate_task import CASES, RULES, decided, looked_at, round_data, version

from ratchet.agent.environment import Outcome, respond
from ratchet.agent.trace import Attempt, Step, Trace
from ratchet.evaluation.data.raters import RaterSettings
from ratchet.evaluation.gate.questions import Reply
from ratchet.evaluation.gate.trial import TrialState
from ratchet.infra.registry.closing import close_open_test
from ratchet.infra.registry.gate_cases import read_open_test, spent_cases, write_open_test
from ratchet.infra.registry.registry import champion, promote
from ratchet.infra.review.comparisons import pending_comparisons, read_replies, reply
from ratchet.tasks import trials
from ratchet.tasks.gate import Players, hold
from ratchet.tasks.people import People
from ratchet.tasks.promote import promote_best

NOW = datetime(2026, 11, 1, tzinfo=UTC)
OPEN = [
    item.model_copy(update={"source": "nobody", "answer": None, "trace_id": f"{n:032x}"})
    for n, item in enumerate(CASES, start=1)
]
NO_AUDIT = RULES.model_copy(update={"audit_share": 0.0})
ALL_AUDITED = RULES.model_copy(update={"audit_share": 1.0})
BY_ID = {item.case_id: item for item in OPEN}
IDS = sorted(BY_ID)


@pytest.fixture
def serving(project):
    first = version(project, "The first.")
    promote(project, first, approved_by="ratchet", reason="the first version")
    return first


class Said(Players):
    """Versions whose answer at each case is written down; nobody scores them."""

    def __init__(self, name, data, answers):
        super().__init__("", name, data.labelled)
        self.answers, self.calls = answers, Counter()

    def play(self, candidate_id, case_ids, *, again=False):
        self.calls[candidate_id] += len(case_ids)
        return [self.trace(candidate_id, case_id) for case_id in case_ids]

    def trace(self, candidate_id, case_id):
        action = respond(self.answers[candidate_id](IDS.index(case_id)))
        step = Step(observation="o", action=action)
        return Trace(
            trace_id=case_id.rjust(32, "0"), case=BY_ID[case_id].case, candidate_id=candidate_id,
            started_at=NOW, latency_s=0.1, attempts=(Attempt(steps=(step,), outcome=Outcome()),),
        )  # fmt: skip


def gate(project, serving, answers, *, rules=RULES, raters=None):
    data = round_data(OPEN, serving)
    players = Said(project, data, answers)
    new = [one for one in answers if one != serving]
    people = People(project, raters or RaterSettings())
    return hold(project, data, new, rules, players, people), players


def people_say(project, right, rater="anna"):
    """Everything that waits is answered: which of the answers is `right`; returns the questions."""
    waiting = pending_comparisons(project)
    for question in waiting:
        good = tuple(n for n, one in enumerate(question.answers) if right(one))
        said = Reply(question_id=question.question_id, rater=rater, good=good, created_at=datetime.now(UTC))
        reply(project, said)
    return waiting


def every_fourth(other):
    return lambda n: other if n % 4 == 0 else "We see to it."


def test_people_are_asked_only_where_answers_differ_and_the_next_runs_use_exactly_what_they_said(
    project, serving
):
    better = version(project, "Better.")
    answers = {
        serving: lambda n: "We see to it.",
        better: lambda n: "we see to it" if n % 2 else "Restart it.",
    }
    asked = []
    for _ in range(12):
        gated, _ = gate(project, serving, answers, rules=NO_AUDIT)
        (judged,) = gated.judged
        if judged.verdict.decision != "continue":
            break
        questions = people_say(project, lambda one: one == "Restart it.")
        assert gated.waiting == len(questions) > 0
        asked += questions
    assert judged.verdict.decision == "promote"
    assert {tuple(sorted(one.answers)) for one in asked} == {("Restart it.", "We see to it.")}
    assert {one.answers for one in asked} == {
        ("Restart it.", "We see to it."),
        ("We see to it.", "Restart it."),
    }
    assert len({one.question_id for one in asked}) == len(asked) == len(read_replies(project))
    assert judged.verdict.n_labelled == len(asked)
    assert judged.verdict.n_alike >= len(asked) - 1
    assert (judged.verdict.n_waiting, judged.verdict.gain > 0.3) == (0, True)
    assert promote_best.fn(project, gated, approved_by="a policy").promoted
    assert champion(project).candidate_id == better
    assert len(spent_cases(project)) == judged.verdict.n_labelled + judged.verdict.n_alike


def test_nothing_more_is_asked_while_answers_in_flight_could_decide_and_silence_promotes_nothing(
    project, serving, monkeypatch
):
    written = []
    page = trials.record_evaluation
    monkeypatch.setattr(
        trials, "record_evaluation", lambda *of, **what: (written.append(of), page(*of, **what))
    )
    better = version(project, "Better.")
    answers = {serving: lambda n: "No.", better: lambda n: f"Yes, {n}."}
    first, _ = gate(project, serving, answers)
    waiting = pending_comparisons(project)
    assert 5 < len(waiting) < 16
    assert written == [(project, better)]
    again, players = gate(project, serving, answers)
    assert written == [(project, better)], "its page says so already"
    assert (again.waiting, len(pending_comparisons(project))) == (first.waiting, len(waiting))
    assert players.calls == {}, "no case is played for nothing"
    verdict = again.judged[0].verdict
    assert (verdict.decision, verdict.n_waiting, verdict.n_labelled) == ("continue", len(waiting), 0)
    assert verdict.e_value < 1
    assert verdict.harm_e_value < 1, "what is not answered counts for nobody"
    assert decided(project) == [(better, None)]
    close_open_test(project, better, reason="another idea", by="anna")
    gated, _ = gate(project, serving, answers)
    assert gated.judged == (), "and the same challenger does not begin anew"
    assert pending_comparisons(project) == [], "what the closed test asked is taken back"
    assert read_replies(project) == []


def test_an_answer_after_its_deadline_comes_too_late_and_the_test_goes_on(project, serving, monkeypatch):
    better = version(project, "Better.")
    answers = {serving: lambda n: "No.", better: lambda n: f"Yes, {n}."}
    gate(project, serving, answers)
    state = TrialState.from_json(read_open_test(project, better))
    past = [p.model_copy(update={"asked_at": p.asked_at - timedelta(days=15)}) for p in state.plays]
    write_open_test(project, better, state.model_copy(update={"plays": tuple(past)}).to_json())
    late = people_say(project, lambda one: one.startswith("Yes"))
    gated, _ = gate(project, serving, answers)
    verdict = gated.judged[0].verdict
    assert verdict.decision == "continue"
    assert verdict.n_labelled == 0
    assert verdict.n_waiting > len(late), "and others are asked"


def test_several_versions_of_one_case_are_one_question_and_its_answer_counts_in_every_test(project, serving):
    one, two = version(project, "One."), version(project, "Two.")
    answers = {serving: lambda n: "No.", one: every_fourth("Yes."), two: every_fourth("Perhaps.")}
    answers[serving] = lambda n: "No." if n % 4 == 0 else "We see to it."
    gate(project, serving, answers)
    questions = people_say(project, lambda said: said == "Yes.")
    assert {tuple(sorted(question.answers)) for question in questions} == {("No.", "Perhaps.", "Yes.")}
    gated, _ = gate(project, serving, answers)
    verdicts = {judged.candidate_id: judged.verdict for judged in gated.judged}
    assert verdicts[one].gain > 0.05
    assert (verdicts[two].gain, verdicts[two].n_labelled) == (0, len(questions))
    assert looked_at(project, one) == looked_at(project, two)


def test_answers_that_count_as_the_same_are_audited_and_one_that_people_tell_apart_blocks(project, serving):
    better = version(project, "Better.")
    answers = {serving: lambda n: "No", better: lambda n: "NO." if n % 3 else "Yes."}
    asked = []
    for _ in range(12):
        gated, _ = gate(project, serving, answers, rules=ALL_AUDITED)
        questions = people_say(project, lambda one: one in ("NO.", "Yes."))
        asked += questions
        if not questions:
            break
    (judged,) = gated.judged
    audits = [question for question in asked if question.audit]
    assert {tuple(sorted(question.answers)) for question in audits} == {("NO.", "No")}
    assert len(audits) == judged.verdict.n_alike
    assert judged.verdict.decision == "continue"
    (blocked,) = judged.verdict.blocked_by
    assert "people saw a difference in" in blocked
    assert judged.verdict.e_value >= judged.verdict.threshold, "without the audit it would be proven"
