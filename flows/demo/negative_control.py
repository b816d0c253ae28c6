"""A challenger that learned its few cases by heart: better on them, worse on fresh ones. The gate must refuse it."""

from collections.abc import Sequence

from prefect import task

from ratchet.agent.candidate import Topology
from ratchet.agent.kinds.program import Program
from ratchet.agent.optimize.proposer import Example
from ratchet.agent.optimize.weights import LoraSettings, propose_lora
from ratchet.agent.record import Record
from ratchet.evaluation.data.intervals import Interval, mean_interval
from ratchet.infra.registry.programs import build, load_program
from ratchet.infra.registry.registry import register, seen_case_ids, version_of
from ratchet.infra.store.dataset_store import read_dataset
from ratchet.infra.store.project_state import project_folder
from ratchet.tasks.caching import cached_by
from ratchet.tasks.progress import progress
from ratchet.tasks.propose import RoundData, TrainingExample, as_examples

CASES = 16
SETTINGS = LoraSettings(epochs=6, learning_rate=3e-3, tune_share=0)


class NegativeControl(Record):
    """The bad challenger, and how both sides do on the cases that it learned by heart."""

    candidate_id: str
    own_cases: Interval
    champion_on_them: Interval


@task(name="plant", **cached_by("name", "lessons", result=NegativeControl))
def make_negative_control(folder: str, name: str, lessons: RoundData) -> NegativeControl:
    """Forget all experience, and train far too long, at far too high a rate, on far too few cases."""
    examples = [
        e for e in as_examples(folder, read_dataset(lessons.training, TrainingExample)) if e.source == "human"
    ][:CASES]
    parent = version_of(name, lessons.champion).candidate
    bare = parent.model_copy(update={"memory": None, "topology": Topology(attempts=parent.topology.attempts)})
    with progress("planting a bad challenger", len(examples) * SETTINGS.epochs) as advance:
        proposal = propose_lora(
            bare, examples, project_folder(name) / "adapters", SETTINGS,
            seen=sorted(seen_case_ids(name, lessons.champion)), progress=advance,
        )  # fmt: skip
    origin = proposal.candidate.origin.model_copy(
        update={
            "proposer": "planted",
            "note": f"Forgot its experience and learned {len(examples)} cases by heart: planted to be refused.",
        }
    )
    candidate = proposal.candidate.model_copy(update={"origin": origin})
    register(name, candidate, files=proposal.files, seen_case_ids=proposal.seen_case_ids, cost=proposal.cost)
    theirs, ours = build(candidate, proposal.files), load_program(name, lessons.champion)
    return NegativeControl(
        candidate_id=candidate.candidate_id,
        own_cases=_accuracy(theirs, examples),
        champion_on_them=_accuracy(ours, examples),
    )


def _accuracy(program: Program, examples: Sequence[Example]) -> Interval:
    decisions = program.decide([example.view for example in examples])
    return mean_interval([float(d.action.name == e.answer) for d, e in zip(decisions, examples, strict=True)])
