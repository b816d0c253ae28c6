"""Everything that asks an LM, in a process of its own: what it is told comes by arguments and environment alone."""

import sys
from contextlib import nullcontext, suppress
from pathlib import Path

from ratchet.agent.case import Case
from ratchet.agent.errors import NothingToPropose
from ratchet.agent.optimize.evidence import Evidence
from ratchet.agent.optimize.prompts.prompts import Prompts
from ratchet.agent.optimize.proposer import made_by
from ratchet.agent.optimize.reflections import Reflections
from ratchet.agent.optimize.replay import Replay
from ratchet.agent.optimize.team_search import TeamSearch
from ratchet.agent.optimize.tools import Tools
from ratchet.agent.optimize.trajectories import Trajectories
from ratchet.agent.project import load_project
from ratchet.agent.team.roles import as_team
from ratchet.agent.trace import Trace
from ratchet.evaluation.data.cases import LabelledCase
from ratchet.infra.registry.agents import load_agent
from ratchet.infra.registry.registry import champion, fetch_files, register
from ratchet.infra.store.dataset_store import read_dataset, write_dataset
from ratchet.infra.store.project_state import read_state
from ratchet.tasks.collect import collect_new
from ratchet.tasks.curate import TrainingExample
from ratchet.tasks.evidence import as_examples, registered, work_of
from ratchet.tasks.gate import evaluate
from ratchet.tasks.serve import serve_waiting

ALL = (
    Replay(recalls=1, tune_on=4),
    Prompts(optimizer="few-shot", demos=1, programs=1, validation=2, instructions=()),
    TeamSearch(rounds=1, examples=4),
    Tools(),
    Trajectories(),
    Reflections(),
)


def everybody(folder: Path) -> None:
    """Serve, propose in every way for one agent and for a team, and evaluate as the gate does."""
    project = load_project(folder)
    serve_waiting.fn(str(folder))
    collect_new.fn(project.name)
    training = [TrainingExample(case=labelled(n), weight=1.0) for n in range(6)]
    served = champion(project.name).candidate
    team = as_team(served)
    register(project.name, team, files={}, seen_case_ids=[], cost={})
    runs = read_dataset(read_state(project.name).traces, Trace)
    evidence = Evidence(examples=as_examples(project, training), served=runs, rollouts=runs)
    for proposer in ALL:
        for parent in (served, team):
            learns = parent is served and proposer.name != "reflections"  # no retry won after one
            with nullcontext() if learns else suppress(NothingToPropose):
                made_by(
                    proposer, registered(project.name, parent.candidate_id), evidence, work_of(project, 0)
                )
    cases = [example.case for example in training]
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

    from ratchet.infra.mlflow_client import connect

    name = load_project(folder).name
    connect(name)
    row = {"request": "7: go right", "options": [{"name": "left"}, {"name": "right"}]}
    served = mlflow.pyfunc.load_model(f"models:/{name}@champion")
    (answer,) = served.predict(pd.DataFrame([row]))
    assert answer["answer"] == "right"
    candidate_id = champion(name).candidate_id
    assert fetch_files(name, candidate_id) == {}
    program = load_agent(load_project(folder), candidate_id)
    assert program(request="7: go right", options=row["options"]).choice == "right"


if __name__ == "__main__":
    {"everybody": everybody, "loaded": loaded}[sys.argv[1]](Path(sys.argv[2]))
