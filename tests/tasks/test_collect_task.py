"""Collecting: idempotent, and what cannot be read is named and left where it is."""

from datetime import UTC, datetime

from evaluation.label import Label
from infra.dataset_store import read_dataset
from infra.experience_store import open_library
from infra.trace_store import attach_label, log_traces
from tasks.collect import collect_new, traces_by_id


def test_a_corrupt_trace_is_named_once_and_the_others_are_collected(project, make_trace, log_corrupt):
    good = make_trace()
    log_traces(project, [good])
    corrupt = log_corrupt(project)
    first = collect_new.fn(project)
    assert list(traces_by_id(project)) == [good.trace_id]
    (problem,) = first.problems
    assert corrupt in problem
    assert "not a Trace" in problem
    assert collect_new.fn(project).n_new_traces == 0


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
    from agent.trace import Trace

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
