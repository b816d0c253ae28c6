"""Versions of a `dspy.Module` in MLflow: their state for who has no Ratchet, and predictors with awkward names."""

import dspy
from mlflow.artifacts import download_artifacts

from ratchet.agent.build import documents_of, first_candidate
from ratchet.agent.candidate import Demo, Predictor, share_label
from ratchet.agent.memory.snapshot import Memory
from ratchet.agent.memory.steps import Experience
from ratchet.agent.project import Project
from ratchet.infra.mlflow_client import connect
from ratchet.infra.registry.agents import load_agent
from ratchet.infra.registry.registry import register, version_of

NAMES = ("agents[0].predict", "by_step['the team']")


class Desk(dspy.Module):
    def __init__(self):
        super().__init__()
        self.agents = [dspy.ChainOfThought("request -> topic")]
        self.by_step = {"the team": dspy.Predict("request, topic -> team")}

    def forward(self, request):
        return self.by_step["the team"](request=request, topic=self.agents[0](request=request).topic)


def test_a_module_s_version_keeps_its_state_as_json_and_each_predictor_s_share_whatever_its_name(
    project, tmp_path
):
    own = Project(name=project, agent=Desk(), effects="none")
    files, memories = {}, {}
    for n, name in enumerate(NAMES):
        memory = Memory(
            [
                Experience(
                    observation=f"asked {n}",
                    action="respond",
                    arguments={"content": f"said {n}"},
                    trace_id="t",
                    case_id="c",
                    source="own",
                )
            ]
        )
        memory.save(path := tmp_path / f"{n}.jsonl")
        files[share_label(name)], memories[name] = path, memory.memory_id
    demo = Demo(inputs='{"request": "Card refused.", "topic": "payments"}', output="heron")
    first = first_candidate(own, None, None)
    predictors = first.predictors | {NAMES[1]: Predictor(instructions="Name the team.", demos=(demo,))}
    candidate = first.model_copy(update={"predictors": predictors, "memories": memories})
    documents = documents_of(own, candidate)
    version = register(project, candidate, files=files, seen_case_ids=[], cost={}, documents=documents)

    assert version_of(project, candidate.candidate_id).candidate == candidate
    agent = load_agent(own, candidate.candidate_id)
    assert {name: memory.memory_id for name, memory in agent.memories.items()} == memories

    uri = connect(project).settings.tracking_uri
    state = download_artifacts(run_id=version.run_id, artifact_path="program.json", tracking_uri=uri)
    fresh = Desk()
    fresh.load(state)  # DSPy's own, without pickle
    told = fresh.by_step["the team"]
    assert (told.signature.instructions, told.demos[0]["team"]) == ("Name the team.", "heron")
    assert fresh.agents[0].predict.signature.instructions == first.predictors[NAMES[0]].instructions
