"""A challenger that learned its few cases by heart: better on them, worse on fresh ones. The gate must refuse it."""

from collections.abc import Sequence
from pathlib import Path

from prefect import task

from ratchet.agent.candidate import Topology
from ratchet.agent.kinds.agent import Agent
from ratchet.agent.optimize.evidence import Evidence, Example
from ratchet.agent.optimize.proposer import Registered, made_by
from ratchet.agent.optimize.weights.lora import Lora
from ratchet.agent.project import load_project
from ratchet.agent.record import Record
from ratchet.evaluation.data.intervals import Interval, mean_interval
from ratchet.infra.registry.agents import build, load_agent
from ratchet.infra.registry.registry import register
from ratchet.tasks.caching import cached_by
from ratchet.tasks.curate import RoundData
from ratchet.tasks.evidence import evidence_of, registered, work_of

CASES = 16
BY_HEART = Lora(name="control", epochs=6, learning_rate=3e-3, tune_share=0)


class NegativeControl(Record):
    """The bad challenger, and how both sides do on the cases that it learned by heart."""

    candidate_id: str
    own_cases: Interval
    champion_on_them: Interval


@task(name="plant", **cached_by("name", "data", "seed", result=NegativeControl))
def make_negative_control(folder: str, name: str, data: RoundData, seed: int) -> NegativeControl:
    """Forget all experience, and train far too long, at far too high a rate, on far too few cases."""
    project, parent = load_project(Path(folder)), registered(name, data.champion)
    examples = [e for e in evidence_of(project, data.champion, data).examples if e.source == "human"][:CASES]
    topology = Topology(attempts=parent.candidate.topology.attempts)
    bare = parent.candidate.model_copy(update={"memory": None, "topology": topology})
    proposal = made_by(
        BY_HEART, Registered(bare, {}, parent.seen), Evidence(examples=examples), work_of(project, seed)
    )
    assert proposal is not None, "a new adapter is a new candidate"
    note = f"Forgot its experience and learned {len(examples)} cases by heart: a negative control, to be refused."
    origin = proposal.candidate.origin.model_copy(update={"note": note})
    candidate = proposal.candidate.model_copy(update={"origin": origin})
    register(name, candidate, files=proposal.files, seen_case_ids=proposal.seen_case_ids, cost=proposal.cost)
    theirs, ours = build(project, candidate, proposal.files), load_agent(project, data.champion)
    return NegativeControl(
        candidate_id=candidate.candidate_id,
        own_cases=_accuracy(theirs, examples),
        champion_on_them=_accuracy(ours, examples),
    )


def _accuracy(agent: Agent, examples: Sequence[Example]) -> Interval:
    decisions = [agent.act(example.view) for example in examples]
    return mean_interval([float(d.action.name == e.answer) for d, e in zip(decisions, examples, strict=True)])
