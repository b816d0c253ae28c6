"""How far people are with what they were asked, and what their answers were worth: a line for each open test."""

from pathlib import Path

from ratchet.agent.project import load_project
from ratchet.flows.project_settings import ProjectSettings, read_settings
from ratchet.infra.review.queue import still_waiting
from ratchet.infra.review.rounds import read_round
from ratchet.tasks.people import People


def progress_lines(project: str, folder: Path | None) -> list[str]:
    """For the person who answers; blind.

    Args:
        project: its name in MLflow.
        folder: where it lies, for its settings and its word on which answers are the same; None = the usual ones.
    """
    rules = read_settings(folder, ProjectSettings) if folder else ProjectSettings()
    people = People.of(load_project(folder), rules.raters) if folder else People(project, rules.raters)
    told = [one.sentence for one in people.standings(rules.gate.gain_worth_finding or 0.1)]
    picks = {pick.trace_id for pick in read_round(project).picks}
    if picks:
        left = len(still_waiting(project, picks))
        told.append(f"this round's traces: {len(picks) - left} of {len(picks)} answered; they teach")
    return told
