"""The champion without what people had it forget: a proposer like any other, so that the gate judges what is lost.

Why a version and not an edit of the memory in place: an entry that looks wrong may carry many right answers.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ratchet.agent.candidate import Candidate, Demo, Predictor, share_label
from ratchet.agent.errors import NothingToPropose
from ratchet.agent.memory.forgotten import Forgotten, Oblivion
from ratchet.agent.memory.snapshot import Memory, read_snapshot
from ratchet.agent.memory.steps import Experience
from ratchet.agent.optimize.evidence import Evidence
from ratchet.agent.optimize.proposer import Proposal, Registered
from ratchet.agent.optimize.work import Work
from ratchet.agent.record import Record


class Forget(Record):
    """Take out of every share of the memory, and out of the worked examples, what people had forgotten."""

    name: str = "forget"
    forgotten: tuple[Forgotten, ...] = ()

    def propose(self, parent: Registered, evidence: Evidence, work: Work) -> Proposal | None:
        """The parent without the entries; it learns from nothing."""
        gone = Oblivion(self.forgotten)
        shares: dict[str, str | None] = {}
        files: dict[str, Path] = {}
        out: set[str] = set()
        for label in _shares(parent.candidate):
            settings, steps = read_snapshot(parent.files[label])
            kept = [step for step in steps if not _covered(step, gone)]
            if len(kept) == len(steps):
                continue
            out |= {step.trace_id for step in steps if _covered(step, gone)}
            shares[label] = None
            if kept:
                recall, embed = work.recall(settings) if settings else (None, None)
                memory = Memory(kept, settings=recall, embed=embed)
                memory.save(path := work.file(f"memory/{memory.memory_id}.jsonl"))
                shares[label], files[label] = memory.memory_id, path
        predictors, demos = _without_demos(parent.candidate.predictors, gone)
        if not shares and not demos:
            raise NothingToPropose("nothing that was forgotten stands in its memory")
        told = [f"{len(out)} entries of its memory"] if out else []
        told += [f"{demos} worked examples"] if demos else []
        return Proposal(
            candidate=_with(parent.candidate, shares).model_copy(update={"predictors": predictors}),
            files=files,
            note=f"Forgets {' and '.join(told)}, as {_people(self.forgotten)} said.",
        )


def would_forget(candidate: Candidate, files: Mapping[str, Path], gone: Oblivion) -> bool:
    """Whether anything of what was forgotten stands in the candidate's memory or examples."""
    steps = (step for label in _shares(candidate) for step in read_snapshot(files[label])[1])
    return any(_covered(step, gone) for step in steps) or _without_demos(candidate.predictors, gone)[1] > 0


def _covered(step: Experience, gone: Oblivion) -> bool:
    return gone.covers(step.trace_id, step.case_id, step.said if not step.index else None)


def _shares(candidate: Candidate) -> list[str]:
    """Labels of the files that hold the candidate's memory."""
    named = ["memory"] if candidate.memory else []
    named += [share_label(prompt) for prompt in candidate.memories]
    return named + [f"memory.{role.name}" for role in candidate.topology.roles if role.memory]


def _with(candidate: Candidate, shares: Mapping[str, str | None]) -> Candidate:
    """The candidate with these shares of its memory instead; None = none."""
    memories = {prompt: shares.get(share_label(prompt), kept) for prompt, kept in candidate.memories.items()}
    roles = tuple(
        role.model_copy(update={"memory": shares.get(f"memory.{role.name}", role.memory)})
        for role in candidate.topology.roles
    )
    changes: dict[str, Any] = {
        "memory": shares.get("memory", candidate.memory),
        "memories": {prompt: kept for prompt, kept in memories.items() if kept is not None},
        "topology": candidate.topology.model_copy(update={"roles": roles}),
    }
    return candidate.model_copy(update=changes)


def _without_demos(predictors: Mapping[str, Predictor], gone: Oblivion) -> tuple[dict[str, Predictor], int]:
    def stays(demo: Demo) -> bool:
        return demo.case_id is None or not gone.covers("", demo.case_id, demo.output)

    left = {
        name: one.model_copy(update={"demos": tuple(d for d in one.demos if stays(d))})
        for name, one in predictors.items()
    }
    return left, sum(len(one.demos) - len(left[name].demos) for name, one in predictors.items())


def _people(entries: Sequence[Forgotten]) -> str:
    return ", ".join(sorted({one.by for one in entries}))
