"""A conversation and an answer as a person reads them: Markdown, in which nothing of theirs can be markup.

Why Markdown: MLflow's Review page shows a trace's two previews and nothing else, JSON as JSON and any other text as
Markdown. What users and agents wrote keeps its lists and code; images, links and tags in it are shown as they were
written, because a page that a person opens must ask no host that a trace names.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, Final

from ratchet.agent.case import Case
from ratchet.agent.environment import Action
from ratchet.agent.record import Json
from ratchet.agent.trace import Step, Trace
from ratchet.infra.traces.chat_parts import ChatMessage, to_message

CUT: Final = "… (whole in the full trace)"
_REQUEST: Final = ("request", "message", "question", "text")
_FENCE: Final = re.compile(r"^(`{3,})[^`]*$|^(~{3,})")
_MARKUP: Final = re.compile(r"!(?=\[)|(?<=\])(?=[(\[:])|<(?=[A-Za-z/!?])|&(?=#?\w+;)")
_ESCAPED: Final = re.compile(r"\\(?=!\[|<[A-Za-z/!?]|&#?\w+;)|(?<=\])\\(?=[(\[:])")
_BLOCKS: Final = re.compile(r"^\s*(?:`{3,}|~{3,}|\|.*\|\s*$)|^ {4,}\S", re.MULTILINE)
_LISTED: Final = re.compile(r"^\s*(?:[-*+]|\d+[.)])\s")


def as_markdown(text: str) -> str:
    """Somebody's text, with what would fetch, link or run shown as written; an open code fence is closed.

    Only a fence at the beginning of a line counts as code: whatever Markdown might take for something else is treated
    as text.
    """
    lines, fence = [], ""
    for line in text.splitlines():
        if fence:
            mark = line.strip()
            closes = (
                mark and set(mark) == {fence[0]} and len(mark) >= len(fence) and not line.startswith("    ")
            )
            lines.append(line)
            fence = "" if closes else fence
        elif found := _FENCE.match(line):
            fence = found.group(1) or found.group(2)
            lines.append(line)
        else:
            lines.append(_MARKUP.sub(r"\\\g<0>", line))
    return "\n".join([*lines, fence] if fence else lines)


def as_written(markdown: str) -> str:
    """`as_markdown`'s text as it was, for a terminal, which shows Markdown as it stands."""
    return _ESCAPED.sub("", markdown)


def json_block(value: Json) -> str:
    """A value as a block of code."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    return f"```json\n{text}\n```"


def answer_markdown(answer: Json) -> str:
    """An answer: its text, the calls of tools that it is, else its JSON."""
    if isinstance(answer, str):
        return as_markdown(answer) or "(an empty text)"
    calls = answer.get("tool_calls") if isinstance(answer, dict) and len(answer) == 1 else None
    if isinstance(calls, list) and all(isinstance(one, dict) and "name" in one for one in calls):
        return "\n\n".join(call_markdown(str(one["name"]), one.get("arguments")) for one in calls)
    return json_block(answer)


def call_markdown(name: str, arguments: Json = None) -> str:
    """An action, or the call of a tool: its name, and with what."""
    shown = json.dumps(arguments, ensure_ascii=False) if arguments else ""
    return _code(name) + (f" with {_code(shown)}" if shown else "")


def _code(text: str) -> str:
    """On one line, between more backquotes than stand in it."""
    ticks = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    pad = " " if len(ticks) > 1 else ""
    return f"{ticks}{pad}{' '.join(text.split())}{pad}{ticks}"


def chat_messages_of(case: Case, seen: str = "") -> list[dict[str, str]]:
    """What was asked as the messages of a chat, which MLflow draws as bubbles; the content is Markdown.

    Args:
        case: what was asked.
        seen: what the agent saw first, for a case whose inputs hold no words.

    Returns:
        At least one; the last that a user sent is what is to be answered.
    """
    given = case.inputs.get("messages")
    if isinstance(given, list) and given:
        try:
            return [{"role": one.role, "content": _spoken(one)} for one in map(to_message, given)]
        except ValueError:  # no messages of a chat, whatever their name: shown as the data that they are
            pass
    asked = request_markdown(case.inputs)
    values = [str(value) for value in case.inputs.values()]
    if seen not in ("", *values, " ".join(values)) and not any(name in case.inputs for name in _REQUEST):
        asked = "\n\n".join(filter(None, (as_markdown(seen), asked)))
    return [{"role": "user", "content": asked}]


def _spoken(message: ChatMessage) -> str:
    told = [as_markdown(message.text)] if message.text else []
    told += [call_markdown(call.name, _parsed(call.arguments)) for call in message.calls]
    told += [as_markdown(answer.text) for answer in message.answers if answer.text != message.text]
    return "\n\n".join(told)


def _parsed(arguments: Any) -> Json:
    try:
        return json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        return arguments


def request_markdown(inputs: Mapping[str, Json]) -> str:
    """A case's inputs: its request as text, and everything else under its name, what may be chosen as a list."""
    name = next((one for one in _REQUEST if isinstance(inputs.get(one), str)), None)
    if name is None and len(inputs) == 1 and isinstance(only := next(iter(inputs.values())), str):
        return as_markdown(only)
    told = [] if name is None else [as_markdown(str(inputs[name]))]
    told += [_named(key, value) for key, value in inputs.items() if key != name]
    return "\n\n".join(told)


def _named(name: str, value: Json) -> str:
    if isinstance(value, list) and value and all(isinstance(one, dict) and "name" in one for one in value):
        options = [f"- {_code(str(one['name']))}{_described(one)}" for one in value]
        return "\n".join([f"**{as_markdown(name)}**", "", *options])
    if isinstance(value, str | int | float | bool) or value is None:
        text = str(value)
        return f"**{as_markdown(name)}:** {as_markdown(text)}"
    return f"**{as_markdown(name)}**\n\n{json_block(value)}"


def _described(option: Mapping[str, Json]) -> str:
    said = option.get("description")
    return f": {_on_one_line(said)}" if isinstance(said, str) and said.strip() else ""


def first_seen(trace: Trace) -> str:
    """What the agent saw first."""
    steps = trace.attempts[0].steps if trace.attempts else ()
    return steps[0].observation if steps else ""


def reply_markdown(trace: Trace) -> str:
    """What the agent did: its answer, after the steps that led to it, or how it broke."""
    steps = trace.attempts[-1].steps if trace.attempts else ()
    told = [_step(number, step) for number, step in enumerate(steps[:-1], start=1)]
    if steps:
        told += ["---"] if told else []
        told.append(_done(steps[-1].action))
    if trace.error is not None:
        told.append(f"**broke** ({trace.error.kind}): {as_markdown(trace.error.message)}")
    return "\n\n".join(told) or "(nothing was done)"


def _step(number: int, step: Step) -> str:
    result = f"\n\n> {_on_one_line(step.result)}" if step.result else ""
    return f"**{number}.** {_done(step.action)}{result}"


def _done(action: Action) -> str:
    return answer_markdown(action.said) if action.is_free else call_markdown(action.name, action.arguments)


def _on_one_line(text: str) -> str:
    return as_markdown(" ".join(text.split()))


def transcript(messages: Sequence[Mapping[str, str]]) -> str:
    """The messages one below the other, each under who spoke."""
    return "\n\n".join(f"**{one['role']}**\n\n{one['content']}" for one in messages if one["content"])


def side_by_side(names: Sequence[str], answers: Sequence[str]) -> str:
    """Answers (Markdown) beside each other, a row a paragraph; blocks and many answers one below another."""
    if len(answers) != 2 or any(_BLOCKS.search(one) for one in answers):
        return "\n\n---\n\n".join(f"#### {name}\n\n{one}" for name, one in zip(names, answers, strict=True))
    rows = zip_longest(*map(_paragraphs, answers), fillvalue="")
    table = [
        f"| {' | '.join(names)} |",
        f"|{'---|' * len(names)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    return "\n".join(table)


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        lines = paragraph.splitlines()
        apart = any(_LISTED.match(line) for line in lines)
        for line in lines if apart else [" ".join(lines)]:
            yield line.strip().replace("|", r"\|")


def cut(text: str, limit: int) -> str:
    """At most `limit` characters, and said so where some are missing."""
    if len(text) <= limit:
        return text
    kept = text[: max(limit - len(CUT) - 5, 0)].rstrip()
    fence = "\n```" if kept.count("```") % 2 else ""
    return f"{kept}{fence} {CUT}"[:limit]
