"""Play the golden set: the champion and the challenger that is to be promoted, at every promotion."""

from pathlib import Path

from ratchet.agent.project import load_project
from ratchet.evaluation.data.cases import LabelledCase
from ratchet.evaluation.gate.golden import GoldenResult, golden_result
from ratchet.infra.registry.golden import golden_set, record_golden
from ratchet.infra.registry.registry import champion
from ratchet.infra.store.dataset_store import write_dataset
from ratchet.tasks.gate import Players


def play_golden(folder: str, challenger: str) -> GoldenResult | None:
    """Both versions at every frozen case, kept beside the challenger; None where nobody froze any."""
    project = load_project(Path(folder))
    cases, serving = golden_set(project.name), champion(project.name)
    if not cases or serving is None or project.no_replay:
        return None
    frozen = [
        LabelledCase(
            case=one.case,
            trace_id=one.trace_id,
            candidate_id=serving.candidate_id,
            role="gate",
            propensity=1.0,
            source="human",
            answer=one.case.expected,
        )
        for one in cases
    ]
    players = Players(folder, project.name, write_dataset("golden", frozen))
    ours, theirs = players.both(serving.candidate_id, challenger, [one.case_id for one in cases])
    result = golden_result(cases, serving.candidate_id, ours, theirs)
    record_golden(project.name, challenger, result)
    return result
