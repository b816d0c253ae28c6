"""Experience replay as a proposer: a new memory snapshot, and how much its vote counts.

Two kinds: of examples with one right action each (`propose_experience`), and of the steps of trajectories that
won (`propose_trajectories`), curated from everything that ever worked. Both end in the gate like anything else.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import Field

from agent.candidate import Candidate, Origin
from agent.experience import Credit, Experience
from agent.memory import Memory
from agent.optimize.memory_curation import CurationSettings, curate_memory
from agent.optimize.proposal import Example, Proposal, as_experience, learned_options, usable
from agent.optimize.topology import Grid, tune
from agent.program import Program
from agent.recall import Embed, RecallSettings
from agent.record import Record
from agent.weights import NAME


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
    sample = _spread(unknown or known, settings.tune_on)
    topology, estimate = draft.topology, None
    if draft.base_model == NAME:  # an endpoint gives no log-probabilities to weigh against
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


class TrajectorySettings(Record):
    """What a snapshot of trajectories keeps, and how it is recalled."""

    recalls: int = Field(default=3, ge=1, le=20)
    """Steps shown in the prompt."""
    curation: CurationSettings = CurationSettings()
    recall: RecallSettings | None = None
    """None = the default."""


def propose_trajectories(
    parent: Candidate,
    steps: Iterable[Experience],
    folder: Path,
    settings: TrajectorySettings,
    *,
    credit: Mapping[str, Credit] | None = None,
    embed: Embed | None = None,
    adapter: Path | None = None,
    seen: Sequence[str] = (),
    data_digest: str | None = None,
) -> Proposal:
    """The parent with a curated memory of steps that won.

    Args:
        parent: what is changed; its prompts, adapter and weights stay.
        steps: everything that may be remembered, such as `Library.steps()`; the gate's cases left out by the caller.
        folder: where the snapshot is written.
        settings: what is kept, and how it is recalled.
        credit: what came of showing them, where the steps do not carry it yet.
        embed: the embedding that the recall settings name.
        adapter: the parent's adapter.
        seen: cases that shaped the parent.
        data_digest: digest of the dataset that the steps come from.
    """
    began = time.perf_counter()
    whole = Memory(steps, settings=settings.recall, embed=embed)
    curated = curate_memory(whole, settings.curation, credit=credit, embed=embed)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{curated.memory.memory_id}.jsonl"
    curated.memory.save(path)
    left_out = "".join(f", {count} left out: {reason}" for reason, count in curated.left_out.items())
    note = (
        f"Remembers {len(curated.memory.experiences)} steps of {curated.kept} trajectories that won{left_out}; "
        f"shows {settings.recalls}."
    )
    candidate = parent.model_copy(
        update={
            "memory": curated.memory.memory_id,
            "topology": parent.topology.model_copy(update={"recalls": settings.recalls}),
            "parent": parent.candidate_id,
            "origin": Origin(
                proposer="experience", parameters=settings.model_dump(), data_digest=data_digest, note=note
            ),
        }
    )
    return Proposal(
        candidate=candidate,
        files={"memory": path} | ({"adapter": adapter} if adapter else {}),
        seen_case_ids=tuple(sorted({*seen, *(step.case_id for step in whole.experiences)})),
        cost={"seconds": time.perf_counter() - began},
    )


def _spread(examples: Sequence[Example], n: int) -> list[Example]:
    """At most `n` examples, evenly over the order of case ids: a hash, hence a random sample that stays."""
    ordered = sorted(examples, key=lambda e: e.view.case_id)
    step = max(len(ordered) / n, 1.0)
    return [ordered[int(i * step)] for i in range(min(n, len(ordered)))]
