"""Everything that asks an LM, in a process of its own: what it is told comes by arguments and environment alone."""

import sys
from pathlib import Path
from typing import get_args

from agent.environment import Case
from agent.optimize.experience import ExperienceSettings
from agent.optimize.prompts import PromptSettings
from agent.optimize.team_search import TeamSettings
from agent.project import Proposer, load_project
from agent.roles import as_team
from agent.trace import Trace
from evaluation.cases import LabelledCase
from infra.dataset_store import read_dataset, write_dataset
from infra.programs import load_program
from infra.project_state import read_state
from infra.registry import champion, fetch_files, register
from tasks.collect import collect_new
from tasks.gate import evaluate
from tasks.learn import Lesson, ProposeSettings, as_examples, make
from tasks.practice import FROM_RUNS, propose_from_runs
from tasks.serve import serve_waiting

SMALL = ProposeSettings(
    experience=ExperienceSettings(recalls=1, tune_on=4),
    prompt=PromptSettings(demos=1, programs=1, validation=2, instructions=()),
    team=TeamSettings(rounds=1, examples=4),
)


def everybody(folder: Path) -> None:
    """Serve, propose in every way for one agent and for a team, and evaluate as the gate does."""
    project = load_project(folder)
    serve_waiting.fn(str(folder))
    collect_new.fn(project.name)
    lessons = [Lesson(case=labelled(n), weight=1.0) for n in range(6)]
    examples, served = as_examples(str(folder), lessons), champion(project.name).candidate
    team = as_team(served)
    register(project.name, team, files={}, seen_case_ids=[], cost={})
    stored = read_state(project.name).traces
    for proposer in get_args(Proposer):
        if proposer in FROM_RUNS:
            runs = read_dataset(stored, Trace)
            propose_from_runs(
                folder, proposer, served.candidate_id, runs, "d", SMALL.trajectories, SMALL.lessons
            )
        elif proposer != "lora":  # trains the embedded LM only
            for parent in (served, team):
                make(project.name, proposer, parent.candidate_id, examples, lessons, "d", SMALL)
    cases = [lesson.case for lesson in lessons]
    version = write_dataset("labelled", cases)
    ids = [case.case_id for case in cases]
    traces = evaluate.fn(str(folder), project.name, served.candidate_id, version, ids)
    assert [trace.error for trace in traces] == [None] * len(cases)


def labelled(n: int) -> LabelledCase:
    word = ("left", "right")[n % 2]
    return LabelledCase(
        case=Case(inputs={"request": f"{n}: go {word}"}, expected=word), trace_id=f"{n:032x}", candidate_id="c",
        role="gate", propensity=1.0, source="human", answer=word,
    )  # fmt: skip


def loaded(folder: Path) -> None:
    """The champion in a shell that knows the registry and no more: as MLflow loads it, and as we do."""
    import mlflow
    import pandas as pd

    from infra.tracking import connect

    name = load_project(folder).name
    connect(name)
    row = {"request": "7: go right", "options": [{"name": "left"}, {"name": "right"}]}
    served = mlflow.pyfunc.load_model(f"models:/{name}@champion")
    (answer,) = served.predict(pd.DataFrame([row]))
    assert answer["answer"] == "right"
    candidate_id = champion(name).candidate_id
    assert fetch_files(name, candidate_id) == {}
    program = load_program(name, candidate_id)
    assert program(request="7: go right", options=row["options"]).choice == "right"


if __name__ == "__main__":
    {"everybody": everybody, "loaded": loaded}[sys.argv[1]](Path(sys.argv[2]))
