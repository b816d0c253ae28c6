"""`ratchet label`: what people are asked, answered from a terminal or on MLflow's Review page.

Why both write the same: an answer is an answer, wherever it was given.
"""

from collections.abc import Sequence
from typing import Annotated, Any, TypeAlias

import typer
from rich.table import Table
from rich.text import Text

from ratchet.agent.errors import BadInput
from ratchet.agent.record import as_text
from ratchet.evaluation.data.cases import case_text
from ratchet.evaluation.gate.questions import Question
from ratchet.flows.commands.explain import answer_of, request_of
from ratchet.flows.commands.label_next import go_through
from ratchet.flows.commands.label_progress import progress_lines
from ratchet.flows.commands.label_raters import raters, rules_of
from ratchet.flows.commands.options import CURRENT_FOLDER, AsJson, Folder, Name
from ratchet.flows.commands.terminal import console, emit_json, outside
from ratchet.flows.commands.which_project import which_project
from ratchet.infra.known_projects import LOCAL_SERVER, review_page
from ratchet.infra.review.back_end import back_end
from ratchet.infra.review.label_studio import InLabelStudio
from ratchet.infra.review.queue import ReviewItem, pending, waiting
from ratchet.infra.review.queue import answer as write_answer
from ratchet.infra.traces.lookup import Lookup, look_up_traces

app = typer.Typer(help="What waits for a person: answer it, list it, find its page.")
Rater: TypeAlias = Annotated[
    str, typer.Option(envvar=["RATCHET_USER", "USER"], help="Who answers; recorded with the label.")
]


@app.callback(invoke_without_command=True)
def label(
    context: typer.Context,
    rater: Rater = "",
    project: Folder = CURRENT_FOLDER,
    name: Name = None,
    as_json: AsJson = False,
) -> None:
    """Go through what waits for a person, one key an answer; with --json, list it."""
    if context.invoked_subcommand is None and as_json:
        list_pending(project=project, name=name, as_json=True)
    elif context.invoked_subcommand is None:
        go_on(rater=rater, project=project, name=name)


@app.command("next")
def go_on(rater: Rater = "", project: Folder = CURRENT_FOLDER, name: Name = None) -> None:
    """Go through what waits for a person, the gate's questions first: answers side by side, blind."""
    chosen = which_project(project, name)
    if not rater.strip():
        raise BadInput("who answers is not known: give --rater NAME, or set RATCHET_USER")
    gone = go_through(chosen, rater, back_end(rules_of(None if name else project)))
    if not gone.answered and not gone.left:
        console.print("nothing waits for a person")
        return
    console.print(f"[green]✓[/] {gone.answered} answered by {outside(rater)}, {gone.left} still wait")
    for line in progress_lines(chosen, None if name else project):
        console.print(line)


@app.command("list")
def list_pending(
    limit: Annotated[int, typer.Option(min=1, help="How many to show, oldest first.")] = 20,
    project: Folder = CURRENT_FOLDER,
    name: Name = None,
    as_json: AsJson = False,
) -> None:
    """Show what waits for a person: answers to compare, and answers of the agent to judge."""
    chosen = which_project(project, name)
    desk = back_end(rules_of(None if name else project))
    questions, n_picks = desk.pending_comparisons(chosen), len(waiting(chosen))
    items = pending(chosen, limit)
    traces = look_up_traces(chosen, [item.trace_id for item in items])
    told = progress_lines(chosen, None if name else project)
    if as_json:
        rows = [*map(_question_row, questions[:limit]), *(_row(item, traces) for item in items)]
        n_waiting = len(questions) + n_picks
        emit_json({"project": chosen, "pending": n_waiting, "items": rows[:limit], "progress": told})
        return
    if not questions and not items:
        console.print("nothing waits for a person")
    if questions:
        console.print(_questions_table(questions[:limit]))
        console.print(
            f"{len(questions)} to compare; `ratchet label` shows them side by side, a key an answer"
        )
    if items:
        console.print(_table(items, traces))
        console.print(
            f"{n_picks} to judge, {len(items)} shown; `ratchet label`, `ratchet label answer TRACE_ID ANSWER "
            "--rater NAME`, or the page that `ratchet label url` prints"
        )
    for line in told:
        console.print(line)


def _question_row(question: Question) -> dict[str, Any]:
    return {
        "kind": "compare",
        "question_id": question.question_id,
        "trace_id": question.trace_id,
        "request": case_text(question.case),
        "answers": dict(zip(question.names, question.answers, strict=True)),
        "reason": question.reason,
    }


def _questions_table(questions: Sequence[Question]) -> Table:
    table = Table(show_lines=True)
    table.add_column("question", no_wrap=True, min_width=16)
    for title, ratio in (("request", 3), ("answers", 4)):
        table.add_column(title, ratio=ratio, overflow="fold")
    for one in questions:
        answers = (f"{name}  {as_text(said)}" for name, said in zip(one.names, one.answers, strict=True))
        shown = Text("\n").join(outside(answer, 160) for answer in answers)
        table.add_row(one.question_id, outside(case_text(one.case), 200), shown)
    return table


def _row(item: ReviewItem, lookup: Lookup) -> dict[str, Any]:
    found = lookup.traces.get(item.trace_id)
    return {
        "kind": "judge",
        **item.model_dump(mode="json"),
        "request": None if found is None else request_of(found.trace),
        "problem": lookup.unreadable.get(item.trace_id),
        "answer": None if found is None else answer_of(found.trace),
    }


def _table(items: list[ReviewItem], traces: Lookup) -> Table:
    table = Table(show_lines=True)
    table.add_column("trace", no_wrap=True, min_width=32)  # whole on one line, to be copied
    for title, ratio in (("request", 4), ("the agent answered", 2), ("why it was picked", 2)):
        table.add_column(title, ratio=ratio, overflow="fold")
    for item in items:
        row = _row(item, traces)
        table.add_row(
            item.trace_id,
            outside(row["request"] or row["problem"] or "the trace is gone"),
            outside(row["answer"] or "nothing"),
            outside(item.reason, 160),
        )
    return table


@app.command("answer")
def answer_one(
    trace_id: Annotated[str, typer.Argument(help="As `ratchet label list` shows it.")],
    answer: Annotated[str, typer.Argument(help="What the agent should have answered.")],
    rater: Rater = "",
    comment: Annotated[str, typer.Option(help="Anything that the next person should know.")] = "",
    project: Folder = CURRENT_FOLDER,
    name: Name = None,
    as_json: AsJson = False,
) -> None:
    """Answer one queued trace, as the Review page would; again, to correct it."""
    chosen = which_project(project, name)
    own = trace_id.removeprefix("tr-")
    write_answer(chosen, own, expected=answer, rater=rater, comment=comment)
    left = len(waiting(chosen))
    if as_json:
        emit_json({"project": chosen, "trace_id": own, "answer": answer, "rater": rater, "pending": left})
    else:
        console.print(
            f"[green]✓[/] written for {rater}; {left} still wait, `ratchet improve` reads the answers"
        )


@app.command("url")
def review_url(
    server: Annotated[str | None, typer.Option(help="Where MLflow's pages are, if not the default.")] = None,
    project: Folder = CURRENT_FOLDER,
    name: Name = None,
    as_json: AsJson = False,
) -> None:
    """Print the address of the Review page, and before it Label Studio's where the gate's questions wait there."""
    chosen = which_project(project, name)
    url, elsewhere = review_page(chosen, server), None
    if rules_of(None if name else project).backend == "label-studio":
        elsewhere = InLabelStudio().labelling_page(chosen)
    if as_json:
        emit_json({"project": chosen, "url": url, "questions": elsewhere or url})
        return
    if elsewhere:
        print(elsewhere)
    print(url)
    if server is None and url.startswith(LOCAL_SERVER):
        console.print("[dim]served while `ratchet up` runs[/]")


app.command("raters")(raters)
