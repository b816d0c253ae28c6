"""LangSmith's runs: one a record, put together by their trace's id; values as LangChain or OpenAI wrote them."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ratchet.agent.record import as_text
from ratchet.agent.trace import Usage
from ratchet.infra.files.cells import parse_time
from ratchet.infra.traces.conversation import Assessed, Conversation
from ratchet.infra.traces.dialects.library_values import lm_call_of
from ratchet.infra.traces.dialects.reading import conversation_of_facts
from ratchet.infra.traces.dialects.span import RawSpan, SpanFacts, ToolRun, decoded, tokens_of


def looks_like(record: Any) -> bool:
    """Whether it is a run."""
    return isinstance(record, dict) and "run_type" in record and ("trace_id" in record or "id" in record)


def conversations(records: Iterable[Any]) -> Iterator[Conversation]:
    """One a trace, in the order in which the traces begin in the file."""
    traces: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        for run in _with_children(record):
            traces.setdefault(str(run.get("trace_id") or run.get("id")), []).append(run)
    for trace_id, runs in traces.items():
        yield _conversation(trace_id, runs)


def _with_children(run: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield run
    for child in run.get("child_runs") or []:
        if isinstance(child, dict):
            yield from _with_children({"trace_id": run.get("trace_id") or run.get("id"), **child})


def _conversation(trace_id: str, runs: Sequence[Mapping[str, Any]]) -> Conversation:
    spans = [_span(run) for run in runs]
    facts = {span.span_id: _facts(run) for span, run in zip(spans, runs, strict=True)}
    told = conversation_of_facts(spans, facts)
    about = [_metadata(run) for run in runs]
    sessions = (one.get(k) for one in about for k in ("session_id", "thread_id", "conversation_id"))
    users = (one.get("user_id") for one in about)
    root = next((run for run in runs if not run.get("parent_run_id")), runs[0])
    start = min(span.start_ns for span in spans)
    return told.model_copy(
        update={
            "session_id": next((str(one) for one in sessions if one), None),
            "user": next((str(one) for one in users if one), None),
            "started_at": datetime.fromtimestamp(start / 1e9, UTC) if start else None,
            "assessed": tuple(_feedback(root)),
            "identity": ["langsmith", trace_id],
        }
    )


def _metadata(run: Mapping[str, Any]) -> Mapping[str, Any]:
    extra = run.get("extra")
    found = extra.get("metadata") if isinstance(extra, dict) else None
    return found if isinstance(found, dict) else {}


def _span(run: Mapping[str, Any]) -> RawSpan:
    start, end = parse_time(run.get("start_time")), parse_time(run.get("end_time"))
    began = 0 if start is None else int(start.timestamp() * 1e9)
    return RawSpan(
        span_id=str(run.get("id")),
        parent_id=str(run.get("parent_run_id") or "") or None,
        name=str(run.get("name") or ""),
        start_ns=began,
        end_ns=began if end is None else int(end.timestamp() * 1e9),
        attributes={},
        error=str(run["error"]) if run.get("error") else None,
    )


def _facts(run: Mapping[str, Any]) -> SpanFacts:
    inputs, output = decoded(run.get("inputs")), decoded(run.get("outputs"))
    facts = SpanFacts(inputs=inputs, output=_unwrapped(output))
    if run.get("run_type") == "llm":
        extra = run.get("extra")
        params = extra.get("invocation_params") if isinstance(extra, dict) else None
        asked = params if isinstance(params, dict) else {}
        notes: Counter[str] = Counter()
        facts.lm = lm_call_of(inputs, output, notes, tools=asked.get("tools"))
        model = _metadata(run).get("ls_model_name") or asked.get("model")
        if facts.lm is not None:
            facts.lm = facts.lm.model_copy(update={"model": str(model) if model else facts.lm.model})
            facts.notes = notes
        facts.usage = _usage(run, output)
    elif run.get("run_type") == "tool":
        call_id = inputs.get("tool_call_id") or inputs.get("id") if isinstance(inputs, dict) else None
        told = decoded(inputs.get("input", inputs)) if isinstance(inputs, dict) else inputs
        result = _unwrapped(output)
        if isinstance(result, dict):
            call_id = call_id or result.get("tool_call_id")
            result = result.get("content", result)
        text = None if result is None else as_text(result)
        facts.tool = ToolRun(str(run.get("name") or ""), call_id and str(call_id), told, text)
    return facts


def _unwrapped(output: Any) -> Any:
    """A value that is none by itself stands under `output`."""
    if isinstance(output, dict) and set(output) == {"output"}:
        held = output["output"]
        return held.get("kwargs", held) if isinstance(held, dict) and "lc" in held else held
    return output


def _usage(run: Mapping[str, Any], output: Any) -> Usage | None:
    told = (output.get("usage_metadata") or output.get("usage")) if isinstance(output, dict) else None
    held = (output.get("llm_output") or {}).get("token_usage") if isinstance(output, dict) else None
    counted = {**(held or {}), **(told or {})}
    sent = run.get("prompt_tokens") or counted.get("input_tokens") or counted.get("prompt_tokens")
    got = run.get("completion_tokens") or counted.get("output_tokens") or counted.get("completion_tokens")
    return tokens_of(None, sent, got)


def _feedback(run: Mapping[str, Any]) -> Iterator[Assessed]:
    """Feedback one by one, where the export has it; else the mean of each key."""
    for one in run.get("feedback") or []:
        source = (one.get("feedback_source") or {}).get("type")
        value = one.get("score") if one.get("score") is not None else one.get("value")
        if one.get("correction") is not None:
            yield Assessed(name=str(one.get("key")), value=one["correction"], kind="expected", source="human")
        if value is not None:
            yield Assessed(
                name=str(one.get("key")),
                value=value,
                source="judge" if source == "model" else "human" if source == "app" else "environment",
                rater=str((one.get("feedback_source") or {}).get("user_id") or source or ""),
                comment=str(one.get("comment") or ""),
                at=parse_time(one.get("created_at")),
            )
    if run.get("feedback"):
        return
    stats = run.get("feedback_stats")
    for key, told in stats.items() if isinstance(stats, dict) else ():
        if isinstance(told, dict) and told.get("avg") is not None:
            yield Assessed(name=str(key), value=told["avg"], source="environment", rater="feedback_stats")
