"""Spans that MLflow's own instrumentation wrote: what a library was asked and answered, as JSON in JSON."""

from collections import Counter
from typing import Any

from ratchet.agent.record import as_text
from ratchet.infra.traces.dialects.library_values import lm_call_of
from ratchet.infra.traces.dialects.span import RawSpan, SpanFacts, ToolRun, decoded, tokens_of

_LM = ("LLM", "CHAT_MODEL")
_PIECES, _PIECE = "mlflow.chunk.item.", "mlflow.chunk.value"
"""Names of the events, and of what each holds."""


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
        facts.lm = lm_call_of(inputs, _streamed(span) or output, notes, tools=said.get("mlflow.chat.tools"))
        if facts.lm is not None:
            facts.notes = notes
            model = said.get("mlflow.llm.model")
            if isinstance(model, str):
                facts.lm = facts.lm.model_copy(update={"model": model})
    elif kind == "TOOL":
        call_id = said.get("tool_call_id") or said.get("gen_ai.tool.call.id")
        name = str(said.get("mlflow.spanFunctionName") or span.name).removeprefix("Tool.")
        facts.tool = ToolRun(name, call_id and str(call_id), _arguments(inputs), _result(output))
    metadata = decoded(said.get("metadata"))
    if isinstance(metadata, dict) and metadata.get("thread_id"):
        facts.session_id = str(metadata["thread_id"])
    return facts


def _streamed(span: RawSpan) -> Any:
    """A streamed reply that called tools, from its pieces: MLflow's own putting together leaves the calls out."""
    calls: dict[int, dict[str, str]] = {}
    text = ""
    for name, event in span.events:
        chunk = decoded(event.get(_PIECE)) if name.startswith(_PIECES) else None
        for choice in chunk.get("choices") or [] if isinstance(chunk, dict) else []:
            delta = choice.get("delta") or {}
            text += delta.get("content") or ""
            for part in delta.get("tool_calls") or []:
                call = calls.setdefault(part.get("index") or 0, {"id": "", "name": "", "arguments": ""})
                told = {**(part.get("function") or {}), "id": part.get("id")}
                for key in call:
                    call[key] += told.get(key) or ""
    if not calls:
        return None
    return {
        "choices": [{"message": {"role": "assistant", "content": text, "tool_calls": list(calls.values())}}]
    }


def _usage(given: Any) -> Any:
    told = decoded(given)
    if not isinstance(told, dict):
        return None
    return tokens_of(told, told.get("input_tokens"), told.get("output_tokens"))


def _arguments(inputs: Any) -> Any:
    """DSPy and MLflow's own decorator write the arguments by name, some under `kwargs`."""
    told = decoded(inputs)
    if isinstance(told, dict) and set(told) <= {"args", "kwargs"} and isinstance(told.get("kwargs"), dict):
        return told["kwargs"] if not told.get("args") else told
    return told


def _result(output: Any) -> str | None:
    """What came back; LangChain wraps it in a tool message."""
    if output is None:
        return None
    if isinstance(output, dict) and output.get("type") == "tool" and "content" in output:
        return as_text(output["content"])
    return as_text(output)
