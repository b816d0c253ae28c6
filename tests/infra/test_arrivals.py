"""Who writes with a wrong clock loses nothing of its own and nothing of others; what comes late comes once."""

from datetime import UTC, datetime, timedelta

import mlflow
import pytest

from ratchet.evaluation.data.labels import Label
from ratchet.infra.mlflow_client import connect
from ratchet.infra.traces import service_clock
from ratchet.infra.traces import write as trace_store
from ratchet.infra.traces.arrivals import OVERLAP
from ratchet.infra.traces.assessments import to_assessments
from ratchet.infra.traces.spans import RECEIVED, export_request, mlflow_id
from ratchet.infra.traces.write import attach_label, collect, log_traces

MINUTE = timedelta(minutes=1)


@pytest.fixture
def clock(monkeypatch):
    """Set this machine's clock off by so many hours."""

    def off_by(hours):
        def moment() -> datetime:
            return datetime.now(UTC) + timedelta(hours=hours)

        monkeypatch.setattr(service_clock, "here", moment)
        monkeypatch.setattr(trace_store, "here", moment)

    return off_by


@pytest.fixture
def remote(mlflow_server, project_name, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    return project_name


def wrong_and_right_writers(name, clock, make_trace, hours):
    """Both write, a reader reads; both write again, it reads again."""
    log_traces(name, [make_trace("before")])
    marks = [collect(name).watermark]
    said, got = [], []
    for turn in range(2):
        clock(hours)
        log_traces(name, [make_trace(f"wrong {turn} {n}") for n in range(2)])
        clock(0)
        log_traces(name, [make_trace(f"right {turn}")])
        new = collect(name, marks[-1])
        got.append(sorted(trace.case.inputs["request"] for trace in new.traces))
        said += [problem.reason for problem in new.problems]
        marks.append(new.watermark)
    assert got == [[f"right {turn}", f"wrong {turn} 0", f"wrong {turn} 1"] for turn in range(2)]
    assert collect(name, marks[-1]).traces == ()
    return said


@pytest.mark.parametrize(("hours", "word"), [(2, "2.0 h ahead"), (-2, "2.0 h behind")])
def test_a_writers_wrong_clock_loses_nothing_and_is_said(project, clock, make_trace, hours, word):
    said = wrong_and_right_writers(project, clock, make_trace, hours)
    assert len(said) == 2
    assert all(f"clock is {word}, as of 2 new traces" in reason for reason in said)


@pytest.mark.server
@pytest.mark.parametrize(("hours", "word"), [(2, "2.0 h ahead"), (-2, "2.0 h behind")])
def test_behind_a_server_its_clock_counts_whatever_the_writers_say(remote, clock, make_trace, hours, word):
    said = wrong_and_right_writers(remote, clock, make_trace, hours)
    assert len(said) == 2
    assert all(f"clock is {word}, as of 2 new traces" in reason for reason in said)


@pytest.mark.server
def test_behind_a_server_a_write_that_took_long_is_found_once(remote, make_trace):
    connection = connect(remote)

    def write(name, ago):
        trace_store.write_spans(connection, export_request([make_trace(name)], datetime.now(UTC) - ago))

    write("newest", timedelta())
    first = collect(remote)
    write("took nine minutes", OVERLAP - MINUTE)
    second = collect(remote, first.watermark)
    assert [trace.case.inputs["request"] for trace in second.traces] == ["took nine minutes"]
    assert collect(remote, second.watermark).traces == ()


@pytest.mark.server
def test_behind_a_server_an_agent_without_our_stamp_may_be_at_work_for_long(remote, make_trace):
    connection, now = connect(remote), datetime.now(UTC)

    def write(name, ago):
        request = export_request([make_trace(name, started_at=now - ago)], now)
        root = request.resource_spans[0].scope_spans[0].spans[0]
        stamp = next(one for one in root.attributes if one.key.endswith(RECEIVED))
        root.attributes.remove(stamp)
        trace_store.write_spans(connection, request)

    write("newest", timedelta())
    first = collect(remote)
    write("began fifty minutes ago", 50 * MINUTE)
    second = collect(remote, first.watermark)
    assert [trace.case.inputs["request"] for trace in second.traces] == ["began fifty minutes ago"]
    assert collect(remote, second.watermark).traces == ()


@pytest.mark.server
def test_behind_a_server_a_stamp_of_tomorrow_moves_the_mark_to_now_and_no_further(remote, make_trace):
    connection = connect(remote)
    ahead = export_request([make_trace("ahead")], datetime.now(UTC) + timedelta(hours=2))
    trace_store.write_spans(connection, ahead)
    first = collect(remote)
    assert first.watermark.received_ms <= datetime.now(UTC).timestamp() * 1000 + 2000
    assert "2.0 h ahead, as of 1 new traces" in first.problems[0].reason
    log_traces(remote, [make_trace("on time")])
    second = collect(remote, first.watermark)
    assert [trace.case.inputs["request"] for trace in second.traces] == ["on time"]


@pytest.mark.parametrize("hours", [2, -2])
def test_a_raters_wrong_clock_hides_no_label_and_doubles_none(project, make_trace, hours):
    traces = [make_trace(str(n)) for n in range(3)]
    log_traces(project, traces)

    def label(trace):
        return Label(
            trace_id=trace.trace_id, expected="a", source="human", rater="anna", created_at=datetime.now(UTC)
        )

    attach_label(project, label(traces[0]))
    first = collect(project)
    wrong = label(traces[1])
    for assessment in to_assessments(wrong):
        assessment.create_time_ms += hours * 3_600_000
        assessment.last_update_time_ms = assessment.create_time_ms
        mlflow.log_assessment(mlflow_id(wrong.trace_id), assessment)
    second = collect(project, first.watermark)
    right = label(traces[2])
    attach_label(project, right)
    third = collect(project, second.watermark)
    assert [label.trace_id for label in second.labels] == [wrong.trace_id]
    assert [label.trace_id for label in third.labels] == [right.trace_id]
    assert collect(project, third.watermark).labels == ()


def test_where_the_newest_trace_was_deleted_everything_is_read_again(project, make_trace):
    kept, gone, new = (make_trace(name) for name in ("kept", "gone", "new"))
    log_traces(project, [kept])
    log_traces(project, [gone])
    mark = collect(project).watermark
    connection = connect(project)
    connection.client.delete_traces(connection.experiment_id, trace_ids=[mlflow_id(gone.trace_id)])
    log_traces(project, [new])
    again = collect(project, mark)
    assert {trace.trace_id for trace in again.traces} == {kept.trace_id, new.trace_id}
    (problem,) = again.problems
    assert problem.trace_id == gone.trace_id
    assert "MLflow has it no longer: all 2 traces that it has were read again" in problem.reason
    assert collect(project, again.watermark).problems == ()
