"""Traces of any framework in the project's experiment come in like our own: read from recordings of each of them."""

import base64
import json
import time
import uuid
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import mlflow
import pytest
from google.protobuf.json_format import ParseDict
from mlflow.entities import Assessment, Trace, TraceState
from mlflow.tracing.client import TracingClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from ratchet.agent.environment import RESPOND
from ratchet.agent.project import Project
from ratchet.agent.seen import AskedCase, case_of_trace
from ratchet.agent.trace import UNKNOWN
from ratchet.infra.mlflow_client import connect
from ratchet.infra.traces.conversation import Conversation, LinkedPrompt
from ratchet.infra.traces.dialects import mlflow_export, otlp
from ratchet.infra.traces.foreign import KnownVersions, Reading
from ratchet.infra.traces.lookup import look_up_traces
from ratchet.infra.traces.read import is_unfinished
from ratchet.infra.traces.spans import mlflow_id
from ratchet.infra.traces.write import collect, write_spans

RECORDINGS = Path(__file__).parent / "traces" / "recordings"
QUESTION, ANSWER = "Where are my orders 17 and 18?", "Order 17 is on its way and order 18 is late."
SYSTEM = "You answer questions about orders."
RESULTS = {17: "order 17: on its way", 18: "order 18: late"}
COLUMNS = ("messages", "tool calls", "results", "usage", "session", "feedback")
ALL, DSPY = (1, 2, 2, (22, 14)), (5, 2, 2, (44, 28))
TABLE = {
    "mlflow_openai": (*ALL, "session-7", 4),
    "mlflow_openai_bare": (*ALL[:3], (11, 7), "session-7", 4),
    "mlflow_openai_stream": (*ALL, "session-7", 4),
    "mlflow_openai_agents": (*ALL, "session-7", 4),
    "mlflow_responses": (*ALL, "session-7", 4),
    "mlflow_langgraph": (*ALL, "session-7", 4),
    "mlflow_langchain": (1, 0, 0, (11, 7), "session-7", 4),
    "mlflow_pydantic_ai": (*ALL, "session-7", 4),
    "mlflow_dspy": (*DSPY, "session-7", 4),
    "otel_genai_events": (*ALL, "session-7", 0),
    "otel_genai_parts": (*ALL, "session-7", 0),
    "otel_pydantic_ai": (*ALL, "session-7", 0),
    "openllmetry": (*ALL, "session-7", 0),
    "openllmetry_parts": (*ALL, "session-7", 0),
    "openinference": (*ALL, "session-7", 0),
    "vercel": (*ALL, "session-7", 0),
}
"""What each recording holds; of `otel_genai_events` the messages are log records, which MLflow does not take."""
LIVE = [name for name in TABLE if name != "otel_genai_events"]


def support(question):
    return ANSWER


PROJECT = Project(name="support", agent=support)


def logged(project, name):
    """Log the recording's last trace under a new id, as its instrumentation would have; returns our id of it."""
    told, new = json.loads((RECORDINGS / f"{name}.json").read_text()), uuid.uuid4().hex
    connection = connect(project)
    if isinstance(told, dict):
        request = ExportTraceServiceRequest()
        ParseDict({"resourceSpans": _base64(told["resourceSpans"])}, request)
        merged = ExportTraceServiceRequest()
        scope = merged.resource_spans.add().scope_spans.add()
        for spans in (one for each in request.resource_spans for one in each.scope_spans):
            for span in spans.spans:
                span.trace_id = bytes.fromhex(new)
                scope.spans.append(span)
        write_spans(connection, merged)
        return new
    text = json.dumps(told[-1]).replace(told[-1]["info"]["trace_id"], mlflow_id(new))
    text = text.replace(told[-1]["data"]["spans"][0]["trace_id"], _in_base64(new))
    trace, assessments = Trace.from_json(text), json.loads(text)["info"].pop("assessments")
    trace.info.trace_location.mlflow_experiment.experiment_id = connection.experiment_id
    trace.info.assessments = []
    client = TracingClient(connection.settings.tracking_uri)
    client.start_trace(trace.info)
    client.log_spans(connection.experiment_id, trace.data.spans)
    for one in assessments:
        one = {key: value for key, value in one.items() if key != "assessment_id"}
        mlflow.log_assessment(mlflow_id(new), Assessment.from_dictionary(one))
    return new


def _base64(value):
    if isinstance(value, list):
        return [_base64(one) for one in value]
    if not isinstance(value, dict):
        return value
    ids = ("traceId", "spanId", "parentSpanId")
    return {key: _in_base64(one) if key in ids else _base64(one) for key, one in value.items()}


def _in_base64(hexadecimal):
    return base64.b64encode(bytes.fromhex(hexadecimal)).decode()


def row(trace, n_labels):
    steps = trace.attempts[0].steps
    called = [step for step in steps if step.action.name != RESPOND]
    return (
        len(steps) - len(called),
        len(called),
        sum(step.result is not None for step in called),
        (trace.usage.input_tokens, trace.usage.output_tokens),
        trace.session_id,
        n_labels,
    )


@pytest.fixture
def shown():
    def show(rows):
        print(f"\n{'recording':22}" + "".join(f"{name:12}" for name in COLUMNS))
        for name, cells in rows.items():
            print(f"{name:22}" + "".join(f"{cell!s:12}" for cell in cells))

    return show


def conversation_in(name):
    told = json.loads((RECORDINGS / f"{name}.json").read_text())
    records, dialect = (told[-1:], mlflow_export) if isinstance(told, list) else ([told], otlp)
    assert all(dialect.looks_like(one) for one in records)
    (conversation,) = dialect.conversations(records)
    return conversation


def test_of_each_frameworks_traces_all_that_they_hold_comes_in(project, shown):
    ids = {name: logged(project, name) for name in LIVE}
    reading = Reading(case_of=partial(case_of_trace, PROJECT))
    got = collect(project, reading=reading)
    assert got.unreadable == {}
    traces = {trace.trace_id: trace for trace in got.traces}
    labels = {name: [one for one in got.labels if one.trace_id == ids[name]] for name in LIVE}
    rows = {name: row(traces[ids[name]], len(labels[name])) for name in LIVE}
    shown(rows)
    assert rows == {name: TABLE[name] for name in LIVE}
    for name in set(LIVE) - {"mlflow_dspy", "mlflow_langchain"}:
        trace = traces[ids[name]]
        first, second, last = trace.attempts[0].steps
        assert [(s.action.arguments, s.result) for s in (first, second)] == [
            ({"number": number}, result) for number, result in RESULTS.items()
        ], name
        assert (first.observation, last.action.said) == (QUESTION, ANSWER)
        assert (trace.system, trace.candidate_id, trace.case.inputs) == (
            SYSTEM,
            UNKNOWN,
            {"question": QUESTION},
        )
    assert traces[ids["mlflow_dspy"]].case.inputs == {"question": QUESTION}
    said = {
        (one.source, one.rater): (one.score, one.expected, one.comment) for one in labels["mlflow_openai"]
    }
    assert said == {
        ("human", "ada"): (1.0, None, "helped"),
        ("judge", "j1"): (1.0, None, ""),
        ("environment", "contains"): (0.75, None, ""),
    } | {("human", "ada"): said["human", "ada"]}
    assert ANSWER in [one.expected for one in labels["mlflow_openai"]]
    assert any("'tone' = 3.0: not read as a label" in one.reason for one in got.problems)
    assert collect(project, got.watermark, reading).traces == ()


def test_a_file_export_of_each_recording_tells_the_same(shown):
    found = {}
    for name in TABLE:
        told = conversation_in(name)
        steps = [call for one in told.messages for call in one.calls]
        answers = [answer for one in told.messages for answer in one.answers]
        found[name] = (
            len(steps),
            len(answers),
            (told.usage.input_tokens, told.usage.output_tokens),
            told.session_id,
        )
        if name not in ("mlflow_dspy",):
            assert told.system == SYSTEM
            assert told.messages[-1].text == ANSWER
            assert told.model == "scripted"
    dspy = (0, 0, *TABLE["mlflow_dspy"][3:5])
    assert found == {name: cells[1:5] for name, cells in TABLE.items()} | {"mlflow_dspy": dspy}


VERSIONS = KnownVersions(
    prompts={"one": {"system": "1", "tone": "1"}, "two": {"system": "2", "tone": "1"}},
    texts={
        "one": {"system": "Be brief.", "tone": "Be kind."},
        "two": {"system": "Be long.", "tone": "Be kind."},
    },
)


@pytest.mark.parametrize(
    ("told", "maker"),
    [
        ({"candidate_id": "three"}, "three"),
        ({"prompts": (("system", "2"),)}, "two"),
        ({"prompts": (("system", "1"), ("tone", "1"), ("of another team", "4"))}, "one"),
        ({"prompts": (("tone", "1"),)}, UNKNOWN),
        ({"prompts": (("tone", "1"),), "system": "Be long."}, "two"),
        ({"prompts": (("system", "9"),)}, UNKNOWN),
        ({"system": "Be brief."}, "one"),
        ({"system": "Be kind."}, UNKNOWN),
        ({"system": "Be brief. And more."}, UNKNOWN),
        ({}, UNKNOWN),
    ],
)
def test_which_version_made_a_trace_is_read_and_never_guessed(told, maker):
    linked = tuple(LinkedPrompt(name=name, version=version) for name, version in told.pop("prompts", ()))
    assert VERSIONS.maker(Conversation(prompts=linked, **told)) == maker


def test_a_call_is_under_the_prompt_whose_text_its_system_message_holds_the_longest_first():
    versions = KnownVersions(
        texts={"one": {"plan": "Given the question.", "act": "Given the question. Act now."}}
    )
    assert versions.actor("Your fields are x.\n  Given the   question. Act now.") == "act"
    assert versions.actor("Given the question.") == "plan"
    assert versions.actor("Nothing of it.") is None


def test_a_trace_in_work_waits_and_one_that_cannot_be_read_is_tried_again(project, monkeypatch):
    connection = connect(project)
    trace_id = logged(project, "mlflow_openai")
    info = connection.client.get_trace(mlflow_id(trace_id)).info
    info.state = TraceState.IN_PROGRESS
    monkeypatch.setattr(info, "timestamp_ms", int(time.time() * 1000))
    assert is_unfinished(info, datetime.now(UTC))
    assert not is_unfinished(info, datetime.now(UTC) + timedelta(days=2))
    first = collect(project)
    assert first.unreadable == {}
    again = collect(project, first.watermark, again=[trace_id])
    assert [one.trace_id for one in again.traces] == [trace_id]


def test_a_chat_endpoints_case_is_the_request_as_it_was_sent(project):
    trace_id, asked = logged(project, "mlflow_openai"), []
    collect(
        project,
        reading=Reading(case_of=lambda seen: asked.append(seen) or AskedCase({"request": seen.request})),
    )
    (seen,) = asked
    assert [one["role"] for one in seen.messages] == ["system", "user", "assistant", "tool", "tool"]
    call = seen.messages[2]["tool_calls"][0]
    assert (call["id"], call["function"]) == (
        "call_17",
        {"name": "find_order", "arguments": '{"number": 17}'},
    )
    assert seen.messages[3] == {"role": "tool", "tool_call_id": "call_18", "content": RESULTS[18]}
    assert [tool["function"]["name"] for tool in seen.tools] == ["find_order"]
    found = look_up_traces(project, [trace_id])
    assert found.traces[trace_id].trace.answer == ANSWER


def test_of_a_module_the_case_is_its_fields_and_each_predictor_says_its_own(project):
    import dspy

    def find_order(number: int) -> str:
        """Find an order by its number."""
        return RESULTS[number]

    module = dspy.ReAct("question -> answer", tools=[find_order], max_iters=4)
    texts = {name: one.signature.instructions for name, one in module.named_predictors()}
    rules = Reading(
        case_of=partial(case_of_trace, Project(name="support", agent=module)),
        versions=lambda: KnownVersions(texts={"one": texts, "two": {**texts, "react": "Do it."}}),
    )
    logged(project, "mlflow_dspy")
    (trace,) = collect(project, reading=rules).traces
    assert trace.case.inputs == {"question": QUESTION}
    assert (trace.answer["answer"], trace.answer["reasoning"]) == (ANSWER, ANSWER)
    assert trace.candidate_id == "one"  # DSPy's format stands around the instructions
    actors = [step.actor for step in trace.attempts[0].steps if step.action.name == RESPOND]
    assert actors == ["react"] * 3 + ["extract.predict", "agent"]


def test_the_agents_own_function_is_found_below_a_handlers_and_its_failure_is_no_unreadable_trace(project):
    @mlflow.trace
    def support(question):
        if "fail" in question:
            raise ValueError("no such order")
        return {"answer": question.upper()}

    @mlflow.trace
    def handler(path):
        return support(question=path)

    mlflow.set_experiment(experiment_id=connect(project).experiment_id)
    handler("a")
    with pytest.raises(ValueError, match="no such order"):
        handler("fail")
    mlflow.flush_trace_async_logging()
    got = collect(project, reading=Reading(case_of=partial(case_of_trace, PROJECT)))
    well, failed = sorted(got.traces, key=lambda one: one.error is not None)
    assert (well.case.inputs, well.answer) == ({"question": "a"}, {"answer": "A"})
    assert failed.case.inputs == {"question": "fail"}
    assert (failed.error.kind, failed.error.message) == ("agent", "ValueError: no such order")
