"""Spans that MLflow's own instrumentation wrote: what a library was asked and answered, as JSON in JSON."""

from collections import Counter
from typing import Any

from ratchet.infra.traces.dialects.library_values import lm_call_of
from ratchet.infra.traces.dialects.span import RawSpan, SpanFacts, ToolRun, plain, text_of, tokens_of

_LM = ("LLM", "CHAT_MODEL")


def read(span: RawSpan) -> SpanFacts | None:
    """What it says; None where no attribute is MLflow's."""
    said = span.attributes
    if "mlflow.spanType" not in said and "mlflow.spanInputs" not in said:
        return None
    inputs, output = said.get("mlflow.spanInputs"), said.get("mlflow.spanOutputs")
    facts = SpanFacts(inputs=inputs, output=output, usage=_usage(said.get("mlflow.chat.tokenUsage")))
    kind = said.get("mlflow.spanType")
    if kind in _LM:
        notes: Counter[str] = Counter()
        facts.lm = lm_call_of(inputs, output, notes, tools=said.get("mlflow.chat.tools"))
        if facts.lm is not None:
            facts.notes = notes
            model = said.get("mlflow.llm.model")
            if isinstance(model, str):
                facts.lm = facts.lm.model_copy(update={"model": model})
    elif kind == "TOOL":
        call_id = said.get("tool_call_id") or said.get("gen_ai.tool.call.id")
        name = str(said.get("mlflow.spanFunctionName") or span.name).removeprefix("Tool.")
        facts.tool = ToolRun(name, call_id and str(call_id), _arguments(inputs), _result(output))
    metadata = plain(said.get("metadata"))
    if isinstance(metadata, dict) and metadata.get("thread_id"):
        facts.session_id = str(metadata["thread_id"])
    return facts


def _usage(given: Any) -> Any:
    told = plain(given)
    if not isinstance(told, dict):
        return None
    return tokens_of(told, told.get("input_tokens"), told.get("output_tokens"))


def _arguments(inputs: Any) -> Any:
    """DSPy and MLflow's own decorator write the arguments by name, some under `kwargs`."""
    told = plain(inputs)
    if isinstance(told, dict) and set(told) <= {"args", "kwargs"} and isinstance(told.get("kwargs"), dict):
        return told["kwargs"] if not told.get("args") else told
    return told


def _result(output: Any) -> str | None:
    """What came back; LangChain wraps it in a tool message."""
    if output is None:
        return None
    if isinstance(output, dict) and output.get("type") == "tool" and "content" in output:
        return text_of(output["content"])
    return text_of(output)
