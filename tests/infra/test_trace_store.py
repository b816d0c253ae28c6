import time
from datetime import UTC, datetime, timedelta

import mlflow
import pytest
from mlflow.entities import AssessmentSource, Feedback
from mlflow.tracing.client import TracingClient

import ratchet
from ratchet.agent.case import Case
from ratchet.agent.environment import Action, Outcome, respond
from ratchet.agent.errors import BadInput, ServiceUnavailable
from ratchet.agent.trace import Attempt, RunError, Step
from ratchet.evaluation.data.labels import Label
from ratchet.infra.mlflow_client import connect
from ratchet.infra.traces.assessments import OUTCOME
from ratchet.infra.traces.spans import RECORD_ATTRIBUTE, export_request, mlflow_id
from ratchet.infra.traces.write import (
    attach_label,
    collect,
    flush_spool,
    log_traces,
    spool_folder,
    write_spans,
)

UNREACHABLE = "http://127.0.0.1:9"


def label(trace, **changes):
    fields = {"trace_id": trace.trace_id, "expected": "get_weather", "source": "human", "rater": "anna"}
    return Label(**(fields | {"created_at": datetime(2026, 1, 5, tzinfo=UTC)} | changes))


def info(project, trace):
    return connect(project).client.get_trace(mlflow_id(trace.trace_id)).info


def test_a_trace_with_retry_and_awkward_text_comes_back_equal(project, make_trace):
    attempts = (
        Attempt(
            steps=(
                Step(observation='{"a": 1}', thought="hm", action=Action(name="x", arguments={"n": 1.0})),
            ),
            outcome=Outcome(score=0.0, feedback="wrong tool"),
            reflection="read the description",
            recalled=("a" * 32,),
        ),
        Attempt(steps=(Step(observation="naïve 日本 \u0000 \U0001f600", action=Action(name="y")),)),
    )
    case = Case(inputs={"text": "null", "number": 1.0, "big": 2**60, "deep": {"list": [1, None, "2"]}})
    trace = make_trace(attempts=attempts, case=case, memory_id="m1", session_id=None)
    log_traces(project, [trace])
    assert collect(project).traces == (trace,)


def test_a_person_sees_request_answer_steps_and_tags(project, make_trace):
    trace = make_trace("weather in Bergen?", memory_id="m1")
    log_traces(project, [trace])
    seen = connect(project).client.get_trace(mlflow_id(trace.trace_id))
    assert [span.name for span in seen.data.spans] == ["agent", "attempt 1", "agent"]
    assert seen.info.request_preview == "weather in Bergen?"
    assert seen.info.response_preview == "`get_weather`"
    assert seen.info.trace_metadata["mlflow.trace.session"] == "session-1"
    expected = {"candidate_id": "c0ffee", "memory_id": "m1", "slice": "chat"}
    assert expected.items() <= seen.info.tags.items()
    assert [(one.name, one.value, one.source.source_type) for one in seen.info.assessments] == [
        (OUTCOME, 1.0, "CODE")
    ]


def test_logging_twice_doubles_neither_spans_nor_assessments(project, make_trace):
    traces = [make_trace(str(n)) for n in range(3)]
    log_traces(project, traces)
    log_traces(project, traces)
    assert len(collect(project).traces) == 3
    assert len(info(project, traces[0]).assessments) == 1


def test_a_kill_between_a_trace_and_its_outcome_is_mended_by_the_next_sending(project, make_trace):
    trace = make_trace()
    write_spans(connect(project), export_request([trace], datetime.now(UTC)))
    assert collect(project).traces == (trace,)
    assert info(project, trace).assessments == []
    log_traces(project, [trace])
    log_traces(project, [trace])
    assert [one.name for one in info(project, trace).assessments] == [OUTCOME]


def test_spans_that_a_server_of_unknown_version_does_not_take_wait_in_the_spool(
    project, make_trace, monkeypatch
):
    def unknown(*_, **__):
        raise NotImplementedError("could not identify MLflow server version")

    trace = make_trace()
    with monkeypatch.context() as down:
        down.setattr(TracingClient, "log_spans", unknown)
        with pytest.raises(ServiceUnavailable, match=r"could not identify.*1 traces are kept"):
            log_traces(project, [trace])
    assert flush_spool(project) == ()
    assert collect(project).traces == (trace,)


def test_a_trace_without_outcome_has_no_score_and_no_assessment(project, make_trace):
    trace = make_trace(score=None)
    log_traces(project, [trace])
    (read,) = collect(project).traces
    assert read.score is None
    assert info(project, trace).assessments == []


def test_a_run_that_broke_is_a_trace_in_error(project, make_trace):
    trace = make_trace(attempts=(), error=RunError(kind="agent", message="no JSON"))
    log_traces(project, [trace])
    assert info(project, trace).state.value == "ERROR"
    assert collect(project).traces == (trace,)


def test_feedback_that_comes_later_is_attached_by_the_public_face(project, make_trace):
    trace = make_trace()
    log_traces(project, [trace])
    said = ratchet.Label(
        trace_id=trace.trace_id,
        score=0.0,
        source="human",
        rater="anna",
        created_at=datetime(2026, 1, 5, tzinfo=UTC),
    )
    ratchet.attach_label(project, said)
    assert collect(project).labels == (said,)


def test_an_empty_week_collects_nothing_and_moves_no_watermark(project):
    first = collect(project)
    assert (first.traces, first.labels, first.problems) == ((), (), ())
    assert collect(project, first.watermark) == first


def test_collecting_again_returns_only_what_arrived_since(project, make_trace):
    log_traces(project, [make_trace("1")])
    first = collect(project)
    later = make_trace("2")
    log_traces(project, [later])
    second = collect(project, first.watermark)
    assert second.traces == (later,)
    assert collect(project, first.watermark) == second
    assert collect(project, second.watermark).traces == ()


def test_a_late_trace_that_began_long_ago_is_not_overlooked(project, make_trace):
    log_traces(project, [make_trace()])
    first = collect(project)
    old = make_trace(started_at=datetime.now(UTC) - timedelta(days=400))
    log_traces(project, [old])
    assert collect(project, first.watermark).traces == (old,)


def test_late_feedback_on_an_old_trace_is_collected_once(project, make_trace):
    trace = make_trace(started_at=datetime.now(UTC) - timedelta(days=400))
    log_traces(project, [trace])
    first = collect(project)
    said = label(trace, score=0.5, comment="nearly")
    attach_label(project, said)
    second = collect(project, first.watermark)
    assert (second.traces, second.labels) == ((), (said,))
    assert collect(project, second.watermark).labels == ()


def test_the_same_label_twice_is_written_once(project, make_trace):
    trace = make_trace()
    log_traces(project, [trace])
    attach_label(project, label(trace))
    attach_label(project, label(trace))
    assert collect(project).labels == (label(trace),)


def test_contradicting_labels_are_both_kept(project, make_trace):
    trace = make_trace()
    log_traces(project, [trace])
    attach_label(project, label(trace, expected="a"))
    attach_label(project, label(trace, expected="b", rater="ben"))
    assert sorted(one.expected for one in collect(project).labels) == ["a", "b"]


@pytest.mark.parametrize("text", ['{"schema_version": 1', '{"schema_version": 99}', "[]"])
def test_a_corrupt_trace_is_a_problem_and_the_others_are_read(project, make_trace, text):
    good, bad = make_trace(), make_trace()
    log_traces(project, [good])
    request = export_request([bad], datetime.now(UTC))
    root = request.resource_spans[0].scope_spans[0].spans[0]
    next(a for a in root.attributes if a.key == RECORD_ATTRIBUTE).value.string_value = text
    write_spans(connect(project), request)
    read = collect(project)
    assert read.traces == (good,)
    assert [problem.trace_id for problem in read.problems] == [bad.trace_id]
    assert "not a Trace" in read.problems[0].reason


def test_a_trace_that_another_program_logged_is_reported_not_dropped(project, make_trace):
    request = export_request([make_trace()], datetime.now(UTC))
    del request.resource_spans[0].scope_spans[0].spans[0].attributes[:]
    write_spans(connect(project), request)
    (problem,) = collect(project).problems
    assert "no message of an LM in its spans" in problem.reason


def test_a_person_s_remark_under_another_name_is_reported_not_dropped(project, make_trace):
    trace = make_trace()
    log_traces(project, [trace])
    for name, value in (("tone", "rude"), ("score", 7)):
        said = Feedback(name=name, value=value, source=AssessmentSource("HUMAN", "anna"))
        mlflow.log_assessment(mlflow_id(trace.trace_id), said)
    read = collect(project)
    assert read.labels == ()
    assert sorted(problem.reason[:24] for problem in read.problems) == [
        "anna wrote 'score' = 7: ",
        "anna wrote 'tone' = 'rud",
    ]


def test_a_label_for_an_unknown_trace_is_one_clear_error_and_arrives_with_its_trace(project, make_trace):
    trace = make_trace()
    with pytest.raises(BadInput, match=f"names trace {trace.trace_id}, which MLflow lacks"):
        attach_label(project, label(trace))
    assert [problem.trace_id for problem in flush_spool(project)] == [trace.trace_id]
    log_traces(project, [trace])
    assert flush_spool(project) == flush_spool(project) == ()
    assert collect(project).labels == (label(trace),)


def test_what_mlflow_does_not_take_waits_on_disk_and_is_sent_once(project, make_trace, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    traces = [make_trace(str(n)) for n in range(3)]
    with monkeypatch.context() as down:
        down.setenv("MLFLOW_TRACKING_URI", UNREACHABLE)
        with pytest.raises(ServiceUnavailable, match="3 traces are kept"):
            log_traces(project, traces)
        with pytest.raises(ServiceUnavailable, match="label is kept"):
            attach_label(project, label(traces[0]))
        with pytest.raises(ServiceUnavailable):
            flush_spool(project)
        with pytest.raises(ServiceUnavailable, match="did not answer while collecting"):
            collect(project)
    assert flush_spool(project) == flush_spool(project) == ()
    read = collect(project)
    assert {trace.trace_id for trace in read.traces} == {trace.trace_id for trace in traces}
    assert read.labels == (label(traces[0]),)


def test_a_spooled_line_that_was_torn_is_set_aside_and_the_rest_is_sent(project, make_trace):
    trace = make_trace()
    spool = spool_folder(project) / "traces.jsonl"
    spool.parent.mkdir(parents=True)
    spool.write_text(trace.to_json() + "\n" + trace.to_json()[:40] + "\n")
    assert len(flush_spool(project)) == 1
    assert collect(project).traces == (trace,)
    assert (spool.parent / "corrupt.jsonl").read_text() == trace.to_json()[:40] + "\n"


def test_a_tracking_uri_that_is_neither_server_nor_database_is_refused(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "s3://bucket")
    with pytest.raises(BadInput, match="neither a server"):
        collect("p")


def test_three_hundred_traces_are_logged_within_seconds(project, make_trace):
    collect(project)
    began = time.process_time()
    log_traces(project, [make_trace(str(n)) for n in range(300)])
    assert (
        time.process_time() - began < 6
    )  # of processor time, twice what it takes; one by one they took 6 to 27 s


def test_what_each_kind_of_agent_did_is_shown_as_a_conversation_and_read_back_whole(project, make_trace):
    chat = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "yes?"},
        {"role": "user", "content": "**second**"},
    ]
    options = {"request": "Weather?", "tools": [{"name": "get_weather", "description": "Forecast"}]}
    steps = (
        Step(observation="a room", action=Action(name="look"), result="a key"),
        Step(observation="a key", action=Action(name="take", arguments={"what": "key"})),
    )
    kinds = {
        "built-in": (options, (Step(observation="Weather?", action=Action(name="get_weather")),)),
        "text world": ({"task": 3}, steps),
        "callable": ({"question": "Why?"}, (Step(observation="Why?", action=respond("- one\n- two")),)),
        "module": ({"a": "x", "b": 2}, (Step(observation="x", action=respond({"label": "y"})),)),
        "chat": ({"messages": chat}, (Step(observation="second", action=respond("done")),)),
    }
    traces = {
        kind: make_trace(case=Case(inputs=inputs), attempts=(Attempt(steps=done),))
        for kind, (inputs, done) in kinds.items()
    }
    log_traces(project, list(traces.values()))
    connection = connect(project)
    infos = {kind: connection.client.get_trace(mlflow_id(one.trace_id)).info for kind, one in traces.items()}
    assert {kind: (info.request_preview, info.response_preview) for kind, info in infos.items()} == {
        "built-in": ("Weather?\n\n**tools**\n\n- `get_weather`: Forecast", "`get_weather`"),
        "text world": (
            "a room\n\n**task:** 3",
            '**1.** `look`\n\n> a key\n\n---\n\n`take` with `{"what": "key"}`',
        ),
        "callable": ("Why?", "- one\n- two"),
        "module": ("**a:** x\n\n**b:** 2", '```json\n{\n  "label": "y"\n}\n```'),
        "chat": ("**second**", "done"),
    }
    assert sorted(collect(project).traces, key=str) == sorted(traces.values(), key=str)
