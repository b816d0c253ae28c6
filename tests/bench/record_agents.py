"""Make the recordings under `tests/infra/traces/recordings`: one small agent in many libraries, each traced its own way.

Why recordings: none of these libraries is a dependency, and what they write changes with their versions. The LM is
*scripted*: a server on localhost with OpenAI's protocol, which calls two tools at once and then answers. Run it in an
environment of its own (the packages are in `NEEDS`): `python tests/bench/record_agents.py OUT [NAME …]`. Two need older
packages: `otel_genai_events` `opentelemetry-instrumentation-openai-v2==2.1b0` with `opentelemetry-sdk==1.36.0`, and
`openllmetry`, whose messages stood in attributes by number then, `opentelemetry-instrumentation-openai==0.40.14`
(`openllmetry_parts` is the same by 0.62). Vercel's: `record_vercel.mjs`.
"""

import asyncio
import json
import os
import re
import sys
import tempfile
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

NEEDS: Final = (
    "mlflow==3.17.2", "openai", "openai-agents", "langchain", "langgraph", "langchain-openai",
    "pydantic-ai-slim[openai]", "dspy==3.4.1", "openinference-instrumentation-openai",
    "opentelemetry-instrumentation-openai", "opentelemetry-exporter-otlp-proto-http",
    "opentelemetry-instrumentation-openai-v2==2.4b0", "opentelemetry-util-genai==0.4b0",
)  # fmt: skip
SYSTEM: Final = "You answer questions about orders."
QUESTION: Final = "Where are my orders 17 and 18?"
ANSWER: Final = "Order 17 is on its way and order 18 is late."
USAGE: Final = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
DSPY_TURNS: Final = (
    {"next_thought": "Look up both.", "next_tool_name": "find_order", "next_tool_args": '{"number": 17}'},
    {"next_thought": "Now the other.", "next_tool_name": "find_order", "next_tool_args": '{"number": 18}'},
    {"next_thought": "I know both.", "next_tool_name": "finish", "next_tool_args": "{}"},
)


def find_order(number: int) -> str:
    """Find an order by its number."""
    return f"order {number}: {'on its way' if number == 17 else 'late'}"


TOOL: Final = {
    "type": "function",
    "function": {
        "name": "find_order",
        "description": "Find an order by its number.",
        "parameters": {
            "type": "object",
            "properties": {"number": {"type": "integer"}},
            "required": ["number"],
        },
    },
}


class Scripted(BaseHTTPRequestHandler):
    """Two tool calls at once, then the answer; DSPy's fields where the prompt asks for them."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        reply = self._response(asked) if self.path.endswith("/responses") else self._completion(asked)
        sent = _streamed(reply) if asked.get("stream") else json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream" if asked.get("stream") else "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def _completion(self, asked: dict[str, Any]) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": self._text(asked["messages"])}
        if asked.get("tools") and not any(m["role"] == "tool" for m in asked["messages"]):
            message |= {"content": None, "tool_calls": [_call(n) for n in (17, 18)]}
        reason = "tool_calls" if message.get("tool_calls") else "stop"
        choice = {"index": 0, "message": message, "finish_reason": reason}
        head = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1764000000,
            "model": asked["model"],
        }
        return head | {"choices": [choice], "usage": USAGE}

    def _text(self, messages: list[dict[str, Any]]) -> str:
        last = str(messages[-1]["content"])
        if "next_tool_name" in last:
            turn = DSPY_TURNS[min(last.count("[[ ## observation_"), 2)]
            return "\n\n".join(f"[[ ## {k} ## ]]\n{v}" for k, v in turn.items()) + "\n\n[[ ## completed ## ]]"
        if "[[ ## " in last:
            named = re.findall(r"\[\[ ## (reasoning|answer) ## \]\]", last)
            said = dict.fromkeys(named, ANSWER)
            return "\n\n".join(f"[[ ## {k} ## ]]\n{v}" for k, v in said.items()) + "\n\n[[ ## completed ## ]]"
        return ANSWER

    def _response(self, asked: dict[str, Any]) -> dict[str, Any]:
        done = asked.get("previous_response_id") is not None
        text = {"type": "output_text", "text": ANSWER, "annotations": []}
        said = {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [text],
        }
        calls = [
            {"type": "function_call", "id": f"fc_{n}", "call_id": f"call_{n}", "name": "find_order",
             "arguments": json.dumps({"number": n}), "status": "completed"}
            for n in (17, 18)
        ]  # fmt: skip
        usage = {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18}
        usage |= {
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        }
        return {
            "id": "resp_2" if done else "resp_1", "object": "response", "created_at": 1764000000,
            "model": asked["model"], "status": "completed", "output": [said] if done else calls, "usage": usage,
            "parallel_tool_calls": True, "tool_choice": "auto", "tools": asked.get("tools", []),
            "error": None, "incomplete_details": None, "instructions": asked.get("instructions"), "metadata": {},
            "temperature": 1.0, "top_p": 1.0, "max_output_tokens": None,
            "previous_response_id": asked.get("previous_response_id"),
        }  # fmt: skip

    def log_message(self, *_: Any) -> None:
        """Quiet."""


def _call(number: int) -> dict[str, Any]:
    function = {"name": "find_order", "arguments": json.dumps({"number": number})}
    return {"id": f"call_{number}", "type": "function", "function": function}


def _streamed(reply: dict[str, Any]) -> bytes:
    """A chat completion in pieces: each call's arguments in two, each word of a text by itself, then the usage."""
    choice, calls = reply["choices"][0], reply["choices"][0]["message"].get("tool_calls") or []
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": None if calls else ""}]
    for index, call in enumerate(calls):
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        for part in (
            {**call, "function": {"name": name, "arguments": ""}},
            {"function": {"arguments": arguments}},
        ):
            deltas.append({"tool_calls": [{"index": index, **part}]})
    text = choice["message"]["content"] or ""
    deltas += [{"content": word} for word in re.findall(r"\S+\s*", text)]
    head = {**reply, "object": "chat.completion.chunk", "usage": None}
    chunks = [{**head, "choices": [{"index": 0, "delta": one, "finish_reason": None}]} for one in deltas]
    chunks.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]})
    chunks.append({**head, "choices": [], "usage": reply["usage"]})
    return b"".join(f"data: {json.dumps(one)}\n\n".encode() for one in chunks) + b"data: [DONE]\n\n"


def chat_streamed(client: Any, tool: Callable[[int], str]) -> str:
    """The same agent by a streaming client."""
    messages: list[Any] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]
    while True:
        text, calls = "", dict[int, dict[str, Any]]()
        asked = {"model": "scripted", "messages": messages, "tools": [TOOL]}
        for chunk in client.chat.completions.create(
            **asked, stream=True, stream_options={"include_usage": True}
        ):
            for choice in chunk.choices:
                text += choice.delta.content or ""
                for part in choice.delta.tool_calls or []:
                    call = calls.setdefault(
                        part.index, {"id": part.id, "name": part.function.name, "arguments": ""}
                    )
                    call["arguments"] += part.function.arguments or ""
        if not calls:
            return text
        told = [
            {"id": c["id"], "type": "function", "function": {"name": c["name"], "arguments": c["arguments"]}}
            for c in calls.values()
        ]
        messages.append({"role": "assistant", "content": None, "tool_calls": told})
        for call in calls.values():
            result = tool(**json.loads(call["arguments"]))
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})


def chat(client: Any, *, tool: Callable[[int], str] = find_order) -> str:
    """The agent as a team writes it with OpenAI's client."""
    messages: list[Any] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]
    while True:
        reply = client.chat.completions.create(model="scripted", messages=messages, tools=[TOOL])
        message = reply.choices[0].message
        if not message.tool_calls:
            return str(message.content)
        messages.append(message.model_dump(exclude_none=True))
        for call in reversed(message.tool_calls):
            result = tool(**json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})


def _client() -> Any:
    from openai import OpenAI

    return OpenAI()


# --- by MLflow's autolog: one trace, as MLflow exports it ---


def mlflow_openai() -> None:
    import mlflow

    mlflow.openai.autolog()
    tool = mlflow.trace(find_order, span_type="TOOL")

    @mlflow.trace
    def support(question: str) -> str:
        mlflow.update_current_trace(session_id="session-7", user="ada")
        return chat(_client(), tool=tool)

    support(QUESTION)


def mlflow_openai_stream() -> None:
    import mlflow

    mlflow.openai.autolog()
    tool = mlflow.trace(find_order, span_type="TOOL")

    @mlflow.trace
    def support(question: str) -> str:
        mlflow.update_current_trace(session_id="session-7")
        return chat_streamed(_client(), tool)

    support(QUESTION)


def mlflow_openai_agents() -> None:
    import mlflow
    from agents import Agent, Runner, function_tool, set_default_openai_api

    mlflow.openai.autolog()
    set_default_openai_api("chat_completions")
    agent = Agent(name="support", instructions=SYSTEM, model="scripted", tools=[function_tool(find_order)])
    with mlflow.tracing.context(session_id="session-7"):
        Runner.run_sync(agent, QUESTION)


def mlflow_openai_bare() -> None:
    import mlflow

    mlflow.openai.autolog()
    with mlflow.tracing.context(session_id="session-7"):
        chat(_client())


def mlflow_responses() -> None:
    import mlflow

    mlflow.openai.autolog()
    client, tools = _client(), [{"type": "function", **TOOL["function"]}]

    @mlflow.trace
    def support(question: str) -> str:
        mlflow.update_current_trace(session_id="session-7")
        first = client.responses.create(model="scripted", instructions=SYSTEM, input=question, tools=tools)
        done = [
            {
                "type": "function_call_output",
                "call_id": c.call_id,
                "output": find_order(**json.loads(c.arguments)),
            }
            for c in first.output
        ]
        then = client.responses.create(
            model="scripted", instructions=SYSTEM, input=done, tools=tools, previous_response_id=first.id
        )
        return str(then.output_text)

    support(QUESTION)


def mlflow_langgraph() -> None:
    import mlflow
    from langchain.agents import create_agent
    from langchain_openai import ChatOpenAI

    mlflow.langchain.autolog()
    agent = create_agent(ChatOpenAI(model="scripted"), [find_order], system_prompt=SYSTEM)
    asked = {"messages": [{"role": "user", "content": QUESTION}]}
    agent.invoke(asked, config={"configurable": {"thread_id": "session-7"}})


def mlflow_langchain() -> None:
    import mlflow
    from langchain_core.prompts import ChatPromptTemplate
    from langchain_openai import ChatOpenAI

    mlflow.langchain.autolog()
    prompt = ChatPromptTemplate.from_messages([("system", SYSTEM), ("user", "{question}")])
    with mlflow.tracing.context(session_id="session-7"):
        (prompt | ChatOpenAI(model="scripted")).invoke({"question": QUESTION})


def mlflow_pydantic_ai() -> None:
    import mlflow

    mlflow.pydantic_ai.autolog()
    with mlflow.tracing.context(session_id="session-7"):
        _pydantic_agent().run_sync(QUESTION)


def mlflow_dspy() -> None:
    import dspy
    import mlflow

    mlflow.dspy.autolog()
    dspy.configure(lm=dspy.LM("openai/scripted", cache=False))
    with mlflow.tracing.context(session_id="session-7"):
        dspy.ReAct("question -> answer", tools=[find_order], max_iters=4)(question=QUESTION)


def _pydantic_agent() -> Any:
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel

    return Agent(OpenAIChatModel("scripted"), system_prompt=SYSTEM, tools=[find_order])


# --- by OpenTelemetry: spans as OTLP in JSON ---


def otel_genai_events() -> None:
    _openai_v2()


def otel_genai_parts() -> None:
    os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "gen_ai_latest_experimental"
    _openai_v2()


def _openai_v2() -> None:
    os.environ.setdefault("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "true")
    if "OTEL_SEMCONV_STABILITY_OPT_IN" in os.environ:
        os.environ["OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"] = "SPAN_AND_EVENT"
    from opentelemetry.instrumentation.openai_v2 import OpenAIInstrumentor

    OpenAIInstrumentor().instrument()
    _traced_chat()


def otel_pydantic_ai() -> None:
    from pydantic_ai import Agent

    Agent.instrument_all()
    with _tracer().start_as_current_span("request", attributes={"session.id": "session-7"}):
        _pydantic_agent().run_sync(QUESTION)


def openllmetry() -> None:
    from opentelemetry.instrumentation.openai import OpenAIInstrumentor

    OpenAIInstrumentor().instrument()
    _traced_chat()


def openinference() -> None:
    from openinference.instrumentation.openai import OpenAIInstrumentor

    OpenAIInstrumentor().instrument()
    _traced_chat()


def _tracer() -> Any:
    from opentelemetry import trace

    return trace.get_tracer("agent")


def _traced_chat() -> None:
    """One trace, with the tool's own span as the conventions name it."""

    def tool(number: int) -> str:
        told = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "find_order"}
        with _tracer().start_as_current_span("execute_tool find_order", attributes=told):
            return find_order(number)

    about = {"session.id": "session-7", "gen_ai.conversation.id": "session-7"}
    with _tracer().start_as_current_span("invoke_agent support", attributes=about):
        chat(_client(), tool=tool)


AUTOLOG: Final = (
    mlflow_openai, mlflow_openai_stream, mlflow_openai_agents, mlflow_openai_bare, mlflow_responses, mlflow_langgraph, mlflow_langchain, mlflow_pydantic_ai,
    mlflow_dspy,
)  # fmt: skip
OTEL: Final = (otel_genai_events, otel_genai_parts, otel_pydantic_ai, openllmetry, openinference)


def record(name: str, out: Path) -> None:
    """Run one agent in this process and write what its instrumentation said."""
    port = _serve()
    os.environ |= {"OPENAI_API_KEY": "scripted", "OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1"}
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    os.environ |= {"OPENAI_API_BASE": os.environ["OPENAI_BASE_URL"], "MLFLOW_DISABLE_TELEMETRY": "true"}
    run = globals()[name]
    path = out / f"{name}.json"
    text = _autologged(run) if run in AUTOLOG else _exported(run)
    path.write_text(re.sub(rf"127\.0\.0\.1:{port}", "127.0.0.1:8000", text) + "\n")
    print(f"{name}: {path.stat().st_size:,} bytes")


def _autologged(run: Callable[[], None]) -> str:
    import mlflow

    with tempfile.TemporaryDirectory() as folder:
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        experiment = mlflow.create_experiment("support", artifact_location=f"file://{folder}/artifacts")
        mlflow.set_experiment(experiment_id=experiment)
        run()
        mlflow.flush_trace_async_logging()
        found = mlflow.search_traces(locations=[experiment], return_type="list")
        for trace in found:
            _assess(trace.info.trace_id)
        found = [mlflow.get_trace(trace.info.trace_id) for trace in found]
        return json.dumps([_scrubbed(json.loads(one.to_json())) for one in reversed(found)], indent=1)


def _assess(trace_id: str) -> None:
    """What a person, code and a judge say about it."""
    import mlflow
    from mlflow.entities import AssessmentSource

    person, code = AssessmentSource("HUMAN", "ada"), AssessmentSource("CODE", "contains")
    mlflow.log_feedback(trace_id=trace_id, name="thumbs", value=True, source=person, rationale="helped")
    mlflow.log_feedback(
        trace_id=trace_id, name="correctness", value="yes", source=AssessmentSource("LLM_JUDGE", "j1")
    )
    mlflow.log_feedback(trace_id=trace_id, name="score", value=0.75, source=code)
    mlflow.log_expectation(trace_id=trace_id, name="expected_response", value=ANSWER, source=person)
    mlflow.log_feedback(trace_id=trace_id, name="tone", value=3, source=person)


def _scrubbed(trace: dict[str, Any]) -> dict[str, Any]:
    """Without what tells of a machine: paths, users, commits."""
    kept = (
        "mlflow.traceName",
        "mlflow.trace.",
        "mlflow.trace_schema",
        "mlflow.traceInputs",
        "mlflow.traceOutputs",
    )
    info = trace["info"]
    for part in ("tags", "trace_metadata"):
        info[part] = {key: value for key, value in info[part].items() if key.startswith(kept)}
    return trace


def _exported(run: Callable[[], None]) -> str:
    from google.protobuf.json_format import MessageToDict
    from opentelemetry import trace
    from opentelemetry._logs import set_logger_provider
    from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    try:
        from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter
    except ImportError:
        from opentelemetry.sdk._logs.export import InMemoryLogExporter as InMemoryLogRecordExporter
    spans, logs = InMemorySpanExporter(), InMemoryLogRecordExporter()
    provider = TracerProvider(resource=Resource({"service.name": "support"}))
    provider.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(provider)
    events = LoggerProvider(resource=Resource({"service.name": "support"}))
    events.add_log_record_processor(SimpleLogRecordProcessor(logs))
    set_logger_provider(events)
    try:  # of versions before 1.40
        from opentelemetry._events import set_event_logger_provider
        from opentelemetry.sdk._events import EventLoggerProvider

        set_event_logger_provider(EventLoggerProvider(events))
    except ImportError:
        pass
    run()
    told = _hex_ids(MessageToDict(encode_spans(spans.get_finished_spans())))
    records = logs.get_finished_logs()
    if records:
        told |= _hex_ids(MessageToDict(encode_logs(records)))
    return json.dumps(told, indent=1)


def _hex_ids(value: Any) -> Any:
    """OTLP in JSON writes ids in hex, protobuf in base64."""
    import base64

    if isinstance(value, list):
        return [_hex_ids(one) for one in value]
    if not isinstance(value, dict):
        return value
    ids = ("traceId", "spanId", "parentSpanId")
    return {key: base64.b64decode(one).hex() if key in ids else _hex_ids(one) for key, one in value.items()}


def _serve() -> int:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


def main() -> None:
    """Record one by one, each in a process of its own: instrumentations do not undo themselves."""
    out, *names = sys.argv[1:]
    if len(names) == 1:
        record(names[0], Path(out))
        return

    async def all_of_them() -> None:
        for name in names or [run.__name__ for run in (*AUTOLOG, *OTEL)]:
            process = await asyncio.create_subprocess_exec(sys.executable, __file__, out, name)
            if await process.wait():
                print(f"{name}: could not be recorded")

    asyncio.run(all_of_them())


if __name__ == "__main__":
    main()
