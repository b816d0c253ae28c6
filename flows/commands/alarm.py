"""`ratchet alarm`: what the drift alarm says, silence for a while, or "this is the new normal".

Why acknowledgements are recorded in MLflow and obeyed by the next look: the person on call and the worker that
watches seldom sit at the same machine, and who decided what, and why, must be readable by everybody afterwards.
"""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import uuid4

import typer
from rich.text import Text

from ratchet.agent.errors import BadInput
from ratchet.evaluation.drift.incidents import Acknowledgement, Incidents
from ratchet.evaluation.drift.watch_state import WatchState
from ratchet.flows.commands.options import CURRENT_FOLDER, AsJson, Folder, Name, Person
from ratchet.flows.commands.terminal import NO, YES, console, emit_json, moment, outside
from ratchet.flows.commands.which_project import which_project
from ratchet.infra.drift.log import acknowledgements, add_acknowledgement
from ratchet.infra.drift.watch_store import read_watch
from ratchet.infra.store.project_state import read_state

app = typer.Typer(help="The drift alarm: show it, silence it, accept the traffic.", no_args_is_help=True)

Why = Annotated[str, typer.Option("--reason", help="Why; recorded for good.")]


@app.command("show")
def show(project: Folder = CURRENT_FOLDER, name: Name = None, as_json: AsJson = False) -> None:
    """Show whether an alarm stands, since when, what changed, and what people decided.

    Exit 3 while one stands, or traces cannot be read.
    """
    chosen = which_project(project, name)
    state, ruled = read_watch(chosen), acknowledgements(chosen)
    unreadable = len(read_state(chosen).unreadable)
    if as_json:
        emit_json({**_answer(chosen, state, ruled), "unreadable": unreadable})
    else:
        _show(state, ruled)
        if unreadable:
            told = f"{unreadable:,} traces in MLflow cannot be read and were not looked at: `ratchet status` says why"
            console.print(f"[bold red]blind[/]  {told}", soft_wrap=True)
    raise typer.Exit(NO if state.episodes.open or unreadable else YES)


@app.command("snooze")
def snooze(
    hours: Annotated[float, typer.Option(min=0.01, max=24 * 90, help="For how long.")] = 24.0,
    by: Person = "",
    reason: Why = "",
    project: Folder = CURRENT_FOLDER,
    name: Name = None,
    as_json: AsJson = False,
) -> None:
    """Announce nothing for a while; evidence and incidents go on being recorded."""
    now = datetime.now(UTC)
    acknowledgement = _acknowledgement("snooze", by, reason, now, until=now + timedelta(hours=hours))
    _record(which_project(project, name), acknowledgement, as_json=as_json)


@app.command("accept")
def accept(
    by: Person = "",
    reason: Why = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, only say what would be done.")] = False,
    project: Folder = CURRENT_FOLDER,
    name: Name = None,
    as_json: AsJson = False,
) -> None:
    """Take the present traffic as the new normal: a new reference, and the end of the incident."""
    chosen = which_project(project, name)
    acknowledgement = _acknowledgement("accept", by, reason, datetime.now(UTC), until=None)
    if yes:
        _record(chosen, acknowledgement, as_json=as_json)
        return
    incident = read_watch(chosen).episodes.open
    what = f"end incident {incident.number} and learn" if incident else "learn"
    if as_json:
        emit_json({"project": chosen, "ruling": acknowledgement.model_dump(mode="json"), "done": False})
    else:
        since = "from its change point on" if incident else "from the newest traces"
        console.print(f"would {what} what is usual anew, {since}; add --yes to do it")


def _acknowledgement(
    kind: str, by: str, reason: str, at: datetime, *, until: datetime | None
) -> Acknowledgement:
    if not by.strip() or not reason.strip():
        raise BadInput(f'{kind} is recorded with who and why: add --by NAME --reason "…"')
    return Acknowledgement.model_validate(
        {
            "ruling_id": uuid4().hex[:12],
            "kind": kind,
            "at": at,
            "who": by.strip(),
            "why": reason.strip(),
            "until": until,
        }
    )


def _record(project: str, acknowledgement: Acknowledgement, *, as_json: bool) -> None:
    add_acknowledgement(project, acknowledgement)
    if as_json:
        emit_json({"project": project, "ruling": acknowledgement.model_dump(mode="json"), "done": True})
    elif acknowledgement.until is not None:
        console.print(
            f"[green]✓[/] nothing is announced until {acknowledgement.until:%Y-%m-%d %H:%M} UTC; it is still recorded"
        )
    else:
        console.print("[green]✓[/] recorded; the next `ratchet monitor` learns the new normal")


def _answer(project: str, state: WatchState, ruled: list[Acknowledgement]) -> dict[str, Any]:
    return {
        "project": project,
        "alarm": state.episodes.open is not None,
        "learning": state.monitor is None,
        "e_value": state.states[-1].e_value if state.states else None,
        "episodes": state.episodes.model_dump(mode="json"),
        "attribution": state.attribution.model_dump(mode="json") if state.attribution else None,
        "drifted_traces": len(state.drifted),
        "rulings": [one.model_dump(mode="json") | {"obeyed": one.ruling_id in state.ruled} for one in ruled],
    }


def _show(state: WatchState, ruled: list[Acknowledgement]) -> None:
    incidents = state.episodes
    if incidents.open is not None and state.attribution is not None:
        told = Text.assemble(("alarm  ", "bold red"), outside(state.attribution.reason, 600))
        console.print(told, soft_wrap=True)
        console.print(f"incident {incidents.open.number}, {incidents.open.severity}; {_asked(state)}")
    elif state.monitor is None:
        console.print("[yellow]learning[/]  what is usual is being gathered; nothing is decided yet")
    else:
        console.print("[bold green]no alarm[/]")
    _show_acknowledgements(incidents, state, ruled)


def _asked(state: WatchState) -> str:
    n = len(state.drifted)
    return f"{n} traces lie where it drifted: labels go there first" if n else "no region to label"


def _show_acknowledgements(incidents: Incidents, state: WatchState, ruled: list[Acknowledgement]) -> None:
    if incidents.past:
        console.print(f"{len(incidents.past)} earlier incidents")
    for one in ruled:
        waits = "" if one.ruling_id in state.ruled else ", waits for the next look"
        what = f"snoozed until {moment(one.until)}" if one.until else "accepted as the new normal"
        said = (f"{moment(one.at)}  ", outside(one.who, 40), f" {what}: ", outside(one.why, 160), waits)
        console.print(Text.assemble(*said), soft_wrap=True)
