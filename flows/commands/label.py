"""`ratchet label`: what people are asked, answered from a terminal or on MLflow's Review page.

Why both write the same: an answer is an answer, wherever it was given.
"""

from typing import Annotated, Any

import typer
from rich.table import Table

from ratchet.flows.commands.explain import answer_of, request_of
from ratchet.flows.commands.options import CURRENT_FOLDER, AsJson, Folder, Name
from ratchet.flows.commands.terminal import console, emit_json, outside
from ratchet.flows.commands.which_project import which_project
from ratchet.infra.known_projects import LOCAL_SERVER, review_page
from ratchet.infra.review.queue import ReviewItem, pending
from ratchet.infra.review.queue import answer as write_answer
from ratchet.infra.traces.lookup import Lookup, look_up_traces

app = typer.Typer(help="What waits for a person: list it, answer it, find its page.", no_args_is_help=True)


@app.command("list")
def list_pending(
    limit: Annotated[int, typer.Option(min=1, help="How many to show, oldest first.")] = 20,
    project: Folder = CURRENT_FOLDER,
    name: Name = None,
    as_json: AsJson = False,
) -> None:
    """Show the traces that wait for a person: request, the agent's answer, and why it was picked."""
    chosen = which_project(project, name)
    items = pending(chosen)
    shown = items[:limit]
    traces = look_up_traces(chosen, [item.trace_id for item in shown])
    if as_json:
        rows = [_row(item, traces) for item in shown]
        emit_json({"project": chosen, "pending": len(items), "items": rows})
    elif not items:
        console.print("nothing waits for a person")
    else:
        console.print(_table(shown, traces))
        console.print(
            f"{len(items)} wait, {len(shown)} shown; `ratchet label answer TRACE_ID ANSWER --rater NAME`, "
            "or on the page that `ratchet label url` prints"
        )


def _row(item: ReviewItem, lookup: Lookup) -> dict[str, Any]:
    found = lookup.traces.get(item.trace_id)
    return {
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
    rater: Annotated[
        str, typer.Option(envvar=["RATCHET_USER", "USER"], help="Who answers; recorded with the label.")
    ] = "",
    comment: Annotated[str, typer.Option(help="Anything that the next person should know.")] = "",
    project: Folder = CURRENT_FOLDER,
    name: Name = None,
    as_json: AsJson = False,
) -> None:
    """Answer one queued trace, as the Review page would; again, to correct it."""
    chosen = which_project(project, name)
    own = trace_id.removeprefix("tr-")
    write_answer(chosen, own, expected=answer, rater=rater, comment=comment)
    left = len(pending(chosen))
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
    """Print the address of the Review page."""
    chosen = which_project(project, name)
    url = review_page(chosen, server)
    if as_json:
        emit_json({"project": chosen, "url": url})
        return
    print(url)
    if server is None and url.startswith(LOCAL_SERVER):
        console.print("[dim]served while `ratchet up` runs[/]")
