"""The gate with a judge, on a real registry and MLflow's review queues: who is asked, and which judge stays in a test."""

from datetime import UTC, datetime

import pytest
from tests.evidence import ledger_events
from tests.tasks.test_gate_people import IDS, NO_AUDIT, gate, people_say
from tests.tasks.test_gate_task import version

from ratchet.agent.case import Case
from ratchet.evaluation.gate.trial import TrialState
from ratchet.evaluation.judge.classifier import made_classifier
from ratchet.evaluation.judge.document import JudgeDocument
from ratchet.evaluation.judge.graded import Graded
from ratchet.evaluation.judge.licence import made
from ratchet.infra.judge.store import keep_judge, read_licence, write_licence
from ratchet.infra.registry.gate_cases import read_open_test
from ratchet.infra.registry.registry import promote

NOW = datetime(2026, 11, 1, tzinfo=UTC)
JUDGED = NO_AUDIT.model_copy(update={"judge": True, "judge_share": 0.5})


def judge_that_learned(right: str, wrong: str) -> JudgeDocument:
    graded = [
        Graded(
            trace_id=f"{n:032x}", case=Case(inputs={"request": f"number {n}"}), answer=right if n % 2 else wrong,
            score=float(n % 2), at=NOW,
        )
        for n in range(40)
    ]  # fmt: skip
    return made_classifier(graded, rubric="r", rubric_version="1")


def new_judge(project: str, document: JudgeDocument) -> str:
    keep_judge(project, document)
    before = read_licence(project)
    write_licence(project, before, made(before, document.judge_id, "1", "from 40 labels", now=NOW))
    return document.judge_id


@pytest.mark.slow
def test_people_are_asked_at_the_drawn_share_and_a_test_keeps_the_judge_that_it_began_with(project):
    serving = version(project, "The first.")
    promote(project, serving, approved_by="ratchet", reason="the first version")
    better = version(project, "Better.")
    answers = {serving: lambda n: "We see to it.", better: lambda n: "Restart it."}
    first = new_judge(project, judge_that_learned("Restart it.", "We see to it."))
    asked = set()
    for n_round in range(12):
        gated, _ = gate(project, serving, answers, rules=JUDGED)
        (judged,) = gated.judged
        if judged.verdict.decision != "continue":
            break
        state = TrialState.from_json(read_open_test(project, better))
        assert state.judge is not None
        assert (state.judge.judge_id, state.judge.share) == (first, 0.5)
        asked |= {one.case.case_id for one in people_say(project, lambda one: one == "Restart it.")}
        if n_round == 0:  # the project's judge changes in the middle of the test
            new_judge(project, judge_that_learned("We see to it.", "Restart it."))
    assert judged.verdict.decision == "promote"
    assert judged.verdict.n_judged > judged.verdict.n_labelled == len(asked)
    assert all(state.judge.draws(one, None) for one in asked)
    seen = {play.case_id for play in state.plays}
    assert {one for one in seen if state.judge.draws(one, None)} == asked & seen
    assert [event.judge for event in ledger_events(project) if event.kind == "open"] == [first]
    assert read_licence(project).n_starts == 2
    assert set(IDS) >= seen
