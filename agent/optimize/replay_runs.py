"""Experience replay over whole runs: the steps of trajectories that won become the memory, and its vote is weighed.

A run keeps what was done, not what was offered; `replayed` plays the same actions again to see the options, which
are needed to weigh the memory's vote against the LM. Source: Sarukkai et al., Self-Generated In-Context Examples
(2025).
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import Field

from ratchet.agent.candidate import Candidate, Origin
from ratchet.agent.environment import Environment
from ratchet.agent.kinds.program import Program, View
from ratchet.agent.lm.lm import lm_type
from ratchet.agent.memory.ranking import Embed, RecallSettings
from ratchet.agent.memory.snapshot import Memory
from ratchet.agent.memory.steps import WON, Credit, Experience, goal_of
from ratchet.agent.optimize.memory_curation import CurationSettings, curate_memory
from ratchet.agent.optimize.proposer import Example, Proposal, usable
from ratchet.agent.optimize.replay import spread
from ratchet.agent.optimize.vote_weights import Grid, tune
from ratchet.agent.record import Record
from ratchet.agent.rollout.rollout import HISTORY
from ratchet.agent.trace import Trace


class TrajectorySettings(Record):
    """What a snapshot of trajectories keeps, and how it is recalled."""

    recalls: int = Field(default=3, ge=1, le=20)
    """Steps shown in the prompt."""
    curation: CurationSettings = CurationSettings()
    recall: RecallSettings | None = None
    """None = the default."""
    tune_on: int = Field(default=60, ge=1)
    """Steps that the memory's vote is weighed on, each without its own case's experience."""
    repairs: int = Field(default=16, ge=0)
    """Failed cases that are played again with feedback; what then wins is remembered, too."""


def propose_trajectories(
    parent: Candidate,
    steps: Iterable[Experience],
    folder: Path,
    settings: TrajectorySettings,
    *,
    examples: Sequence[Example] = (),
    credit: Mapping[str, Credit] | None = None,
    embed: Embed | None = None,
    adapter: Path | None = None,
    seen: Sequence[str] = (),
    data_digest: str | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Proposal:
    """The parent with a curated memory of steps that won.

    Args:
        parent: what is changed; its prompts and adapter stay.
        steps: everything that may be remembered; the gate's cases left out by the caller.
        folder: where the snapshot is written.
        settings: what is kept, and how it is recalled.
        examples: won steps with what was offered (`replayed`): they tell the memory what there was to choose from,
            and the memory's vote is weighed on them; none = it stays.
        credit: what came of showing them, where the steps do not carry it yet.
        embed: the embedding that the recall settings name.
        adapter: the parent's adapter.
        seen: cases that shaped the parent.
        data_digest: digest of the dataset that the steps come from.
        progress: called with the number of examples done since the last call.
    """
    began = time.perf_counter()
    whole = Memory(with_offered(steps, examples), settings=settings.recall, embed=embed)
    curated = curate_memory(whole, settings.curation, credit=credit, embed=embed)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{curated.memory.memory_id}.jsonl"
    curated.memory.save(path)
    draft = parent.model_copy(
        update={
            "memory": curated.memory.memory_id,
            "topology": parent.topology.model_copy(update={"recalls": settings.recalls}),
            "parent": parent.candidate_id,
        }
    )
    topology, estimate = draft.topology, None
    sample = spread(usable(examples, parent.extra_options), settings.tune_on)
    if sample and lm_type(draft.base_model).scores_options:  # else there is nothing to weigh against
        program = Program(draft, memory=curated.memory, adapter=adapter)
        grid = Grid(retrieval=(parent.topology.retrieval_weight,))
        topology, estimate = tune(program, sample, grid, progress=progress)
    left_out = "".join(f", {count} left out: {reason}" for reason, count in curated.left_out.items())
    note = (
        f"Remembers {len(curated.memory.experiences)} steps of {curated.kept} trajectories that won{left_out}; "
        f"shows {topology.recalls}, vote {topology.recall_weight:g} nats."
    )
    parameters = {
        **settings.model_dump(mode="json"),
        "accuracy_left_one_out": estimate and round(estimate, 4),
    }
    origin = Origin(proposer="trajectories", parameters=parameters, data_digest=data_digest, note=note)
    return Proposal(
        candidate=draft.model_copy(update={"topology": topology, "origin": origin}),
        files={"memory": path} | ({"adapter": adapter} if adapter else {}),
        seen_case_ids=tuple(sorted({*seen, *(step.case_id for step in whole.experiences)})),
        cost={"seconds": time.perf_counter() - began, "lm_calls": float(len(sample) if estimate else 0)},
    )


def with_offered(steps: Iterable[Experience], examples: Iterable[Example]) -> list[Experience]:
    """The steps with what was offered at each, as far as the examples tell."""
    offered = {
        (e.trace_id, e.view.observation.text, e.answer): tuple(o.name for o in e.view.observation.options)
        for e in examples
    }
    return [
        step.model_copy(update={"options": names})
        if (names := offered.get((step.trace_id, step.observation, step.action))) and not step.options
        else step
        for step in steps
    ]


def replayed(trace: Trace, environment: Environment) -> list[Example]:
    """The steps of a winning trajectory with what was offered at each, up to where the world does otherwise.

    Args:
        trace: a run; one that did not win gives nothing.
        environment: a fresh one of the same kind.
    """
    if trace.error is not None or trace.score is None or trace.score < WON or not trace.attempts:
        return []
    found, names = [], list[str]()
    seen, done = environment.reset(trace.case), False
    for step in trace.attempts[-1].steps:
        offered = {option.name for option in seen.options}
        if done or seen.text != step.observation or step.action.name not in offered:
            break
        view = View(
            case_id=trace.case.case_id,
            observation=seen,
            goal=goal_of(trace.case),
            done=tuple(names[-HISTORY:]),
        )
        found.append(Example(view=view, answer=step.action.name, trace_id=trace.trace_id, source="own"))
        names.append(step.action.name)
        seen, done = environment.step(step.action)
    return found
