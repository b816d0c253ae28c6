"""A smaller memory that is worth more: what led to success is kept, what says the same twice is not.

Decision: whole trajectories are kept or left, because a step is shown with those around it. Each next one is
that of the greatest credit and difference from those already chosen (maximal marginal relevance, Carbonell &
Goldstein 1998), so a memory of a given size covers the most. Pure: the snapshot that goes in stays as it is.
Source of curation by what the exemplars led to: Sarukkai et al., Self-Generated In-Context Examples (2025).
"""

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
from pydantic import Field

from ratchet.agent.environment import RESPOND
from ratchet.agent.kinds.decision import View
from ratchet.agent.memory.ranking import Embed, Query, Retriever
from ratchet.agent.memory.snapshot import Memory
from ratchet.agent.memory.steps import Credit, Experience, credited
from ratchet.agent.record import Record
from ratchet.agent.trace import IMPORTED

PER_VIEW: Final = 3
"""Imported steps that one view brings."""


class CurationSettings(Record):
    """What stays."""

    trajectories: int = Field(default=1_000, ge=1)
    """At most this many; a decision on its own counts as one."""
    least_credit: float = Field(default=0.25, ge=0, le=1)
    """Share of runs shown it that won, below which a trajectory is dropped once it was shown often enough."""
    least_shown: int = Field(default=5, ge=1)
    """Scored runs from which on the share is believed."""
    diversity: float = Field(default=0.5, ge=0, le=1)
    """Weight of difference beside credit: 0 = credit alone, 1 = difference alone."""


class CuratedMemory(Record, arbitrary_types_allowed=True):
    """The new snapshot, and what became of the rest."""

    memory: Memory
    kept: int
    """Trajectories."""
    left_out: dict[str, int]
    """Trajectories by reason."""


def curate_memory(
    memory: Memory,
    settings: CurationSettings,
    *,
    credit: Mapping[str, Credit] | None = None,
    embed: Embed | None = None,
) -> CuratedMemory:
    """The trajectories that are worth most, as a new snapshot.

    Args:
        memory: what is chosen from; a library's steps make one, `Memory(library.steps())`.
        settings: how many, and what counts.
        credit: what came of showing them since the snapshot was made, by trace id
            (`ratchet.agent.memory.steps.tally`).
        embed: the embedding that the memory recalls by.
    """
    groups = _trajectories(credited(memory.experiences, credit or {}))
    believed = [g for g in groups if not _failed(g, settings)]
    chosen = _diverse(believed, settings)
    kept = [step for group in chosen for step in group]
    left_out = {
        "shown and seldom led to success": len(groups) - len(believed),
        "no room": len(believed) - len(chosen),
    }
    return CuratedMemory(
        memory=Memory(kept, settings=memory.settings, embed=embed),
        kept=len(chosen),
        left_out={reason: count for reason, count in left_out.items() if count},
    )


def imported_steps(
    memory: Retriever, views: Iterable[View], most: int, *, k: int = PER_VIEW
) -> list[Experience]:
    """Steps of other agents' runs that are like what this agent sees, each with those around it.

    Args:
        memory: what may be recalled; the gate's side is left out of it.
        views: what the agent saw; the nearest run of each is taken before the second nearest of any.
        most: runs at most; 0 = nothing is asked.
        k: steps that a view recalls at most.
    """
    answers = [memory.recall(_imports_like(view), k=k) for view in views] if most else []
    kept: dict[str, dict[tuple[int | None, str], Experience]] = {}
    for found in (one[place] for place in range(k) for one in answers if place < len(one)):
        if found.experience.trajectory in kept or len(kept) < most:
            steps = kept.setdefault(found.experience.trajectory, {})
            steps |= {(s.index, s.role): s for s in (*found.before, found.experience, *found.after)}
    return [step for steps in kept.values() for step in steps.values()]


def message_pairs(steps: Iterable[Experience]) -> list[Experience]:
    """Each message of a user with the answer that it got, as a decision on its own, over all tools called between.

    A step of which it is not known what the user had said (those before it were not recalled) gives none.
    """
    runs: dict[tuple[str, str], dict[int, Experience]] = {}
    for step in steps:
        runs.setdefault((step.trajectory, step.role), {})[step.index or 0] = step
    pairs = []
    for run in runs.values():
        asked: str | None = None
        for place, step in sorted(run.items()):
            before = run.get(place - 1)
            if place == 0 or (before is not None and before.action == RESPOND):
                asked = step.observation
            elif before is None:
                asked = None
            if step.action == RESPOND and asked:
                alone = {
                    "observation": asked,
                    "goal": "",
                    "index": None,
                    "attempt": 0,
                    "result": "",
                    "thought": "",
                }
                pairs.append(step.model_copy(update=alone))
    return pairs


def _imports_like(view: View) -> Query:
    seen = view.observation
    offered = tuple(option.name for option in seen.options)
    return Query(
        observation=seen.text, goal=view.goal, offered=offered, exclude_case=view.case_id, imported=True
    )


def where_from(memory: Memory) -> str:
    """Whose logs brought in how much of it, to end a candidate's note; empty where nothing was imported."""
    steps = [step for step in memory.experiences if step.imported_from]
    agents = ", ".join(sorted({step.imported_from.removeprefix(IMPORTED) for step in steps}))
    return f", {len(steps)} of them from imported logs of {agents}" if steps else ""


def _trajectories(steps: list[Experience]) -> list[list[Experience]]:
    """Steps by trajectory, in an order that does not depend on how they came."""
    groups: dict[tuple[str, str], list[Experience]] = {}
    for step in steps:
        own = step.action if step.index is None else ""
        groups.setdefault((f"{step.case_id}/{step.trajectory}", own), []).append(step)
    return [groups[key] for key in sorted(groups)]


def _failed(group: list[Experience], settings: CurationSettings) -> bool:
    shown = max(step.shown for step in group)
    won = max(step.led_to_success for step in group)
    from_a_person = any(step.source == "human" for step in group)  # a person's word is never dropped
    return not from_a_person and shown >= settings.least_shown and won / shown < settings.least_credit


def _diverse(groups: list[list[Experience]], settings: CurationSettings) -> list[list[Experience]]:
    """Greedy; people's first, and among equals the earlier in order."""
    if len(groups) <= settings.trajectories:
        return groups
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = [" ".join(f"{step.goal} {step.observation} {step.action}" for step in group) for group in groups]
    vectors = TfidfVectorizer(token_pattern=r"\w+", sublinear_tf=True).fit_transform(texts)
    credit = np.array([max(step.credit for step in group) for group in groups])
    human = np.array([any(step.source == "human" for step in group) for group in groups])
    nearest = np.zeros(len(groups))
    left = np.ones(len(groups), dtype=bool)
    chosen: list[int] = []
    while len(chosen) < settings.trajectories:
        value = (1 - settings.diversity) * credit + settings.diversity * (1 - nearest) + 2.0 * human
        best = int(np.where(left, value, -np.inf).argmax())
        chosen.append(best)
        left[best] = False
        nearest = np.maximum(nearest, (vectors @ vectors[best].T).toarray().ravel())
    return [groups[i] for i in sorted(chosen)]
