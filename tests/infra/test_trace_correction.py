"""A reward that came later reaches the trace and its outcome; everything else stays as it was."""

from ratchet.infra.mlflow_client import connect
from ratchet.infra.traces.assessments import outcome_of
from ratchet.infra.traces.correction import correct_outcomes
from ratchet.infra.traces.lookup import known_traces
from ratchet.infra.traces.spans import mlflow_id
from ratchet.infra.traces.write import collect, log_traces


def outcomes(project, trace):
    info = connect(project).client.get_trace(mlflow_id(trace.trace_id)).info
    return outcome_of(info).value, sum(one.name == "outcome" for one in info.assessments)


def test_a_trace_takes_its_score_and_nothing_else_changes(project, make_trace):
    unscored, lost, other = make_trace(score=None), make_trace(score=0.0), make_trace()
    log_traces(project, [unscored, lost, other])
    before = {trace.trace_id: trace for trace in collect(project).traces}
    assert correct_outcomes(project, {unscored.trace_id: 0.5, lost.trace_id: 1.0}) == (2, {})
    after = {trace.trace_id: trace for trace in collect(project).traces}
    assert {name: trace.score for name, trace in after.items()} == {
        unscored.trace_id: 0.5, lost.trace_id: 1.0, other.trace_id: 1.0,
    }  # fmt: skip
    for name, trace in after.items():
        assert trace.model_copy(update={"attempts": ()}) == before[name].model_copy(update={"attempts": ()})
        assert trace.attempts[0].steps == before[name].attempts[0].steps
    assert (outcomes(project, unscored), outcomes(project, lost)) == ((0.5, 1), (1.0, 1))
    known = known_traces(project, [unscored.trace_id, lost.trace_id])
    assert [known[t.trace_id].outcome for t in (unscored, lost)] == [0.5, 1.0]


def test_a_damaged_record_is_named_and_keeps_no_other_from_its_score(project, make_trace, log_corrupt):
    damaged, whole = log_corrupt(project), make_trace(score=0.0)
    log_traces(project, [whole])
    n, unreadable = correct_outcomes(project, {damaged: 1.0, whole.trace_id: 1.0})
    assert (n, list(unreadable)) == (1, [damaged])
