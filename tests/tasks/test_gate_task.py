"""The gate as the flow calls it, on a real registry: scripted versions, faults, kills, and several proven at once."""

from collections import Counter
from datetime import UTC, datetime
from functools import partial

import pytest
from tests.evidence import give_verdict

from ratchet.agent.candidate import Candidate, Predictor
from ratchet.agent.case import Case
from ratchet.agent.environment import Action, Outcome
from ratchet.agent.trace import Attempt, RunError, Step, Trace
from ratchet.evaluation.data.cases import LabelledCase
from ratchet.evaluation.data.raters import RaterSettings
from ratchet.evaluation.gate.gate import Pair, decide
from ratchet.evaluation.gate.settings import GateSettings
from ratchet.evaluation.gate.trial import TrialState
from ratchet.infra.registry.gate_cases import read_open_test, spent_cases, write_open_test
from ratchet.infra.registry.ledger import open_ledger_test, read_ledger
from ratchet.infra.registry.registry import (
    champion,
    promote,
    record_evaluation,
    register,
    roll_back,
    version_history,
)
from ratchet.infra.store.dataset_store import write_dataset
from ratchet.infra.traces.write import log_traces
from ratchet.tasks.collect import collect_new
from ratchet.tasks.curate import RoundData
from ratchet.tasks.gate import Players, hold
from ratchet.tasks.people import People
from ratchet.tasks.promote import promote_best
from ratchet.tasks.trials import GateTests

NOW = datetime(2026, 11, 1, tzinfo=UTC)
NOBODY = partial(People, rules=RaterSettings())
RULES = GateSettings(min_cases=8, batch=8)


def version(project, instructions, seen=()):
    candidate = Candidate(predictors={"act": Predictor(instructions=instructions)}, base_model="tiny")
    register(project, candidate, files={}, seen_case_ids=list(seen), cost={})
    return candidate.candidate_id


def case(number, session=None):
    return LabelledCase(
        case=Case(inputs={"request": f"{number:03d}{chr(97 + number % 26) * 9} {number * 7919 % 9973}"}),
        trace_id=f"{number:032x}",
        candidate_id="c",
        role="gate",
        propensity=1.0,
        session_id=session,
        source="human",
        answer="right",
    )


def round_data(cases, serving):
    labelled = write_dataset("labelled", cases)
    return RoundData(
        training=labelled,
        labelled=labelled,
        rollouts=labelled,
        imported=labelled,
        champion=serving,
        n_human=0,
        left_out={},
    )


class Killed(BaseException):
    """What kill -9 is to the rest of the program: nothing after it runs."""


class Scripted(Players):
    """Versions whose score at a case is written down: a number, None = not scored, or why it broke."""

    def __init__(self, name, data, **scores):
        super().__init__("", name, data.labelled)
        self.scores = scores
        self.calls = Counter()
        self.order = {}
        self.kill_after = None

    def play(self, candidate_id, case_ids, *, again=False):
        if self.kill_after is not None and sum(self.calls.values()) >= self.kill_after:
            raise Killed
        self.calls[candidate_id] += len(case_ids)
        if not again:
            self.order.setdefault(candidate_id, []).extend(case_ids)
        return [self.trace(candidate_id, i, again) for i in case_ids]

    def trace(self, candidate_id, case_id, again):
        rule = self.scores[candidate_id]
        score = rule(case_id, again) if callable(rule) else rule
        error = None
        if isinstance(score, str):
            error, score = RunError(kind="infrastructure", message=score), None
        step = Step(observation="o", action=Action(name="right" if score else "wrong"))
        return Trace(
            trace_id=case_id.rjust(32, "0"), case=BY_ID[case_id].case, candidate_id=candidate_id, started_at=NOW,
            latency_s=0.1, error=error, attempts=(Attempt(steps=(step,), outcome=Outcome(score=score)),),
        )  # fmt: skip


CASES = [case(n) for n in range(64)]
BY_ID = {c.case_id: c for c in [case(n) for n in range(200)]}
IDS = sorted(c.case_id for c in CASES)


@pytest.fixture
def serving(project):
    first = version(project, "The first.")
    promote(project, first, approved_by="ratchet", reason="the first version")
    return first


def gate(project, serving, scores, *, cases=CASES, rules=RULES, kill_after=None):
    data = round_data(cases, serving)
    players = Scripted(project, data, **scores)
    players.kill_after = kill_after
    challengers = [one for one in scores if one != serving]
    return hold(project, data, challengers, rules, players), players


def killed(project, serving, scores, after):
    data = round_data(CASES, serving)
    players = Scripted(project, data, **scores)
    players.kill_after = after
    with pytest.raises(Killed):
        hold(project, data, [one for one in scores if one != serving], RULES, players)
    return players


def decided(project):
    return [(entry.candidate, entry.decision) for entry in read_ledger(project).entries]


def looked_at(project, challenger):
    return {play.case_id for play in TrialState.from_json(read_open_test(project, challenger)).plays}


def test_a_proven_challenger_is_promoted_and_its_cases_never_judge_again(project, serving):
    better = version(project, "Better.")
    gated, _ = gate(project, serving, {serving: 0.0, better: 1.0})
    (judged,) = gated.judged
    assert (judged.verdict.decision, judged.stopped, gated.problems) == ("promote", "", ())
    used = set(IDS[: judged.verdict.n_labelled])
    assert spent_cases(project) == used
    assert promote_best.fn(project, gated, approved_by="a policy").promoted
    assert champion(project).candidate_id == better
    tests = GateTests(project, round_data(CASES, better), GateSettings(), NOBODY(project))
    assert {c.case_id for c in tests.fresh([])} == {c.case_id for c in CASES} - used


@pytest.mark.parametrize("seen", ["an imported run", "a run without a label"])
def test_a_case_nearly_the_same_as_one_that_a_candidate_recalls_does_not_judge_it(
    project, serving, make_trace, seen
):
    near = Case(inputs={"request": f"{CASES[0].case.inputs['request']}.", "task": "7"})
    run = make_trace(case=near, candidate_id="imported:old" if seen == "an imported run" else "c", score=1.0)
    log_traces(project, [run])
    collect_new.fn(project)
    taught = version(project, "Taught.", seen=[near.case_id, "no hash"])
    tests = GateTests(project, round_data(CASES, serving), GateSettings(), NOBODY(project))
    assert {c.case_id for c in CASES} - {c.case_id for c in tests.fresh([taught])} == {CASES[0].case_id}


def test_alpha_and_spending_are_fixed_by_the_first_test_and_another_one_is_told(project, serving):
    first, second = version(project, "One."), version(project, "Two.")
    gate(
        project,
        serving,
        {serving: 0.0, first: 0.0},
        rules=GateSettings(min_cases=2, alpha=0.02, spending="e-LOND"),
    )
    gated, _ = gate(project, serving, {serving: 0.0, second: 0.0}, rules=GateSettings(min_cases=2, alpha=0.3))
    ledger = read_ledger(project)
    assert (ledger.alpha, ledger.spending) == (0.02, "e-LOND")
    assert gated.problems[0].startswith("gate.alpha = 0.3, gate.spending = family-wise: without effect")


def test_sessions_are_one_bet_each_and_no_batch_cuts_one(project, serving):
    better = version(project, "Better.")
    sessions = [case(n, session=f"s{n // 8}") for n in range(80)]
    gated, players = gate(project, serving, {serving: 0.0, better: 1.0}, cases=sessions)
    (judged,) = gated.judged
    assert judged.verdict.n_labelled == 8 * judged.verdict.n_bets
    played = [BY_ID[i].case.inputs["request"][:3] for i in players.order[better]]
    assert [len({int(n) // 8 for n in played[k : k + 8]}) for k in range(0, len(played), 8)] == [1] * (
        len(played) // 8
    )


def test_a_champion_that_cannot_be_run_opens_no_test(project, serving):
    better = version(project, "Better.")
    gated, players = gate(project, serving, {serving: "connection refused", better: "connection refused"})
    assert "the champion could not be run at any of 8 cases (connection refused)" in gated.problems[0]
    assert (decided(project), spent_cases(project), players.calls[better]) == ([], frozenset(), 0)


def test_a_dead_endpoint_stops_the_test_before_the_batch_and_the_next_run_goes_on(project, serving):
    better = version(project, "Better.")
    dies = set(IDS[8:])

    def until(score):
        return lambda case_id, again: "connection refused" if case_id in dies else score

    gated, _ = gate(project, serving, {serving: until(0.0), better: until(0.5)})
    (judged,) = gated.judged
    assert (judged.verdict.decision, judged.verdict.n_labelled) == ("continue", 8)
    assert "stopped" in judged.stopped
    assert gated.problems == (judged.stopped,)
    assert (decided(project), spent_cases(project)) == ([(better, None)], frozenset())
    decision = promote_best.fn(project, gated, approved_by="a policy")
    assert decision.reason.endswith("(1 test stays open); the champion stays")
    # repaired; this round's proposers made nothing new
    data = round_data(CASES, serving)
    players = Scripted(project, data, **{serving: 0.0, better: 1.0})
    gated = hold(project, data, [], RULES, players)
    assert gated.best.candidate_id == better
    assert players.order[better][0] == IDS[8]
    assert decided(project) == [(better, "promote")]
    assert gated.judged[0].verdict.n_labelled == len(spent_cases(project))


def test_what_both_sides_broke_on_is_left_out_and_stays_free(project, serving):
    better = version(project, "Better.")

    def shaky(score):
        return lambda case_id, again: "gone" if case_id == IDS[3] else score

    gated, _ = gate(project, serving, {serving: shaky(0.0), better: shaky(1.0)})
    (judged,) = gated.judged
    assert judged.verdict.excluded == {"infrastructure failed on both sides": 1}
    assert IDS[3] not in spent_cases(project)
    assert spent_cases(project) >= {*IDS[:3], IDS[4]}


def test_what_a_challenger_alone_breaks_on_twice_is_its_loss_and_a_blip_is_played_again(project, serving):
    worse, blinked = version(project, "Worse."), version(project, "Blinked.")
    scores = {
        serving: 1.0,
        worse: "refused its prompt",
        blinked: lambda case_id, again: 1.0 if again else "blip",
    }
    gated, players = gate(project, serving, scores)
    verdicts = {judged.candidate_id: judged.verdict for judged in gated.judged}
    assert (verdicts[worse].decision, verdicts[worse].gain, verdicts[worse].excluded) == ("reject", -1.0, {})
    assert (verdicts[blinked].decision, verdicts[blinked].gain) == ("continue", 0.0)
    assert players.calls[blinked] == 2 * len(CASES)


@pytest.mark.parametrize("after", [8, 24, 48])
def test_a_killed_test_goes_on_in_its_own_order_without_playing_a_bet_again(project, serving, after):
    fair = version(project, "As good.")
    begun = killed(project, serving, {serving: 0.0, fair: 0.0}, after)
    assert decided(project) in ([], [(fair, None)])
    new = [case(n) for n in range(64, 72)]
    gated, players = gate(project, serving, {serving: 0.0, fair: 0.0}, cases=[*new, *CASES])
    settled = [] if read_open_test(project, fair) is None else begun.order.get(fair, [])
    order = [*settled, *players.order[fair]]
    assert len(order) == len(set(order)) == 72
    if decided(project)[0][1] and after > 8:
        assert order[:64] == IDS
        assert set(order[64:]) == {c.case_id for c in new}
    assert gated.judged[0].verdict.n_labelled == 72
    assert gated.judged[0].stopped == "no fresh cases are left: it goes on with what comes in"
    assert decided(project) == [(fair, None)], "one test, which stays open"
    assert looked_at(project, fair) == set(order)


def test_a_test_against_an_earlier_champion_is_given_up_and_its_cases_judge_no_more(project, serving):
    fair, better = version(project, "As good."), version(project, "Better.")
    killed(project, serving, {serving: 0.0, fair: 0.0}, 40)
    proof = decide([Pair(case_id=str(n), champion=0, challenger=1) for n in range(40)], alpha=0.001)
    give_verdict(project, better, serving, proof, {})
    promote(project, better, approved_by="anna", reason="read the evidence")
    gated, players = gate(project, better, {better: 0.0, fair: 0.0})
    assert gated.problems == (f"the open test of {fair} was given up: the champion changed",)
    assert decided(project) == [(fair, "continue"), (better, "promote"), (fair, None)]
    assert players.order[fair] == IDS[16:]
    assert (spent_cases(project), looked_at(project, fair)) == (set(IDS[:16]), set(IDS[16:]))


def test_a_stored_test_that_cannot_be_read_is_given_up_and_the_round_goes_on(project, serving):
    fair, better = version(project, "As good."), version(project, "Better.")
    killed(project, serving, {serving: 0.0, fair: 0.0}, 40)
    state = TrialState.from_json(read_open_test(project, fair))
    write_open_test(project, fair, state.model_copy(update={"gate": '{"schema": 1}'}).to_json())
    gated, _ = gate(project, serving, {serving: 0.0, better: 1.0})
    assert "given up: gate state has schema 1" in gated.problems[0]
    assert decided(project) == [(fair, "continue"), (better, "promote")]
    assert spent_cases(project) >= set(IDS[:16])


def test_of_several_proven_the_best_on_the_cases_of_the_latest_stop_is_promoted(project, serving):
    """`lucky` wins its first cases and is proven first; up to the stop of `steady` it is the worse one."""
    lucky, steady = version(project, "Lucky."), version(project, "Steady.")
    scores = {
        serving: 0.0,
        lucky: lambda case_id, again: float(IDS.index(case_id) < 12),
        steady: lambda case_id, again: float(IDS.index(case_id) % 4 > 0),
    }
    gated, players = gate(project, serving, scores)
    verdicts = {judged.candidate_id: judged.verdict for judged in gated.judged}
    assert {verdict.decision for verdict in verdicts.values()} == {"promote"}
    assert verdicts[lucky].n_labelled < verdicts[steady].n_labelled
    assert players.calls[lucky] == verdicts[steady].n_labelled
    used = spent_cases(project)
    decision = promote_best.fn(project, gated, approved_by="a policy")
    assert champion(project).candidate_id == decision.best == steady
    assert f"best of 2 proven on {verdicts[steady].n_labelled} common cases" in decision.reason
    # the other meets the new champion, in a test of its own, on cases that neither has judged
    gated, players = gate(project, steady, {steady: 1.0, lucky: 0.0})
    assert [(e.candidate, e.champion) for e in read_ledger(project).entries][2:] == [(lucky, steady)]
    assert gated.judged[0].verdict.decision == "reject"
    assert not set(players.order[lucky]) & used
    again, _ = gate(project, steady, {steady: 1.0})
    assert again.judged == (), "and is not tested once more"


def test_a_challenger_that_was_proven_before_a_kill_is_promoted_by_the_next_run(project, serving):
    better = version(project, "Better.")
    gate(project, serving, {serving: 0.0, better: 1.0})
    gated, players = gate(project, serving, {serving: 0.0, better: 1.0})
    assert (gated.judged, players.calls[better], len(read_ledger(project).entries)) == ((), 0, 1)
    assert promote_best.fn(project, gated, approved_by="a policy").promoted
    assert champion(project).candidate_id == better


def test_a_kill_between_ledger_and_page_loses_no_verdict(project, serving):
    better = version(project, "Better.")
    gated, _ = gate(project, serving, {serving: 0.0, better: 1.0})
    verdict = gated.judged[0].verdict
    lost = verdict.model_copy(update={"decision": "continue", "e_value": 1.0})
    record_evaluation(project, better, scores={}, verdict=lost, compared_with=serving)
    gated, _ = gate(project, serving, {serving: 0.0})
    assert gated.best.candidate_id == better
    assert next(v for v in version_history(project) if v.candidate_id == better).verdict == verdict


def test_one_that_a_person_took_back_is_not_promoted_again_by_the_next_run(project, serving):
    better = version(project, "Better.")
    gated, _ = gate(project, serving, {serving: 0.0, better: 1.0})
    promote_best.fn(project, gated, approved_by="a policy")
    roll_back(project, by="anna", reason="complaints")
    gated, _ = gate(project, serving, {serving: 0.0})
    assert gated.best is None
    assert not promote_best.fn(project, gated, approved_by="a policy").promoted
    assert champion(project).candidate_id == serving


def test_where_no_budget_is_left_what_was_proven_before_is_still_promoted(project, serving):
    better, late = version(project, "Better."), version(project, "Late.")
    small = RULES.model_copy(update={"alpha": 1e-4})
    gate(project, serving, {serving: 0.0, better: 1.0}, rules=small)
    while not read_ledger(project).exhausted:
        open_ledger_test(project, f"another {len(read_ledger(project).entries)}", champion="another")
    gated, players = gate(project, serving, {serving: 0.0, late: 1.0}, rules=small)
    assert (gated.judged, gated.best.candidate_id, players.calls[late]) == ((), better, 0)
    assert "error budget exhausted" in gated.problems[0]
