"""Experience replay as a proposer: a new memory snapshot, and how much its vote counts.

Here of examples with one right action each; `trajectories` does the same for the steps of whole runs.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import Field

from ratchet.agent.candidate import Candidate, Origin
from ratchet.agent.kinds.program import Program
from ratchet.agent.lm.lm import lm_type
from ratchet.agent.memory.snapshot import Memory
from ratchet.agent.optimize.proposer import Example, Proposal, as_experience, learned_options, usable
from ratchet.agent.optimize.vote_weights import Grid, tune
from ratchet.agent.record import Record


class ExperienceSettings(Record):
    """What the snapshot may vary."""

    recalls: int = Field(default=1, ge=0, le=20)
    """Own successes shown in the prompt."""
    similarity: bool = False
    """Also let the lexical similarity of request and option count, if the examples say that it helps."""
    tune_on: int = Field(default=60, ge=1)
    """Examples that the weights are tuned on, each without its own experience; none that shaped the parent, if
    there are others."""


def propose_experience(
    parent: Candidate,
    examples: Sequence[Example],
    folder: Path,
    settings: ExperienceSettings,
    *,
    adapter: Path | None = None,
    seen: Sequence[str] = (),
    data_digest: str | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Proposal:
    """Remember the examples; tune what the memory's vote and the similarity weigh.

    Args:
        parent: what is changed; its prompts and adapter stay.
        examples: what worked, and what people said would have.
        folder: where the snapshot is written.
        settings: how many recalls, which weights.
        adapter: the parent's adapter.
        seen: cases that shaped the parent.
        data_digest: digest of the dataset that the examples come from.
        progress: called with the number of examples done since the last call.
    """
    began = time.perf_counter()
    extra = learned_options(examples)
    known = usable(examples, (*parent.extra_options, *extra))
    if not known:  # nothing better is nothing: a memory of no steps would only cost a test
        return Proposal(candidate=parent, files={}, seen_case_ids=tuple(seen))
    memory = Memory(as_experience(example) for example in known)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{memory.memory_id}.jsonl"
    memory.save(path)
    options = {option.name: option for option in (*parent.extra_options, *extra)}
    draft = parent.model_copy(
        update={
            "memory": memory.memory_id,
            "extra_options": tuple(options.values()),
            "topology": parent.topology.model_copy(update={"recalls": settings.recalls}),
            "parent": parent.candidate_id,
        }
    )
    grid = Grid() if settings.similarity else Grid(retrieval=(parent.topology.retrieval_weight,))
    unknown = [example for example in known if example.view.case_id not in set(seen)]
    sample = spread(unknown or known, settings.tune_on)
    topology, estimate = draft.topology, None
    if lm_type(draft.base_model).scores_options:  # else there is nothing to weigh against
        program = Program(draft, memory=memory, adapter=adapter)
        topology, estimate = tune(program, sample, grid, progress=progress)
    note = (
        f"Remembers {len(memory.experiences)} steps that worked; shows {topology.recalls}, "
        f"vote {topology.recall_weight:g}, similarity {topology.retrieval_weight:g} nats"
    )
    candidate = draft.model_copy(
        update={
            "topology": topology,
            "origin": Origin(
                proposer="experience",
                parameters={
                    **settings.model_dump(),
                    "accuracy_left_one_out": estimate and round(estimate, 4),
                },
                data_digest=data_digest,
                note=note + "".join(f"; learned to answer {option.name}" for option in extra) + ".",
            ),
        }
    )
    return Proposal(
        candidate=candidate,
        files={"memory": path} | ({"adapter": adapter} if adapter else {}),
        seen_case_ids=tuple(sorted({*seen, *(e.view.case_id for e in examples)})),
        cost={"seconds": time.perf_counter() - began, "lm_calls": float(len(sample))},
    )


def spread(examples: Sequence[Example], n: int) -> list[Example]:
    """At most `n` examples, evenly over the order of case ids: a hash, hence a random sample that stays."""
    ordered = sorted(examples, key=lambda e: e.view.case_id)
    step = max(len(ordered) / n, 1.0)
    return [ordered[int(i * step)] for i in range(min(n, len(ordered)))]
