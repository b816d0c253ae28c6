"""Collecting: idempotent, and what cannot be read is named and left where it is."""

import shutil
from datetime import UTC, datetime

import pytest
from sqlalchemy import create_engine, text

from ratchet.agent.environment import Action, respond
from ratchet.agent.project import Project
from ratchet.agent.trace import Attempt, Step, Trace
from ratchet.evaluation.data.labels import Label
from ratchet.infra.mlflow_client import connect
from ratchet.infra.store.collected import TRACES
from ratchet.infra.store.dataset_log import log_folder
from ratchet.infra.store.dataset_store import read_dataset, read_since, write_dataset
from ratchet.infra.store.experience import open_library
from ratchet.infra.store.project_state import project_folder, update_state
from ratchet.infra.traces import arrivals
from ratchet.infra.traces import read as trace_reader
from ratchet.infra.traces.spans import mlflow_id
from ratchet.infra.traces.write import attach_label, log_traces
from ratchet.tasks.collect import collect_new, scored, traces_by_id


def test_a_corrupt_trace_is_named_at_every_look_until_it_is_set_aside_and_the_others_are_collected(
    project, make_trace, log_corrupt
):
    good = make_trace()
    log_traces(project, [good])
    corrupt = log_corrupt(project)
    first = collect_new.fn(project)
    assert list(traces_by_id(project)) == [good.trace_id]
    (problem,) = first.problems
    assert corrupt in problem
    assert "not a Trace" in problem
    again = collect_new.fn(project)
    assert (again.n_new_traces, again.n_unreadable) == (0, 1)
    assert corrupt in again.problems[0]
    connect(project).client.set_trace_tag(mlflow_id(corrupt), "ratchet.ignore", "a job of ours")
    assert (collect_new.fn(project).n_unreadable, collect_new.fn(project).problems) == (0, ())


def test_a_trace_without_an_outcome_is_collected_as_not_scored(project, make_trace):
    log_traces(project, [make_trace(score=None)])
    assert collect_new.fn(project).n_new_traces == 1
    (trace,) = traces_by_id(project).values()
    assert trace.score is None


def test_collecting_again_finds_nothing_new_and_writes_the_same_dataset(project, make_trace):
    log_traces(project, [make_trace(str(n)) for n in range(3)])
    first, second = collect_new.fn(project), collect_new.fn(project)
    assert (first.n_new_traces, second.n_new_traces) == (3, 0)
    assert first.traces == second.traces


def test_an_empty_project_collects_empty_datasets(project):
    collection = collect_new.fn(project)
    assert (collection.traces.n_rows, collection.labels.n_rows, collection.problems) == (0, 0, ())
    assert read_dataset(collection.traces, Trace) == []


def test_what_won_becomes_experience_and_another_agents_log_is_not_played_again(project, make_trace):
    won, lost, foreign = (
        make_trace("a"),
        make_trace("b", score=0.0),
        make_trace("c", candidate_id="imported:old"),
    )
    log_traces(project, [won, lost, foreign])
    assert collect_new.fn(project).n_new_traces == 2
    assert set(traces_by_id(project)) == {won.trace_id, lost.trace_id}
    with open_library(project) as library:
        assert {step.trace_id for step in library.steps()} == {won.trace_id, foreign.trace_id}


def test_a_person_who_says_later_that_it_was_right_makes_it_experience(project, make_trace):
    trace = make_trace(score=None)
    log_traces(project, [trace])
    collect_new.fn(project)
    said = Label(
        trace_id=trace.trace_id, score=1.0, source="human", rater="anna", created_at=datetime.now(UTC)
    )
    attach_label(project, said)
    collect_new.fn(project)
    with open_library(project) as library:
        assert [(step.trace_id, step.source) for step in library.steps()] == [(trace.trace_id, "human")]


def test_a_judge_makes_nothing_experience(project, make_trace):
    trace = make_trace(score=None)
    log_traces(project, [trace])
    judged = Label(
        trace_id=trace.trace_id, score=1.0, source="judge", rater="j1", created_at=datetime.now(UTC)
    )
    attach_label(project, judged)
    collect_new.fn(project)
    with open_library(project) as library:
        assert list(library.steps()) == []


def test_a_collection_adds_to_what_is_there_and_reads_none_of_it(project, make_trace):
    log_traces(project, [make_trace(str(n)) for n in range(3)])
    first = collect_new.fn(project)
    for path in log_folder(TRACES, project).glob("*.parquet"):
        path.write_bytes(b"")
    log_traces(project, [make_trace("new")])
    second = collect_new.fn(project)
    assert (second.n_new_traces, second.traces.n_rows) == (1, 4)
    (new,) = read_since(second.traces, first.traces.n_rows, Trace)
    assert new.case.inputs["request"] == "new"


def test_datasets_that_were_removed_are_read_again_and_it_is_said(project, make_trace):
    log_traces(project, [make_trace(str(n)) for n in range(3)])
    first = collect_new.fn(project)
    shutil.rmtree(log_folder(TRACES, project))
    second = collect_new.fn(project)
    assert second.traces == first.traces
    assert any("all were read again" in problem for problem in second.problems)
    assert collect_new.fn(project).problems == ()


def test_a_home_of_the_version_before_goes_on_with_what_it_has(project, make_trace):
    old = [make_trace(str(n)) for n in range(3)]
    log_traces(project, old)
    collect_new.fn(project)
    shutil.rmtree(log_folder(TRACES, project))
    update_state(project, traces=write_dataset("traces", old))
    log_traces(project, [make_trace("new")])
    collection = collect_new.fn(project)
    assert (collection.n_new_traces, collection.traces.n_rows, collection.problems) == (1, 4, ())
    assert read_dataset(collection.traces, Trace)[:3] == old


def test_after_the_state_was_lost_everything_is_read_again_and_nothing_is_doubled(project, make_trace):
    log_traces(project, [make_trace(str(n)) for n in range(3)])
    first = collect_new.fn(project)
    (project_folder(project) / "state.json").unlink()
    second = collect_new.fn(project)
    assert (second.n_new_traces, second.traces) == (0, first.traces)


def test_labels_of_long_ago_are_not_looked_at_again_and_new_ones_on_old_traces_are(
    project, make_trace, monkeypatch
):
    old, answered = make_trace("old"), make_trace("answered")
    log_traces(project, [old, answered])
    for trace in (old, answered):
        attach_label(project, said(trace, "a"))
    collect_new.fn(project)
    days_ago = int((datetime.now(UTC).timestamp() - 3 * 86_400) * 1000)
    with create_engine(connect(project).settings.tracking_uri).begin() as database:
        aged = "UPDATE assessments SET last_updated_timestamp = :then WHERE trace_id = :trace"
        database.execute(text(aged), {"then": days_ago, "trace": f"tr-{answered.trace_id}"})
    attach_label(project, said(old, "b"))
    asked = []
    real = arrivals.infos_of
    monkeypatch.setattr(trace_reader, "infos_of", lambda where, ids: asked.extend(ids) or real(where, ids))
    assert collect_new.fn(project).n_new_labels == 1
    assert asked == [f"tr-{old.trace_id}"]


def said(trace, answer):
    return Label(
        trace_id=trace.trace_id, expected=answer, source="human", rater="anna", created_at=datetime.now(UTC)
    )


def test_a_persons_no_that_comes_later_takes_the_steps_back(project, make_trace):
    trace = make_trace("a")
    log_traces(project, [trace])
    collect_new.fn(project)
    with open_library(project) as library:
        assert len(library) == 1
    said = Label(
        trace_id=trace.trace_id, score=0.0, source="human", rater="anna", created_at=datetime.now(UTC)
    )
    attach_label(project, said)
    collect_new.fn(project)
    with open_library(project) as library:
        assert len(library) == 0


OWN_AGENT = """
from ratchet import Project


def desk(request):
    return "heron"


def score(case, answer):
    if "broken" in case.inputs["request"]:
        raise OSError("the scorer's host is gone")
    return float(answer == "heron")


project = Project(name="__NAME__", agent=desk, score=score, scores_itself=__SCORES__, effects="none", proposers=())
"""


@pytest.mark.parametrize("scores", [True, False])
def test_answers_that_nobody_scored_are_scored_by_a_score_that_needs_no_right_answer(
    project, make_trace, tmp_path, scores
):
    text = OWN_AGENT.replace("__NAME__", project).replace("__SCORES__", str(scores))
    (tmp_path / "project.py").write_text(text)

    def said(request, answer):
        step = Step(observation=request, action=respond(answer))
        return make_trace(request, attempts=(Attempt(steps=(step,)),))

    logged = [said("a", "heron"), said("b", "wren"), said("broken", "heron")]
    log_traces(project, logged)
    collected = collect_new.fn(project, str(tmp_path))
    found = {trace.case.inputs["request"]: trace.score for trace in traces_by_id(project).values()}
    assert found == {"a": 1.0 if scores else None, "b": 0.0 if scores else None, "broken": None}
    assert (
        any("not scored: OSError: the scorer's host is gone" in one for one in collected.problems) is scores
    )


def test_a_part_of_an_answer_is_not_scored_as_one_that_failed(make_trace):
    def steps(*actions):
        return (Attempt(steps=tuple(Step(observation="where?", action=one) for one in actions)),)

    agent = Project(
        name="desk", agent=len, score=lambda case, answer: float(answer == "here"), scores_itself=True
    )
    find = Action(name="find", arguments={"n": 1})
    whole = make_trace(attempts=steps(find, respond("here")))
    part = make_trace(attempts=steps(find))
    found, problems = scored(agent, [whole, part])
    assert ([trace.score for trace in found], problems) == ([1.0, None], [])
