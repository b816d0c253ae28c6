"""`ratchet import FILE`: real logs become traces like any other, and what won in them becomes experience.

Why nothing is imported while one record is malformed: a log that was half taken cannot be told from a whole one
afterwards; who wants the rest says so with `--skip-malformed`.
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from ratchet.agent.errors import BadInput
from ratchet.agent.memory.steps import WON
from ratchet.evaluation.data.labels import people_said
from ratchet.flows.commands.options import CURRENT_FOLDER, AsJson, Folder, Name
from ratchet.flows.commands.terminal import console, emit_json, outside
from ratchet.flows.commands.which_project import which_project
from ratchet.flows.project_settings import ProjectSettings, read_settings
from ratchet.infra.store.experience import open_library, remember
from ratchet.infra.traces.correction import correct_outcomes
from ratchet.infra.traces.log_file import LogFile, read_log_file
from ratchet.infra.traces.lookup import known_traces
from ratchet.infra.traces.write import attach_labels, log_traces

SHOWN = 5
"""Malformed records that the error names one by one."""
SHOWN_NOTES = 8
"""Kinds of what was not read that are named one by one."""


def import_log(
    file: Annotated[
        Path, typer.Argument(help="Logs or an export, as JSON, JSON lines, CSV or Parquet; gzip, too.")
    ],
    format_: Annotated[
        str | None,
        typer.Option("--format", help="What to read it as, such as openai-chat; else its records say it."),
    ] = None,
    skip_malformed: Annotated[
        bool, typer.Option("--skip-malformed", help="Import the rest, and name what was left out.")
    ] = False,
    agent: Annotated[
        str | None, typer.Option(help="Who acted; else the record's `model`, or the file's name.")
    ] = None,
    project: Folder = CURRENT_FOLDER,
    name: Name = None,
    as_json: AsJson = False,
) -> None:
    """Import an agent's logs as traces and as experience.

    Importing twice adds nothing.
    """
    chosen = which_project(project, name)
    names = read_settings(project, ProjectSettings).feedback
    log = read_log_file(file, project=chosen, agent=agent, format_name=format_, names=names)
    if log.malformed and not skip_malformed:
        raise BadInput(f"{file}: {_faults(log)}; correct them, or leave them out with --skip-malformed")
    report = {"project": chosen, "file": str(file), "format": log.format, "read": log.counts | log.found}
    report |= _take(chosen, log)
    if as_json:
        emit_json(report)
        return
    _show(log, report)


def _show(log: LogFile, report: dict[str, Any]) -> None:
    for fault in log.malformed:
        name = (f"skipped {log.unit} {fault.number}  ", "yellow")
        console.print(Text.assemble(name, outside(fault.reason, 300)), soft_wrap=True)
    _show_read(log)
    console.print(
        f"{report['new']:,} of {report['conversations']:,} conversations are new in {report['project']!r}: "
        f"{report['won']:,} won, {report['unscored']:,} without a reward, {report['sessions']:,} tasks; "
        f"{report['remembered']:,} new steps of experience, {report['library']:,} in all",
        soft_wrap=True,
    )
    for count, told in (
        ("repeated", "are like another and counted once"),
        ("labels", "labels are new"),
        ("corrected", "were there and took a later reward"),
        ("taken_back", "steps of experience were taken back: their conversations did not win after all"),
    ):
        if report[count]:
            console.print(f"{report[count]:,} {told}", soft_wrap=True)
    for trace_id, why in report["not_corrected"].items():
        console.print(
            outside(f"the reward of trace {trace_id} was not corrected: {why}", 300), soft_wrap=True
        )
    listed = sorted(report["notes"].items(), key=lambda note: -note[1])
    for note, times in listed[:SHOWN_NOTES]:
        console.print(outside(f"{times:,} × {note}", 200), soft_wrap=True)
    if len(listed) > SHOWN_NOTES:
        console.print(f"and {len(listed) - SHOWN_NOTES} more; --json lists them")


def _show_read(log: LogFile) -> None:
    """What was found, and what was looked for and is in none of them."""
    counted = ", ".join(f"{what} {times:,}" for what, times in log.counts.items())
    console.print(f"read as {log.format}: {counted}", soft_wrap=True)
    found = ", ".join(f"{what} {times:,}" for what, times in log.found.items() if times)
    absent = ", ".join(what for what, times in log.found.items() if not times)
    for told, what in (("conversations with", found), ("none with", absent)):
        if what:
            console.print(f"{told}: {what}", soft_wrap=True)


def _faults(log: LogFile) -> str:
    named = "; ".join(f"{log.unit} {fault.number}: {fault.reason}" for fault in log.malformed[:SHOWN])
    more = f"; and {len(log.malformed) - SHOWN} more" if len(log.malformed) > SHOWN else ""
    return (
        f"{len(log.malformed)} of {log.n_records} records are malformed, nothing was imported: {named}{more}"
    )


def _take(project: str, log: LogFile) -> dict[str, Any]:
    """Log, correct and remember; everything is counted by id, so a repeat adds nothing."""
    traces = {trace.trace_id: trace for trace in log.traces}
    known = known_traces(project, list(traces))
    log_traces(project, list(traces.values()))
    later = {
        name: trace.score
        for name, trace in traces.items()
        if trace.score is not None and name in known and known[name].outcome != trace.score
    }
    corrected = correct_outcomes(project, later)
    new_labels = attach_labels(project, log.labels)
    said = people_said([*log.labels, *(label for one in known.values() for label in one.labels)])
    verdicts = [said.get(name, trace.score) for name, trace in traces.items()]
    remembered = remember(project, list(traces.values()), said)
    with open_library(project) as library:
        in_all = len(library)
    return {
        "conversations": len(log.traces),
        "new": len(traces) - len(known),
        "already_there": len(known),
        "repeated": len(log.traces) - len(traces),
        "corrected": corrected.n,
        "not_corrected": corrected.unreadable,
        "labels": new_labels,
        "won": sum(verdict is not None and verdict >= WON for verdict in verdicts),
        "unscored": verdicts.count(None),
        "sessions": len({trace.session_id for trace in traces.values() if trace.session_id}),
        "steps": sum(trace.n_steps for trace in traces.values()),
        "remembered": remembered.added,
        "taken_back": remembered.taken_back,
        "library": in_all,
        "notes": log.notes,
        "malformed": [fault.model_dump() for fault in log.malformed],
    }
