"""`ratchet improve` and `ratchet monitor`: the flows, called by hand."""

from typing import Annotated

import typer

from ratchet.flows.commands.options import CURRENT_FOLDER, AsJson, Folder
from ratchet.flows.commands.report import say, show_drift, show_round
from ratchet.flows.commands.run_here import resumable, start_server
from ratchet.flows.commands.terminal import NO, YES, emit_json
from ratchet.flows.improve import improve as improve_flow
from ratchet.flows.monitor import monitor as monitor_flow
from ratchet.flows.project_settings import ImproveSettings, MonitorSettings, read_settings
from ratchet.infra.registry.registry import version_history
from ratchet.tasks.project_name import name_of

Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Above ratchet.toml, such as gate.alpha=0.1; repeat."),
]


def improve(
    project: Folder = CURRENT_FOLDER,
    approve_as: Annotated[
        str, typer.Option(help="Name of the policy that approves what is proven; without it, a person does.")
    ] = "",
    model: Annotated[
        str,
        typer.Option(help="Try the champion on this LM, and nothing else: RATCHET_LM's way of writing it."),
    ] = "",
    model_at: Annotated[
        str, typer.Option(help="Address of --model's endpoint; RATCHET_LM_API_BASE if left out.")
    ] = "",
    proposers: Annotated[
        str, typer.Option(help="Which of the project's proposers are to try, as in replay,lora; else all.")
    ] = "",
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Collect, ask people, curate, propose, gate and promote."""
    settings = read_settings(project, ImproveSettings, sets)
    names = tuple(name.strip() for name in proposers.split(",") if name.strip())
    given = {"approved_by": approve_as, "model": model, "model_at": model_at, "proposers": names}
    settings = settings.model_copy(update={name: value for name, value in given.items() if value})
    start_server()
    with resumable():
        report = improve_flow(str(project), settings)
    if as_json:
        emit_json(report)
    else:
        say(f"served {report.served} waiting requests")
        show_round(report, version_history(name_of(str(project))))
        for problem in report.problems:
            say(problem, "yellow")
    raise typer.Exit(YES if report.decision.best else NO)


def monitor(project: Folder = CURRENT_FOLDER, sets: Sets = None, as_json: AsJson = False) -> None:
    """Look for drift in what arrived since the last look.

    Exit 3 while an alarm stands, or traces cannot be read: that nobody looked at them is no all-clear.
    """
    settings = read_settings(project, MonitorSettings, sets)
    start_server()
    with resumable():
        report = monitor_flow(str(project), settings)
    if as_json:
        emit_json(report)
    else:
        say(f"{report.new_traces} new traces")
        show_drift(report.watched, report.unreadable)
        if report.narrower:
            say(report.narrower, "red", "diversity")
        if report.improve:
            say(f"the alarm started `improve` ({report.improve})")
        elif report.watched.improve:
            say("no `improve` is deployed here (`ratchet up` does): run `ratchet improve` yourself")
        for problem in report.problems:
            say(problem, "yellow")
    raise typer.Exit(NO if report.watched.alarm or report.unreadable or report.narrower else YES)
