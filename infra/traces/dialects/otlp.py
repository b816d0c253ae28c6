"""OTLP in JSON, as OpenTelemetry's file exporters write it: spans, and log records that name one, of many traces."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from ratchet.evaluation.data.labels import Source
from ratchet.infra.traces.conversation import Assessed, Conversation
from ratchet.infra.traces.dialects.reading import conversation_of
from ratchet.infra.traces.dialects.span import RawSpan, first_attribute

_ANNOTATION: Final = ("name", "label", "score", "explanation", "annotator_kind", "identifier")
_ANNOTATORS: Final[Mapping[str, Source]] = {"HUMAN": "human", "LLM": "judge", "CODE": "environment"}
_FAILED: Final = (2, "STATUS_CODE_ERROR")


def looks_like(record: Any) -> bool:
    """Whether it holds spans or log records."""
    return isinstance(record, dict) and any(
        isinstance(record.get(name), list) for name in ("resourceSpans", "resource_spans", "resourceLogs")
    )


def conversations(records: Iterable[Any]) -> Iterator[Conversation]:
    """One a trace, in the order of their beginnings; spans of one trace may stand in several records."""
    spans: dict[str, list[RawSpan]] = defaultdict(list)
    logged: dict[str, list[tuple[str, Mapping[str, Any]]]] = defaultdict(list)
    for record in records:
        for entry in _each(record, "resourceLogs", "scopeLogs", "logRecords"):
            logged[_id(entry, "spanId")].append(_event(entry))
        for entry in _each(record, "resourceSpans", "scopeSpans", "spans"):
            spans[_id(entry, "traceId")].append(span_of(entry))
    for trace_id, found in sorted(spans.items(), key=lambda item: min(one.start_ns for one in item[1])):
        whole = [_with_logs(span, logged.get(span.span_id, ())) for span in found]
        conversation = conversation_of(whole)
        start = datetime.fromtimestamp(min(one.start_ns for one in whole) / 1e9, UTC)
        assessed = tuple(one for span in whole for one in _assessed(span))
        update = {"started_at": start, "identity": ["otlp", trace_id], "assessed": assessed}
        yield conversation.model_copy(update=update)


def _assessed(span: RawSpan) -> Iterator[Assessed]:
    """Evaluations by the GenAI conventions, which do not say who made them, and OpenInference's annotations."""
    for name, said in span.events:
        if name == "gen_ai.evaluation.result":
            yield Assessed(
                name=str(said.get("gen_ai.evaluation.name") or ""),
                value=first_attribute(said, "gen_ai.evaluation.score.value", "gen_ai.evaluation.score.label"),
                source="judge",
                rater="otlp",
                comment=str(said.get("gen_ai.evaluation.explanation") or ""),
            )
    if span.attributes.get("annotation.name"):
        said = {name: span.attributes.get(f"annotation.{name}") for name in _ANNOTATION}
        yield Assessed(
            name=str(said["name"]),
            value=first_attribute(said, "score", "label"),
            source=_ANNOTATORS.get(str(said["annotator_kind"]), "environment"),
            rater=str(said["identifier"] or "otlp"),
            comment=str(said["explanation"] or ""),
        )


def _each(record: Any, *names: str) -> Iterator[dict[str, Any]]:
    first, *others = names
    found = record.get(first) or record.get(_snake(first)) or []
    for entry in found if isinstance(found, list) else []:
        if not isinstance(entry, dict):
            continue
        if others:
            yield from _each(entry, *others)
        else:
            yield entry


def span_of(entry: Mapping[str, Any]) -> RawSpan:
    """One span in OTLP's JSON."""
    events = entry.get("events") or []
    return RawSpan(
        span_id=_id(entry, "spanId"),
        parent_id=_id(entry, "parentSpanId") or None,
        name=str(entry.get("name", "")),
        start_ns=int(_get(entry, "startTimeUnixNano") or 0),
        end_ns=int(_get(entry, "endTimeUnixNano") or 0),
        attributes=_attributes(entry.get("attributes")),
        events=tuple((str(one.get("name", "")), _attributes(one.get("attributes"))) for one in events),
        error=_error(entry),
    )


def _error(entry: Mapping[str, Any]) -> str | None:
    status = entry.get("status") or {}
    if status.get("code") not in _FAILED:
        return None
    for event in entry.get("events") or []:
        if event.get("name") == "exception":
            told = _attributes(event.get("attributes"))
            return ": ".join(
                str(told[key]) for key in ("exception.type", "exception.message") if told.get(key)
            )
    return str(status.get("message") or "the span ended with an error")


def _event(entry: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    attributes = _attributes(entry.get("attributes"))
    body = _value(entry.get("body") or {})
    name = _get(entry, "eventName") or attributes.get("event.name") or ""
    return str(name), {**attributes, **(body if isinstance(body, dict) else {"body": body})}


def _with_logs(span: RawSpan, events: Iterable[tuple[str, Mapping[str, Any]]]) -> RawSpan:
    more = tuple(events)
    if not more:
        return span
    return RawSpan(**{**vars(span), "events": (*span.events, *more)})


def _attributes(given: Any) -> dict[str, Any]:
    return {
        str(one.get("key")): _value(one.get("value") or {}) for one in given or [] if isinstance(one, dict)
    }


def _value(given: Any) -> Any:
    """OTLP's tagged value as plain data."""
    if not isinstance(given, dict):
        return given
    for name, value in given.items():
        if name in ("arrayValue", "array_value"):
            return [_value(one) for one in (value or {}).get("values") or []]
        if name in ("kvlistValue", "kvlist_value"):
            return _attributes((value or {}).get("values"))
        if name in ("intValue", "int_value"):
            return int(value)
        return value
    return None


def _get(entry: Mapping[str, Any], name: str) -> Any:
    return entry[name] if name in entry else entry.get(_snake(name))


def _id(entry: Mapping[str, Any], name: str) -> str:
    return str(_get(entry, name) or "")


def _snake(name: str) -> str:
    return "".join(f"_{one.lower()}" if one.isupper() else one for one in name)
