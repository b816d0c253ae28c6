"""`ratchet golden`: cases with known right answers that people freeze, played by both versions at every promotion."""

from typing import Annotated

import typer
from rich.table import Table

from ratchet.agent.errors import BadInput
from ratchet.agent.record import Json, as_text
from ratchet.evaluation.data.cases import case_text
from ratchet.flows.commands.options import CURRENT_FOLDER, AsJson, Folder, Name, Person
from ratchet.flows.commands.terminal import NO, console, emit_json, moment, outside
from ratchet.flows.commands.which_project import which_project
from ratchet.infra.registry.golden import freeze, golden_set
from ratchet.infra.traces.lookup import FoundTrace, look_up_traces

app = typer.Typer(help="Cases with known answers, played at every promotion.", no_args_is_help=True)


@app.command("add")
def add(
    trace_id: Annotated[str, typer.Argument(help="The case's trace: 32 hex digits, or MLflow's tr-….")],
    answer: Annotated[str, typer.Option(help="What is right; else what a person said of the trace.")] = "",
    reason: Annotated[str, typer.Option("--reason", help="Why it must never break; kept for good.")] = "",
    by: Person = "",
    project: Folder = CURRENT_FOLDER,
    name: Name = None,
    as_json: AsJson = False,
) -> None:
    """Freeze a trace's case with its right answer, for good."""
    chosen = which_project(project, name)
    own = trace_id.removeprefix("tr-")
    traces, unreadable = look_up_traces(chosen, [own])
    if own not in traces:
        raise BadInput(
            unreadable.get(own, f"no trace {trace_id!r} in {chosen!r}: give 32 hex digits or tr-…")
        )
    right = answer or _said(traces[own])
    case = traces[own].trace.case.model_copy(update={"expected": right})
    one = freeze(chosen, case, trace_id=own, by=by, reason=reason)
    n = len(golden_set(chosen))
    if as_json:
        emit_json({"project": chosen, "cases": n, **one.model_dump(mode="json"), "case_id": one.case_id})
    else:
        console.print(outside(f"frozen: {case_text(one.case)[:120]} → {as_text(right)[:120]}"))
        console.print(
            f"{n} cases; champion and challenger play them at every promotion, and nothing learns from them"
        )


@app.command("list")
def list_golden(project: Folder = CURRENT_FOLDER, name: Name = None, as_json: AsJson = False) -> None:
    """Show the frozen cases, with who froze each and why.

    Exit 3 where there are none.
    """
    chosen = which_project(project, name)
    cases = golden_set(chosen)
    if as_json:
        emit_json(
            {
                "project": chosen,
                "cases": [{**one.model_dump(mode="json"), "case_id": one.case_id} for one in cases],
            }
        )
    elif not cases:
        console.print("nothing is frozen; `ratchet golden add TRACE --reason …` begins the set")
    else:
        table = Table(box=None, pad_edge=False)
        for title, ratio in (("case", None), ("asked", 4), ("right", 2), ("frozen", 3)):
            table.add_column(title, header_style="dim", ratio=ratio, overflow="fold", no_wrap=ratio is None)
        for one in cases:
            table.add_row(
                one.case_id, outside(case_text(one.case), 120), outside(as_text(one.case.expected), 80),
                outside(f"{moment(one.at)} by {one.by}: {one.reason}", 120),
            )  # fmt: skip
        console.print(table)
    if not cases:
        raise typer.Exit(NO)


def _said(found: FoundTrace) -> Json:
    """What a person said is right, the newest word; None where nobody did."""
    said = [label for label in found.labels if label.source == "human"]
    for label in reversed(said):
        if label.expected is not None:
            return label.expected
        if label.score == 1:
            return found.trace.answer
    return None
