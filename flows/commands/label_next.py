"""`ratchet label`: one waiting item after the other, blind, each answered with one key.

Why the gate's questions first: a test stands still until they are answered, and unanswered they count against the
challenger; a training pick loses nothing by waiting.
"""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

import click
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from ratchet.agent.record import as_text
from ratchet.agent.trace import Trace
from ratchet.evaluation.gate.questions import Outcome, Question, Reply
from ratchet.flows.commands.terminal import console, outside
from ratchet.infra.review.back_end import BackEnd
from ratchet.infra.review.queue import ReviewItem, answer, pending
from ratchet.infra.traces.lookup import look_up_traces
from ratchet.infra.traces.markdown import as_written, chat_messages_of, first_seen, reply_markdown

_TWO: Final = {"l": (0,), "r": (1,), "b": (0, 1), "n": ()}
_TWO_KEYS: Final = (
    "l left · r right · b both · n neither · w write a better one · s skip · u rubric unclear · q quit"
)
_MORE_KEYS: Final = (
    "the letters of those that are right, or n none · w write · s skip · u rubric unclear · q quit"
)
_PICK_KEYS: Final = "y right · n wrong · g grade 0 to 1 · w write the right answer · s skip · q quit"
_LONGEST: Final = 4000
"""Characters of one message or answer that are shown."""
_AT_ONCE: Final = 50


class Gone(NamedTuple):
    """What came of going through what waits."""

    answered: int
    left: int
    quit: bool


class _Quit(Exception):
    """The person has had enough."""


def go_through(project: str, rater: str, desk: BackEnd) -> Gone:
    """Show what waits for `rater`, the gate's questions first, and write each answer at once."""
    questions = desk.pending_comparisons(project, rater)
    picks = pending(project)
    n, done = len(questions) + len(picks), 0
    try:
        for place, question in enumerate(questions, start=1):
            _compare(question, f"{place} of {n}")
            desk.reply(project, _said_of(question, rater))
            done += 1
        for start in range(0, len(picks), _AT_ONCE):
            batch = picks[start : start + _AT_ONCE]
            found = look_up_traces(project, [item.trace_id for item in batch]).traces
            for place, item in enumerate(batch, start=len(questions) + start + 1):
                if item.trace_id in found:
                    trace = found[item.trace_id].trace
                    done += _judge(project, item, trace, rater, f"{place} of {n}")
    except _Quit:
        return Gone(done, n - done, quit=True)
    return Gone(done, n - done, quit=False)


def _compare(question: Question, place: str) -> None:
    _head(place, "which answer is right, or the better one?", question.reason)
    _show_messages(chat_messages_of(question.case))
    _show_answers(question)


def _said_of(question: Question, rater: str) -> Reply:
    def said(outcome: Outcome = "answered", good: tuple[int, ...] = (), better: str | None = None) -> Reply:
        return Reply(
            question_id=question.question_id,
            rater=rater,
            outcome=outcome,
            good=good,
            better=better,
            created_at=datetime.now(UTC),
        )

    two = len(question.answers) == 2
    places = {letter.lower(): n for n, letter in enumerate(question.names)}
    while True:
        key = _key(_TWO_KEYS) if two else _line(_MORE_KEYS).lower()
        if key in ("s", "u"):
            return said("skip" if key == "s" else "unclear")
        if key == "w":
            if text := _line("the right answer (empty = back)"):
                return said(better=text)
        elif two and key in _TWO:
            return said(good=_TWO[key])
        elif not two and key and (key == "n" or set(key) <= set(places)):
            return said(good=() if key == "n" else tuple(sorted({places[letter] for letter in key})))
        else:
            _not_known(key)


def _judge(project: str, item: ReviewItem, trace: Trace, rater: str, place: str) -> bool:
    _head(place, "was the agent's answer right?", item.reason)
    _show_messages(chat_messages_of(trace.case, first_seen(trace)))
    console.print(Text("agent", style="bold"))
    console.print(outside(as_written(reply_markdown(trace)), _LONGEST))
    while True:
        key = _key(_PICK_KEYS)
        expected, score = "", None
        if key == "s":
            return False
        if key in ("y", "n"):
            score = float(key == "y")
        elif key == "g":
            score = _number(_line("grade from 0 (bad) to 1 (good)"))
        elif key == "w":
            expected = _line("the right answer (empty = back)")
        else:
            _not_known(key)
        if expected or score is not None:
            answer(project, item.trace_id, expected=expected, score=score, rater=rater)
            return True


def _number(text: str) -> float | None:
    try:
        number = float(text.replace(",", "."))
    except ValueError:
        number = -1.0
    if 0 <= number <= 1:
        return number
    console.print(f"[yellow]{text!r} is no number from 0 to 1[/]")
    return None


def _head(place: str, asked: str, reason: str) -> None:
    console.print(Rule(Text(f"{place} · {asked}", style="bold"), align="left"))
    if reason:
        console.print(Text.assemble(("why  ", "dim"), outside(reason)))


def _show_messages(messages: Sequence[dict[str, str]]) -> None:
    for message in messages:
        console.print(Text(message["role"], style="bold"))
        console.print(outside(as_written(message["content"]), _LONGEST))


def _show_answers(question: Question) -> None:
    """Beside each other, as the Review page shows them."""
    if len(question.answers) > 2:
        for name, one in zip(question.names, question.answers, strict=True):
            console.print(Text(name, style="bold"), outside(as_text(one), _LONGEST))
        return
    table = Table(*question.names, expand=True, show_lines=True)
    for column in table.columns:
        column.ratio, column.overflow = 1, "fold"
    table.add_row(*(outside(as_text(one), _LONGEST) for one in question.answers))
    console.print(table)


def _key(told: str) -> str:
    """One key, without Enter; where nobody sits at a terminal, the first letter of a line."""
    console.print(Text(told, style="dim"))
    if not sys.stdin.isatty():
        return _next_line()[:1].lower()
    key = click.getchar().lower()
    if key in ("\x03", "\x04"):
        raise _Quit
    return _checked(key)


def _line(told: str) -> str:
    console.print(Text(f"{told}: ", style="dim"), end="" if sys.stdin.isatty() else "\n")
    return _next_line()


def _next_line() -> str:
    line = sys.stdin.readline()
    if not line:
        raise _Quit
    return _checked(line.strip())


def _checked(said: str) -> str:
    if said == "q":
        raise _Quit
    return said


def _not_known(key: str) -> None:
    console.print(Text(f"{key!r} is none of these keys", style="yellow"))
