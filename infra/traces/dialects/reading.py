"""The spans of one trace, in any mixture of dialects, as the conversation that they tell.

Why the calls of the LM decide and not the outermost span: what an agent was told and did stands there whole; the
outer spans hold the function's arguments and value. Inputs repeat the history, so that the longest call tells a
conversation; a tool's own span gives the result that no later message repeats. Of two spans about one call the inner
counts.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from ratchet.agent.record import Json, as_json
from ratchet.agent.trace import Usage
from ratchet.infra.traces.chat_parts import ChatMessage
from ratchet.infra.traces.conversation import Conversation, FunctionCall
from ratchet.infra.traces.dialects import genai, mlflow_autolog, openinference, openllmetry, vercel
from ratchet.infra.traces.dialects.span import RawSpan, SpanFacts, ToolRun, decoded, first_attribute
from ratchet.infra.traces.dialects.tool_runs import with_results
from ratchet.infra.traces.lm_calls import LmCall, threads

_DIALECTS: Final[tuple[Callable[[RawSpan], SpanFacts | None], ...]] = (
    openllmetry.read,
    vercel.read,
    openinference.read,
    genai.read,
    mlflow_autolog.read,
)
"""MLflow's last: it translates some of the others, and leaves out parts of them."""
_SESSIONS: Final = ("session.id", "langfuse.session.id", "session_id", "mlflow.trace.session")
_USERS: Final = ("user.id", "enduser.id", "langfuse.user.id", "mlflow.trace.user")


def conversation_of(spans: Sequence[RawSpan]) -> Conversation:
    """What the spans of one trace tell; of spans that no dialect knows, the outermost's times and failure alone."""
    return conversation_of_facts(spans, {one.span_id: _facts(one) for one in spans})


def conversation_of_facts(spans: Sequence[RawSpan], facts: Mapping[str, SpanFacts]) -> Conversation:
    """The same, of spans that were read already: facts by the span's id."""
    ordered = sorted(spans, key=lambda one: (one.start_ns, one.parent_id is not None))
    parents = {one.span_id: one.parent_id for one in ordered}
    root = next((one for one in ordered if one.parent_id not in facts), None)
    notes: Counter[str] = Counter()
    calling = _innermost([one for one in ordered if facts[one.span_id].lm is not None], parents)
    calls: list[tuple[int, LmCall]] = []
    for span in calling:
        found = facts[span.span_id]
        if found.lm is not None:
            calls.append((span.start_ns, found.lm))
            notes += found.notes
    if not calls:
        calls = _histories(ordered, facts, notes)
    runs = [
        (one.start_ns, run)
        for one in _outermost([one for one in ordered if facts[one.span_id].tool is not None], parents)
        if (run := facts[one.span_id].tool) is not None
    ]
    lm_calls, told = with_results(calls, runs)
    notes += told
    system, messages = _longest(lm_calls)
    return Conversation(
        messages=messages,
        system=system,
        tools=next((call.tools for _, call in reversed(calls) if call.tools), ()),
        lm_calls=tuple(lm_calls),
        inputs=None if root is None else _value(facts[root.span_id].inputs, notes),
        output=None if root is None else _value(facts[root.span_id].output, notes),
        functions=tuple(_functions(ordered, facts, notes)),
        usage=_usage(ordered, calling, facts),
        model=next((call.model for _, call in reversed(calls) if call.model), None),
        session_id=_told(ordered, facts, "session_id", _SESSIONS),
        user=_told(ordered, facts, "user", _USERS),
        latency_s=max(0.0, (max(one.end_ns for one in ordered) - ordered[0].start_ns) / 1e9)
        if ordered
        else 0.0,
        error=None if root is None else root.error,
        notes=notes,
    )


def _facts(span: RawSpan) -> SpanFacts:
    """By the first dialect that reads a call or a tool in it; what was given and came back, by whichever says it."""
    read = [one for one in (dialect(span) for dialect in _DIALECTS) if one is not None]
    chosen = next((one for one in read if one.lm is not None or one.tool is not None), None)
    facts = chosen or next((one for one in read if one.history is not None), SpanFacts())
    for other in read:
        facts.inputs = other.inputs if facts.inputs is None else facts.inputs
        facts.output = other.output if facts.output is None else facts.output
        facts.usage = facts.usage or other.usage
        facts.session_id, facts.user = facts.session_id or other.session_id, facts.user or other.user
        facts.history = facts.history or other.history
        if facts.tool is not None and other.tool is not None:
            facts.tool = _completed(facts.tool, other.tool)
    if chosen is None:
        facts.notes = sum((one.notes for one in read), Counter[str]())
    if facts.tool is not None:
        facts.tool = _completed(facts.tool, ToolRun("", None, decoded(facts.inputs), None))
    return facts


def _completed(run: ToolRun, other: ToolRun) -> ToolRun:
    return replace(
        run,
        call_id=run.call_id or other.call_id,
        arguments=other.arguments if run.arguments is None else run.arguments,
        result=other.result if run.result is None else run.result,
    )


def _innermost(spans: Sequence[RawSpan], parents: dict[str, str | None]) -> list[RawSpan]:
    """Those with none of the others below them."""
    above = {name for one in spans for name in _ancestors(one.span_id, parents)}
    return [one for one in spans if one.span_id not in above]


def _outermost(spans: Sequence[RawSpan], parents: dict[str, str | None]) -> list[RawSpan]:
    """Those with none of the others above them."""
    ids = {one.span_id for one in spans}
    return [one for one in spans if not ids & set(_ancestors(one.span_id, parents))]


def _ancestors(span_id: str, parents: dict[str, str | None]) -> list[str]:
    found: list[str] = []
    above = parents.get(span_id)
    while above is not None and above not in found:
        found.append(above)
        above = parents.get(above)
    return found


def _histories(
    ordered: Sequence[RawSpan], facts: Mapping[str, SpanFacts], notes: Counter[str]
) -> list[tuple[int, LmCall]]:
    """Where no call of an LM was recorded: what an agent's span holds of its conversation."""
    for span in ordered:
        notes += facts[span.span_id].notes
    return [
        (span.start_ns, history) for span in ordered if (history := facts[span.span_id].history) is not None
    ]


def _value(given: Any, notes: Counter[str]) -> Json:
    """What was given or came back, where JSON can hold it."""
    try:
        return as_json(decoded(given))
    except ValueError:
        notes["value of a span that JSON cannot hold, left out"] += 1
        return None


def _functions(
    ordered: Sequence[RawSpan], facts: Mapping[str, SpanFacts], notes: Counter[str]
) -> Iterator[FunctionCall]:
    for span in ordered:
        told = facts[span.span_id]
        if told.lm is None and told.tool is None and (told.inputs is not None or told.output is not None):
            inputs, output = _value(told.inputs, notes), _value(told.output, notes)
            yield FunctionCall(name=span.name, inputs=inputs, output=output)


def _longest(calls: Sequence[LmCall]) -> tuple[str, tuple[ChatMessage, ...]]:
    """The conversation that tells most, the last of several."""
    found = threads(calls)
    if not found:
        return "", ()
    chosen = max(reversed(found), key=lambda one: len(one.messages))
    return chosen.system, chosen.messages


def _usage(ordered: Sequence[RawSpan], calling: Sequence[RawSpan], facts: Mapping[str, SpanFacts]) -> Usage:
    """The sum over the LM's spans; where they say nothing, what the outermost span that counts has counted."""
    counted = [used for one in calling if (used := facts[one.span_id].usage) is not None]
    if not counted:
        counted = [used for one in ordered if (used := facts[one.span_id].usage) is not None][:1]
    total = sum(counted, Usage())
    return total.model_copy(update={"lm_calls": len(calling)})


def _told(
    ordered: Sequence[RawSpan], facts: Mapping[str, SpanFacts], field: str, names: Sequence[str]
) -> str | None:
    """By an attribute of its own on any span, the outermost first; else as the dialects say it."""
    for span in ordered:
        found: Any = first_attribute(span.attributes, *names)
        if found is not None:
            return str(found)
    return next((str(told) for one in ordered if (told := getattr(facts[one.span_id], field))), None)
