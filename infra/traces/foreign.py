"""Traces that Ratchet did not write, in the project's own experiment, as traces of the project.

Decision: which version made one is read, never guessed: its tag, else the versions of the prompts that it loaded,
else a system text that exactly one version has. Where none of them says it, it is `unknown`: the case counts, and can
be played; the answer is nobody's.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from mlflow.entities import Span, SpanEvent
from mlflow.entities import Trace as MlflowTrace
from pydantic import ValidationError

from ratchet.agent.case import Case
from ratchet.agent.errors import BadInput, CorruptRecord
from ratchet.agent.record import Json
from ratchet.agent.seen import AskedCase, Called, SeenTrace
from ratchet.agent.trace import RECALLED, UNKNOWN, Trace
from ratchet.infra.traces.chat_parts import ChatMessage
from ratchet.infra.traces.conversation import Conversation, LinkedPrompt, trace_of
from ratchet.infra.traces.dialects.library_values import answer_in
from ratchet.infra.traces.dialects.mlflow_export import conversation_of_trace, failure
from ratchet.infra.traces.dialects.span import RawSpan
from ratchet.infra.traces.feedback import FeedbackNames
from ratchet.infra.traces.formats.format import misshapen_told
from ratchet.infra.traces.spans import own_id

_SLICE: Final = "slice"
_TRACE_ID: Final = re.compile(r"[0-9a-f]{32}")
_OBJECTIVE: Final = "your objective is:"
"""What DSPy writes before a predictor's instructions, which end its system message."""


@dataclass(frozen=True)
class KnownVersions:
    """What is known of a project's versions, by which a trace may tell which of them made it."""

    prompts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Candidate → versions of the prompts that it serves by, by their names in MLflow's registry."""
    texts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Candidate → text of each of its prompts, by name."""

    def maker(self, conversation: Conversation) -> str:
        """The candidate that made it, or `unknown`."""
        if conversation.candidate_id:
            return conversation.candidate_id
        linked = [name for name, served in self.prompts.items() if _serves(served, conversation.prompts)]
        if len(linked) == 1:
            return linked[0]
        systems = {call.system for call in conversation.lm_calls} | {conversation.system}
        told = {_even(one) for text in systems for one in (text, text.rpartition(_OBJECTIVE)[2])} - {""}
        texts = {name: set(map(_even, prompts.values())) for name, prompts in self.texts.items()}
        known = told & set().union(*texts.values())
        said = [name for name in linked or texts if known and known <= texts.get(name, set())]
        return said[0] if len(said) == 1 else UNKNOWN

    def actor(self, system: str) -> str | None:
        """The prompt under which a call was made: the longest text of one that its system text holds.

        Held and not equal: DSPy writes what the fields are around a predictor's instructions.
        """
        whole = _even(system)
        held = {
            (len(told), name)
            for texts in self.texts.values()
            for name, text in texts.items()
            if (told := _even(text)) and told in whole
        }
        longest = {name for size, name in held if size == max(held)[0]}
        return next(iter(longest)) if len(longest) == 1 else None


def _even(text: str) -> str:
    return " ".join(text.split())


def _serves(served: Mapping[str, str], linked: Sequence[LinkedPrompt]) -> bool:
    """Whether all prompts that were loaded and that the version has are of its versions, and there is one."""
    shared = [one for one in linked if one.name in served]
    return bool(shared) and all(served[one.name] == one.version for one in shared)


def _by_request(seen: SeenTrace) -> AskedCase:
    return AskedCase({"request": seen.request})


@dataclass(frozen=True)
class Reading:
    """By what a project reads traces that it did not write, and assessments."""

    case_of: Callable[[SeenTrace], AskedCase] = _by_request
    """What the agent was asked."""
    versions: Callable[[], KnownVersions] = KnownVersions
    """AskedCase once a reading, and only where a foreign trace came in."""
    names: FeedbackNames = field(default_factory=FeedbackNames)


def foreign_trace(
    found: MlflowTrace, reading: Reading, versions: KnownVersions
) -> tuple[Trace, Counter[str]]:
    """The trace as the project's own form has it, and in words what of it was not kept whole.

    Raises:
        CorruptRecord: nothing in it says what an agent was asked and answered; it is still in MLflow.
    """
    info, where = found.info, f"MLflow trace {found.info.trace_id}"
    if not found.data.spans:
        raise CorruptRecord(f"{where}: it has no spans, or they are gone: nothing can be read from it")
    metadata = info.trace_metadata or {}
    try:
        with misshapen_told():
            spans = [raw_span(one) for one in found.data.spans]
            told = conversation_of_trace(spans, tags=info.tags, metadata=metadata)
            seen = _seen(told)
        asked = reading.case_of(seen)
        if asked.answer is None and not _acted(told):
            raise BadInput(_nothing(told))
        trace, notes = trace_of(
            told,
            trace_id=own_id(info.trace_id),
            candidate_id=versions.maker(told),
            seen_at=datetime.fromtimestamp(info.timestamp_ms / 1000, UTC),
            case=Case(inputs=asked.inputs, slice=info.tags.get(_SLICE)),
            answer=asked.answer,
            actor_of=versions.actor,
        )
        return _shown(trace, info.tags.get(RECALLED, "")), notes
    except (BadInput, ValidationError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise CorruptRecord(f"{where}: {reason}") from error


def _shown(trace: Trace, told: str) -> Trace:
    """With the examples that its tag names; whoever may label may write a tag."""
    ids = tuple(dict.fromkeys(one for one in told.split(",") if _TRACE_ID.fullmatch(one)))
    attempts = tuple(one.model_copy(update={"recalled": ids}) for one in trace.attempts)
    return trace.model_copy(update={"attempts": attempts}) if ids else trace


def _acted(told: Conversation) -> bool:
    """Whether an LM answered, or somebody's code failed: tools that ran by themselves are no agent."""
    is_failure = told.error is not None and bool(told.functions or told.lm_calls)
    return is_failure or any(call.answer is not None for call in told.lm_calls)


def _nothing(told: Conversation) -> str:
    said = "; ".join(f"{times} × {note}" for note, times in told.notes.items())
    return "no message of an LM in its spans, and its outermost span was not given what the agent takes" + (
        f" ({said})" if said else ""
    )


def _seen(told: Conversation) -> SeenTrace:
    last = next((one for one in reversed(told.lm_calls) if one.answer is not None), None)
    system, given = (told.system, told.messages) if last is None else (last.system, last.given)
    head: list[Json] = [{"role": "system", "content": system}] if system else []
    users = [one.text for one in given if one.role == "user" and one.text]
    return SeenTrace(
        called=tuple(Called(one.name, one.inputs, answer_in(one.output)) for one in told.functions),
        request=users[-1] if users else told.last_request,
        messages=(*head, *(one for message in given for one in openai_messages(message))),
        reply=None if last is None or last.answer is None else openai_messages(last.answer)[-1],
        tools=told.tools,
    )


def openai_messages(message: ChatMessage) -> list[dict[str, Any]]:
    """The message as a chat endpoint takes it; each tool's result is one of its own."""
    results = [
        {"role": "tool", "tool_call_id": answer.call_id or answer.name or "", "content": answer.text}
        for answer in message.answers
    ]
    known = ("text", "reasoning", "tool_call", "tool_call_response")
    media = [part for part in message.parts if part.get("type") not in known]
    if results and not message.text:
        return results
    content: Any = message.text
    if media:
        content = [
            {"type": "text", "text": part["content"]} if part.get("type") == "text" else part
            for part in message.parts
            if part.get("type") in ("text", *(one.get("type") for one in media))
        ]
    calls = [
        {
            "id": call.call_id or call.name,
            "type": "function",
            "function": {"name": call.name, "arguments": _text(call.arguments)},
        }
        for call in message.calls
    ]
    said = {"role": message.role, "content": content if content or not calls else None}
    return [*results, said | ({"tool_calls": calls} if calls else {})]


def _text(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments or {}, ensure_ascii=False)


def raw_span(span: Span) -> RawSpan:
    """MLflow's span as plain data."""
    events = [_event(one) for one in span.events]
    status = span.status
    return RawSpan(
        span_id=span.span_id,
        parent_id=span.parent_id,
        name=span.name,
        start_ns=int(span.start_time_ns or 0),
        end_ns=int(span.end_time_ns or span.start_time_ns or 0),
        attributes=span.attributes,
        events=tuple(events),
        error=failure(str(status.status_code.value), status.description or "", events),
    )


def _event(event: SpanEvent) -> tuple[str, Mapping[str, Any]]:
    return event.name, event.attributes or {}
