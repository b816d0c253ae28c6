"""`improve` on a scripted project: a real Prefect server, a real MLflow over SQLite, the real embedded LM.

Where no answer matters a scripted endpoint gives them, which takes half the time.
"""

import json
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from tests.evidence import give_verdict

from ratchet.agent.case import Case
from ratchet.agent.errors import BadInput, ServiceUnavailable
from ratchet.agent.memory.ranking import Query
from ratchet.agent.memory.snapshot import Memory
from ratchet.agent.trace import Trace
from ratchet.evaluation.data.cases import LabelledCase, role_of
from ratchet.evaluation.data.labels import Label
from ratchet.evaluation.data.selection import SelectionSettings
from ratchet.evaluation.gate.gate import Pair, decide
from ratchet.evaluation.gate.settings import GateSettings
from ratchet.flows.improve import improve
from ratchet.flows.project_settings import ImproveSettings
from ratchet.infra.registry.forgotten import forget_entries
from ratchet.infra.registry.ledger import read_ledger
from ratchet.infra.registry.registry import champion, fetch_files, promote, seen_case_ids, version_history
from ratchet.infra.review.queue import answer, pending
from ratchet.infra.review.rounds import read_round
from ratchet.infra.store.dataset_store import read_dataset
from ratchet.infra.store.memory_entries import remembered_by
from ratchet.infra.store.project_state import project_folder
from ratchet.infra.traces.write import attach_label, collect, spool_folder
from ratchet.tasks.collect import collect_new

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("prefect_server")]

PROVEN = decide(
    [Pair(case_id=str(n), champion=0.0, challenger=float(n % 10 > 0)) for n in range(100)], alpha=0.005
)
RULES = ImproveSettings(
    selection=SelectionSettings(gate_labels=100), gate=GateSettings(min_cases=2), approved_by="a policy"
)


def requests(n: int) -> list[str]:
    """Half of them are for `left`, half for `right`; no two are nearly the same."""
    return [f"{number:03d}{chr(97 + number) * 9} goes {('left', 'right')[number % 2]}" for number in range(n)]


def answer_all(name: str, expected: str = "left", rater: str = "anna") -> int:
    waiting = pending(name)
    for item in waiting:
        answer(name, item.trace_id, expected=expected, rater=rater)
    return len(waiting)


@pytest.mark.parametrize("scores_itself", [True, False])
def test_an_empty_week_spends_no_test_and_says_so(make_project, scores_itself):
    ours = make_project(scores_itself=scores_itself)
    report = improve(str(ours.folder), RULES)
    assert (report.served, report.asked.n_asked, report.judged) == (0, 0, ())
    assert "no challenger was tested" in report.decision.reason
    assert "the champion stays" in report.decision.reason
    assert read_ledger(ours.name).current == ()
    assert champion(ours.name).number == 1


def test_a_week_is_served_once_and_every_test_stands_in_the_ledger(make_project):
    ours = make_project()
    ours.ask(*requests(20))
    report = improve(str(ours.folder), RULES)
    assert report.served == 20
    assert len(collect(ours.name).traces) == 20
    assert [entry.candidate for entry in read_ledger(ours.name).current] == [
        judged.candidate_id for judged in report.judged
    ]
    seen = {v.candidate_id: v for v in version_history(ours.name)}
    assert all(seen[judged.candidate_id].reason == judged.verdict.reason for judged in report.judged)
    again = improve(str(ours.folder), RULES)
    assert again.served == 0
    assert len(collect(ours.name).traces) == 20


def test_it_stops_while_people_work_and_goes_on_with_their_answers(make_project):
    ours = make_project(scores_itself=False)
    ours.ask(*requests(16))
    first = improve(str(ours.folder), RULES)
    assert first.asked.n_waiting == first.asked.n_asked == 16
    assert first.data is None
    assert first.decision.reason == "16 of 16 questions wait for people: answer them, then run again"
    assert answer_all(ours.name) == 16
    second = improve(str(ours.folder), RULES)
    assert (second.served, second.asked.n_waiting) == (0, 0)
    gate_side = second.data.left_out["reserved for the gate"]
    assert second.data.n_human + gate_side == 16
    assert read_round(ours.name).picks == ()


def test_contradicting_labels_are_left_out_and_reported(make_project):
    ours = make_project(scores_itself=False)
    ours.ask(*requests(12))
    improve(str(ours.folder), RULES)
    disputed = pending(ours.name)[0].trace_id
    answer_all(ours.name)
    answer(ours.name, disputed, expected="right", rater="ben")
    report = improve(str(ours.folder), RULES)
    known = [one for one in read_dataset(report.data.labelled, LabelledCase) if one.source == "human"]
    assert len(known) == 11, "on the gate's side it stays as a case of which nobody knows the answer"
    assert disputed not in {one.trace_id for one in known}
    assert report.data.left_out["people contradict each other"] == 1
    said = [label.rater for label in collect(ours.name).labels if label.trace_id == disputed]
    assert sorted(said) == ["anna", "ben"]


def test_a_label_for_an_unknown_trace_is_kept_and_every_run_says_so(make_project):
    ours = make_project()
    ours.ask(*requests(2))
    stray = Label(
        trace_id="f" * 32, expected="left", source="human", rater="anna", created_at=datetime.now(UTC)
    )
    improve(str(ours.folder), RULES)
    with pytest.raises(Exception, match="which MLflow lacks"):
        attach_label(ours.name, stray)
    report = improve(str(ours.folder), RULES)
    assert any("f" * 32 in problem and "does not have" in problem for problem in report.problems)
    assert "f" * 32 in (spool_folder(ours.name) / "labels.jsonl").read_text()


def test_when_mlflow_goes_away_while_serving_the_next_run_sends_what_was_kept(make_project, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # restored at the end, whatever the environment sets
    ours = make_project()
    ours.ask("MLflow goes away left", "another right")
    with pytest.raises(ServiceUnavailable, match="2 traces are kept in"):
        improve(str(ours.folder), RULES)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert collect_new.fn(ours.name).n_new_traces == 2
    assert len(collect(ours.name).traces) == 2
    assert not (spool_folder(ours.name) / "traces.jsonl").read_text()


def test_a_person_approves_unless_a_policy_does(make_project, scripted_lm):
    ours = make_project()
    ours.ask(*requests(24))
    report = improve(str(ours.folder), RULES.model_copy(update={"approved_by": None}))
    assert not report.decision.promoted
    assert champion(ours.name).number == 1


def test_what_a_person_had_forgotten_is_left_out_of_a_version_that_is_tested_and_not_proposed_again(
    make_project, scripted_lm
):
    ours = make_project()
    ours.ask(*requests(24))
    improve(str(ours.folder), RULES)
    remembers = version_history(ours.name)[-1].candidate_id
    give_verdict(ours.name, remembers, champion(ours.name).candidate_id, PROVEN, {})
    promote(ours.name, remembers, approved_by="anna", reason="for the test")
    known = remembered_by(ours.name, remembers)
    forget_entries(ours.name, known[:1], by="anna", reason="stale")
    ours.ask(*requests(40)[24:])
    report = improve(str(ours.folder), RULES)
    assert report.data.left_out["people had it forgotten"] == 1
    made = {
        v.candidate.origin.proposer: v for v in version_history(ours.name) if v.candidate.parent == remembers
    }
    assert made["forget"].candidate_id in {one.candidate_id for one in report.judged}, report.problems
    kept = {one.entry_id for one in remembered_by(ours.name, made["forget"].candidate_id)}
    assert kept == {one.entry_id for one in known[1:]}
    again = {one.entry_id for one in remembered_by(ours.name, made["replay"].candidate_id)}
    assert known[0].entry_id not in again


BROKEN = """
from ratchet.agent.record import Record

class Broken(Record):
    name: str = "broken"

    def propose(self, parent, evidence, work):
        return 1 / 0
"""


def test_a_proposer_that_fails_is_a_problem_and_what_others_made_is_judged(make_project, scripted_lm):
    ours = make_project(begin=BROKEN, proposers="Broken(), Replay()")
    ours.ask(*requests(24))
    report = improve(str(ours.folder), RULES)
    assert [one.candidate_id for one in report.judged] == [version_history(ours.name)[-1].candidate_id]
    (problem,) = report.problems
    assert problem.startswith(
        "proposer broken made nothing: ZeroDivisionError: division by zero; its traceback"
    )
    assert "in propose" in Path(problem.rpartition(" is in ")[2]).read_text()


OWN = """
from dataclasses import dataclass
from ratchet import Proposal

@dataclass(frozen=True)
class Rule:
    rule: str = "Say left where the request says left."
    name: str = "rule"

    def propose(self, parent, evidence, work):
        prompts = dict(parent.candidate.predictors)
        told = prompts["choose"].instructions + " " + self.rule
        prompts["choose"] = prompts["choose"].model_copy(update={"instructions": told})
        candidate = parent.candidate.model_copy(update={"predictors": prompts})
        return None if self.rule in told[: -len(self.rule)] else Proposal(candidate=candidate, note="A rule.")
"""


def test_a_users_own_proposer_in_15_lines_makes_a_challenger_that_meets_the_gate(make_project):
    assert len([line for line in OWN.splitlines() if line]) <= 15
    ours = make_project(begin=OWN, proposers="Rule(), Replay()")
    ours.ask(*requests(24))
    report = improve(str(ours.folder), RULES.model_copy(update={"proposers": ("rule",)}))
    first, made = version_history(ours.name)
    (judged,) = report.judged
    assert judged.candidate_id == made.candidate_id
    assert (made.candidate.origin.proposer, made.reason) == ("rule", judged.verdict.reason)
    assert made.candidate.origin.parameters["rule"] == "Say left where the request says left."
    assert made.candidate.predictors["choose"].instructions.endswith("says left.")
    assert made.candidate.parent == first.candidate_id
    assert seen_case_ids(ours.name, made.candidate_id) == frozenset(), "it looked at no case"


def test_a_changed_setting_or_a_changed_file_runs_a_proposer_again_and_nothing_else_does(make_project):
    counting = BROKEN.replace(
        "return 1 / 0",
        """
        with (work.folder / "runs").open("a") as runs:
            runs.write("x")
""",
    )
    ours = make_project(begin=counting, proposers="Broken()")
    ours.ask(*requests(4))
    runs = []
    for change in ("", "", "# a comment"):
        file = ours.folder / "project.py"
        file.write_text(file.read_text() + change)
        report = improve(str(ours.folder), RULES)
        assert report.nothing_new == {"broken": "found nothing better than what serves"}
        runs.append(len((project_folder(ours.name) / "runs").read_text()))
    assert runs == [1, 1, 2]


def test_an_unknown_proposer_is_refused_before_anything_is_done(make_project):
    ours = make_project()
    ours.ask(*requests(2))
    with pytest.raises(BadInput, match="the project has no proposer 'lora': name some of replay"):
        improve(str(ours.folder), RULES.model_copy(update={"proposers": ("lora",)}))
    assert version_history(ours.name) == []


def test_only_so_many_are_asked_as_the_settings_say(make_project):
    ours = make_project(scores_itself=False)
    ours.ask(*requests(48))  # whatever the project is called, both sides have enough
    few = SelectionSettings(gate_labels=2, train_labels=3)
    report = improve(str(ours.folder), RULES.model_copy(update={"selection": few}))
    assert report.asked.n_asked == len(pending(ours.name)) == 5


RUNS = """
from ratchet import Reflections, Trajectories
"""


def test_whole_runs_become_corrections_and_a_memory_of_trajectories(make_project):
    ours = make_project(begin=RUNS, proposers="Trajectories(), Reflections()")
    ours.ask(*requests(24))
    report = improve(str(ours.folder), RULES)
    made = {v.candidate.origin.proposer: v for v in version_history(ours.name)}
    assert {judged.candidate_id for judged in report.judged} == {
        made[name].candidate_id for name in ("trajectories", "reflections")
    }
    assert made["trajectories"].candidate.memory is not None
    assert made["reflections"].candidate.predictors["choose"].demos
    rollouts = read_dataset(report.data.rollouts, Trace)
    taught = seen_case_ids(ours.name, made["trajectories"].candidate_id)
    assert taught <= {run.case.case_id for run in rollouts}
    gate = {case.case_id for case in read_dataset(report.data.labelled, LabelledCase) if case.role == "gate"}
    assert gate
    assert not gate & {run.case.case_id for run in rollouts}


def test_runs_that_won_at_once_teach_nothing_and_cost_no_test(make_project):
    ours = make_project(begin=RUNS, proposers="Reflections()")
    side_of = partial(role_of, gate_share=RULES.selection.gate_share, salt=ours.name)  # the name decides
    texts = [f"number {n} goes left or right" for n in range(99)]  # whatever is done is right
    ours.ask(next(text for text in texts if side_of(Case(inputs={"request": text}).case_id) == "train"))
    report = improve(str(ours.folder), RULES)
    assert report.judged == ()
    assert "runs won after a reflection: allow retries" in report.nothing_new["reflections"]


def imported_log(path, task, *texts):
    """A log of another agent that went the right way each time."""
    lines = []
    for text in texts:
        call = {"id": "1", "function": {"name": text.split()[-1], "arguments": "{}"}}
        said = [
            {"role": "user", "content": text},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "1", "content": "done"},
        ]
        lines.append(json.dumps({"model": "old-agent", "reward": 1.0, "task_id": task, "messages": said}))
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("proposer", ["Replay", "Trajectories"])
def test_an_imported_log_is_recalled_by_the_candidate_that_improve_makes_and_its_papers_say_so(
    make_project, ratchet, tmp_path, proposer
):
    ours, asked = make_project(begin=RUNS, proposers=f"{proposer}()"), requests(24)
    side_of = partial(role_of, gate_share=RULES.selection.gate_share, salt=ours.name)
    teaches, judges = (
        next(task for task in map(str, range(50)) if side_of("", session_id=task) == side)
        for side in ("train", "gate")
    )
    on_gate = next(t for t in asked if side_of(Case(inputs={"request": t}).case_id) == "gate")
    for log in (
        imported_log(tmp_path / "a.jsonl", teaches, "aquamarine heron goes left", f"{on_gate}"),
        imported_log(tmp_path / "b.jsonl", judges, "crimson pelican goes left"),
    ):
        done = ratchet("import", log, "--format", "openai-chat", "--project", ours.folder)
        assert done.returncode == 0, done.stderr
    ours.ask(*asked)
    improve(str(ours.folder), RULES)
    made = version_history(ours.name)[-1]
    memory = Memory.load(fetch_files(ours.name, made.candidate_id)["memory"])
    theirs = [step for step in memory.experiences if step.imported_from]
    assert [step.observation for step in theirs] == ["aquamarine heron goes left"], (
        "the gate's side stays unseen"
    )
    (found,) = memory.recall(Query(observation="aquamarine heron goes where?"), k=1)
    assert (found.experience.action, found.experience.imported_from) == ("left", "imported:old-agent")
    assert {step.case_id for step in theirs} <= seen_case_ids(ours.name, made.candidate_id)
    assert ", 1 of them from imported logs of old-agent" in made.candidate.origin.note


def test_another_lm_is_a_challenger_that_the_gate_tests(make_project, scripted_lm):
    ours = make_project()
    ours.ask(*requests(24))
    rules = RULES.model_copy(update={"model": "openai/other"})
    report = improve(str(ours.folder), rules)
    (first, made) = version_history(ours.name)
    (judged,) = report.judged
    assert (judged.candidate_id, made.candidate.base_model) == (made.candidate_id, "openai/other")
    assert (made.candidate.parent, made.compared_with) == (first.candidate_id, first.candidate_id)
    assert champion(ours.name).candidate_id == first.candidate_id, "equal is not better"
    again = improve(str(ours.folder), rules.model_copy(update={"model": "openai/scripted"}))
    assert again.nothing_new == {"model": "found nothing better than what serves"}
    assert [one.candidate_id for one in again.judged] == [made.candidate_id], "its test stays open"
