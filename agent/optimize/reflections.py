"""Lessons: what reflections on single cases taught, made lasting as worked examples in the prompt.

A reflection counts only if the retry after it won. What is kept is where the winning attempt first did something
else than the failed one, and what it did: not the reflection's words, which may quote what an environment said and
must never become an instruction. Whether lessons help is for the gate to say: in Reflexion's own numbers reflection
raises HumanEval and lowers MBPP. Source: Shinn et al., Reflexion (2023).
"""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import Field

from ratchet.agent.candidate import Candidate, Demo, Origin
from ratchet.agent.errors import BadInput
from ratchet.agent.kinds.program import CHOOSE
from ratchet.agent.optimize.proposer import Proposal
from ratchet.agent.record import Record
from ratchet.agent.trace import Trace


class LessonSettings(Record):
    """How much is made lasting."""

    most: int = Field(default=3, ge=1, le=8)
    """Lessons in the prompt; each costs about 40 tokens a call."""


class Correction(Record):
    """Where a retry left the way that had failed."""

    observation: str
    failed: str
    """The action of the failed attempt."""
    worked: str
    """The action of the attempt that won."""
    case_id: str


def corrections(traces: Iterable[Trace]) -> list[Correction]:
    """One per trace whose last attempt won after a reflection, where both attempts saw the same and did otherwise."""
    found = []
    for trace in traces:
        if trace.error is not None or trace.score != 1 or len(trace.attempts) < 2:
            continue
        before, won = trace.attempts[-2:]
        if before.reflection is None:
            continue
        for failed, step in zip(before.steps, won.steps, strict=False):
            if failed.observation != step.observation:
                break
            if failed.action != step.action:
                found.append(
                    Correction(
                        observation=step.observation,
                        failed=failed.action.name,
                        worked=step.action.name,
                        case_id=trace.case.case_id,
                    )
                )
                break
    return found


def propose_lessons(
    parent: Candidate,
    traces: Sequence[Trace],
    settings: LessonSettings,
    *,
    files: Mapping[str, Path] | None = None,
    seen: Sequence[str] = (),
    data_digest: str | None = None,
) -> Proposal:
    """The parent with the commonest mistakes, put right, as examples in its prompt.

    Args:
        parent: what is changed; its own demos stay and stand first.
        traces: runs with retries; those of the gate's cases must not be among them.
        settings: how many lessons.
        files: the parent's `memory` and `adapter`.
        seen: cases that shaped the parent.
        data_digest: digest of the dataset that the traces come from.

    Raises:
        BadInput: no retry after a reflection won.
    """
    began = time.perf_counter()
    known = corrections(traces)
    if not known:
        raise BadInput(
            f"none of {len(traces)} traces won after a reflection: allow retries (attempts > 1) and serve more first"
        )
    lessons = _commonest(known, settings.most)
    predictor = parent.predictors[CHOOSE]
    demos = tuple(Demo(inputs=one.observation, output=one.worked, case_id=one.case_id) for one in lessons)
    changed = predictor.model_copy(update={"demos": (*predictor.demos, *demos)})
    candidate = parent.model_copy(
        update={
            "predictors": {**parent.predictors, CHOOSE: changed},
            "parent": parent.candidate_id,
            "origin": Origin(
                proposer="lessons",
                parameters={**settings.model_dump(), "turnings": len(known)},
                data_digest=data_digest,
                note=f"{len(lessons)} lessons from {len(known)} failures that a retry put right: "
                + "; ".join(f"{one.worked} instead of {one.failed}" for one in lessons),
            ),
        }
    )
    return Proposal(
        candidate=candidate,
        files=dict(files or {}),
        seen_case_ids=tuple(sorted({*seen, *(trace.case.case_id for trace in traces)})),
        cost={"seconds": time.perf_counter() - began},
    )


def _commonest(known: Sequence[Correction], most: int) -> list[Correction]:
    """One per mistake (this instead of that), the commonest first; whatever order they came in."""
    counts = Counter((one.failed, one.worked) for one in known)
    first: dict[tuple[str, str], Correction] = {}
    for one in sorted(known, key=lambda t: t.case_id):
        first.setdefault((one.failed, one.worked), one)
    ordered = sorted(first, key=lambda pair: (-counts[pair], first[pair].case_id))
    return [first[pair] for pair in ordered[:most]]
