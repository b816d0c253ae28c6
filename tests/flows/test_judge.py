"""The judge in the loop: made from people's words, audited on random picks, licensed, teaching, and stopped."""

import json
import uuid
from datetime import UTC, datetime

import pytest

from ratchet.agent.case import Case
from ratchet.agent.environment import Action, Outcome
from ratchet.agent.project import load_project
from ratchet.agent.trace import Attempt, Step, Trace
from ratchet.evaluation.data.curate import CurateSettings
from ratchet.evaluation.data.labels import Label
from ratchet.evaluation.data.selection import AT_RANDOM
from ratchet.evaluation.judge.settings import JudgeSettings
from ratchet.infra.judge.store import load_judge_document, read_licence
from ratchet.infra.mlflow_client import connect, mlflow_errors
from ratchet.infra.review.queue import ReviewItem, ask_people, existing_queue, queue_items
from ratchet.infra.review.rounds import ask_in_round, read_round
from ratchet.infra.store.collected import keep_labels, keep_traces, newest_grades
from ratchet.infra.store.dataset_store import read_dataset
from ratchet.infra.traces.write import log_traces
from ratchet.tasks.collect import Collection
from ratchet.tasks.curate import TrainingExample, curate_round
from ratchet.tasks.judge import judge_traces
from ratchet.tasks.serve import first_champion

GATE = 1e-9
"""Share of the gate: here everything teaches."""
RULES = JudgeSettings(rate_floor=0.6, kappa_floor=0.2, alpha=0.4, rubric_version="1")


def trace(number: int) -> Trace:
    """Every third answer is wrong: it says the other side."""
    side = "left" if number % 2 else "right"
    said = side if number % 3 else ("right" if side == "left" else "left")
    step = Step(observation="", action=Action(name=said), confidence=0.5)
    return Trace(
        trace_id=uuid.uuid5(uuid.NAMESPACE_OID, str(number)).hex,
        case=Case(inputs={"request": f"please go {side}, it is number {number}"}, slice="chat"),
        candidate_id="c0ffee",
        started_at=datetime.now(UTC),
        latency_s=0.1,
        attempts=(Attempt(steps=(step,), outcome=Outcome()),),
    )


def label(number: int, rater: str = "anna") -> Label:
    return Label(
        trace_id=trace(number).trace_id,
        expected="left" if number % 2 else "right",
        source="human",
        rater=rater,
        created_at=datetime.now(UTC),
    )


def answered_at_random(name: str, numbers: range) -> None:
    """Queued as picks drawn at random, and completed by Anna on the Review page."""
    log_traces(name, [trace(n) for n in numbers])
    items = [ReviewItem(trace_id=trace(n).trace_id, propensity=0.3, reason=AT_RANDOM) for n in numbers]
    ask_in_round(name, read_round(name), items)
    ask_people(name, items)
    with mlflow_errors("completing items"):
        from mlflow.genai.review_queues import set_review_queue_item_status

        queue = existing_queue(connect(name))
        assert queue is not None
        for item in queue_items(queue):
            set_review_queue_item_status(
                queue.queue_id, item_id=item.item_id, status="complete", completed_by="anna"
            )


@pytest.mark.slow
def test_a_judge_is_made_audited_licensed_and_teaches_until_the_rubric_changes(make_project, ratchet):
    made = make_project(scores_itself=False)
    folder, name = str(made.folder), made.name
    first_champion(load_project(made.folder))
    done = ratchet("judge", "--project", folder)
    assert (done.returncode, "has no judge: `ratchet improve` makes one from" in done.stderr) == (2, True)
    taught, audited, unlabelled = range(60), range(60, 108), range(108, 138)
    answered_at_random(name, audited)
    collection = Collection(
        traces=keep_traces(name, [trace(n) for n in (*taught, *audited, *unlabelled)]),
        labels=keep_labels(name, [label(n) for n in (*taught, *audited)]),
        n_new_traces=0,
        n_new_labels=0,
    )

    def judged(rules: JudgeSettings) -> list[str]:
        assert judge_traces.fn(folder, collection, rules, GATE) == ()
        return [event.kind for event in read_licence(name).history]

    def training() -> list[TrainingExample]:
        data = curate_round.fn(folder, collection, CurateSettings(), GATE)
        return read_dataset(data.training, TrainingExample)

    assert judged(RULES.model_copy(update={"min_labels": 61})) == []  # sixty labels teach, the others audit
    assert judged(RULES) == ["made", "granted"]
    licence = read_licence(name)
    event = licence.history[-1]
    assert event.n_audits == len(audited)
    assert min(event.tpr, event.tnr) >= RULES.rate_floor
    assert licence.judge_id is not None
    assert load_judge_document(name, licence.judge_id).n_labels == len(taught)
    grades = {one.trace_id: one.score for one in read_dataset(newest_grades(name), Label)}
    assert set(grades) == {trace(n).trace_id for n in (*audited, *unlabelled)}
    approved = {one for one, grade in grades.items() if grade >= 0.5} & {
        trace(n).trace_id for n in unlabelled
    }
    mine = [one for one in training() if one.case.source == "judge"]
    assert {one.case.trace_id for one in mine} == approved
    assert {one.weight for one in mine} == {0.5 * licence.weight}
    assert all(one.case.answer in one.case.case.inputs["request"] for one in mine)

    (made.folder / "ratchet.toml").write_text("[judge]\nrate_floor = 0.6\nkappa_floor = 0.2\nalpha = 0.4\n")
    done = ratchet("judge", "--project", folder, columns=80)
    assert done.returncode == 0
    assert max(map(len, done.stderr.splitlines())) <= 80
    for words in (
        "granted: its labels weigh",
        "licence, every look",
        "corrected by PPI++",
        "made from 60 labels",
    ):
        assert words in done.stderr, done.stderr
    told = json.loads(ratchet("judge", "--project", folder, "--json").stdout)
    assert (told["licensed"], told["whole"]["n"], told["missing"]) == (True, len(audited), [])
    assert told["ppi"]["low"] <= 2 / 3 <= told["ppi"]["high"]

    assert judged(RULES) == ["made", "granted"]  # again: nothing new, and nothing is written
    assert len(read_dataset(newest_grades(name), Label)) == len(grades)

    # a judge's word that somebody wrote into MLflow, in this judge's name, is not its word
    forged = label(120).model_copy(
        update={"source": "judge", "rater": licence.judge_id, "expected": None, "score": 1.0}
    )
    collection = collection.model_copy(update={"labels": keep_labels(name, [forged])})
    assert {one.case.trace_id for one in training() if one.case.source == "judge"} == approved

    changed = RULES.model_copy(update={"rubric_version": "2"})
    assert judged(changed) == ["made", "granted", "lost"]  # no label was given by it: there is no new judge
    assert [one for one in training() if one.case.source == "judge"] == []
    assert judged(RULES.model_copy(update={"kind": "off"})) == ["made", "granted", "lost"]
    done = ratchet("judge", "--project", folder, columns=80)
    assert (done.returncode, "the rubric or the kind of" in done.stderr) == (3, True)


def test_a_project_that_scores_itself_or_has_no_label_needs_no_judge(make_project):
    made = make_project()
    empty = Collection(
        traces=keep_traces(made.name, [trace(1)]),
        labels=keep_labels(made.name, []),
        n_new_traces=1,
        n_new_labels=0,
    )
    assert judge_traces.fn(str(made.folder), empty, RULES, GATE) == ()
    assert read_licence(made.name).history == ()
