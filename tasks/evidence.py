"""What a proposer is given: its parent, what this round may learn from, and what it works with."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial

import pyarrow.compute as pc

from ratchet.agent.environment import Environment
from ratchet.agent.kinds.answering import Answering
from ratchet.agent.kinds.chat_endpoint import Chat
from ratchet.agent.kinds.program import View
from ratchet.agent.memory.library import Library
from ratchet.agent.memory.ranking import Retriever
from ratchet.agent.optimize.budget import Budget
from ratchet.agent.optimize.calls import Calls
from ratchet.agent.optimize.evidence import Evidence, Example, Preference, Thumb
from ratchet.agent.optimize.examples import superseding
from ratchet.agent.optimize.proposer import Registered
from ratchet.agent.optimize.work import Work
from ratchet.agent.project import Project
from ratchet.agent.trace import Trace
from ratchet.evaluation.data.cases import answer_name
from ratchet.evaluation.data.scorers import same
from ratchet.infra.reflection_lm import reflection_lm
from ratchet.infra.registry.agents import build
from ratchet.infra.registry.registry import fetch_files, seen_case_ids, version_history, version_of
from ratchet.infra.store.collected import TRACES, collected_traces, columns_of, newest_traces
from ratchet.infra.store.dataset_store import DatasetVersion, column_of, read_dataset
from ratchet.infra.store.experience import library_view, recall_of_snapshots
from ratchet.infra.store.project_state import project_folder
from ratchet.tasks.curate import RoundData, TrainingExample
from ratchet.tasks.progress import progress

OWN = 5000
"""Newest traces of a candidate that a rewriter of tools is shown."""


def registered(name: str, candidate_id: str) -> Registered:
    """A candidate of the registry, with its files and what it has seen."""
    candidate = version_of(name, candidate_id).candidate
    return Registered(candidate, fetch_files(name, candidate_id), seen_case_ids(name, candidate_id))


def work_of(project: Project, seed: int, *, calls: Calls | None = None, budget: Budget | None = None) -> Work:
    """The project's folder, world and LMs; `calls` keeps what this proposal paid, `budget` bounds it."""
    return Work(
        folder=project_folder(project.name),
        environment=project.environment,
        scored=project.labelled_environment or _told_by_people(project),
        writer=partial(reflection_lm, chat=project.agent if isinstance(project.agent, Chat) else None),
        calls=calls or Calls(),
        budget=budget or Budget(),
        limits=project.limits,
        seed=seed,
        agent=lambda candidate, files: build(project, candidate, dict(files)),
        recall=recall_of_snapshots,
        may_retry=project.scores_itself and _tries_again(project),
        progress=progress,
    )


def _told_by_people(project: Project) -> Callable[[], Environment] | None:
    """Where an agent that answers a case whole has no scorer: an answer is worth 1 where it says what people said."""
    if project.agent is None or project.score is not None:
        return None
    alike = project.same or same
    return partial(
        Answering, lambda case, answer: None if case.expected is None else float(alike(case.expected, answer))
    )


def _tries_again(project: Project) -> bool:
    """Whether another attempt is served and harms nobody; a chat endpoint passes each request on once."""
    if isinstance(project.agent, Chat):
        return False
    return project.effects == "none" or not callable(project.agent)


def memory_of(name: str, data: RoundData) -> AbstractContextManager[Retriever]:
    """The library's steps of the runs that may teach in this round, ours and imported ones."""
    ids = (column_of(runs, "trace_id") for runs in (data.rollouts, data.imported))
    return library_view(name, {str(one) for column in ids for one in column})


def evidence_of(
    project: Project, parent: str, data: RoundData, memory: Callable[[], Retriever] = Library
) -> Evidence:
    """What this round may learn from; each part is read when a proposer asks for it."""
    return Evidence(
        examples=lambda: as_examples(project, read_dataset(data.training, TrainingExample)),
        served=lambda: served_by(project.name, parent),
        rollouts=lambda: read_dataset(data.rollouts, Trace),
        preferences=lambda: read_dataset(data.preferences, Preference) if data.preferences else (),
        thumbs=lambda: read_dataset(data.thumbs, Thumb) if data.thumbs else (),
        memory=memory,
        versions=frozenset(version.candidate_id for version in version_history(project.name)),
        digests={name: one.digest for name, one in _parts(data).items()},
    )


def learned_from(data: RoundData, digest: str | None) -> DatasetVersion | None:
    """The dataset of this digest; of several together the training cases."""
    known = {one.digest: one for one in _parts(data).values()}
    return known.get(digest, data.training) if digest else None


def _parts(data: RoundData) -> dict[str, DatasetVersion]:
    """What may be learned from, by the name that evidence has for it."""
    parts = {
        "examples": data.training,
        "rollouts": data.rollouts,
        "preferences": data.preferences,
        "thumbs": data.thumbs,
    }
    return {name: one for name, one in parts.items() if one is not None}


def as_examples(project: Project, training: Sequence[TrainingExample]) -> list[Example]:
    """What the agent would have seen of each case, without what a person answered otherwise later."""
    found = [
        Example(
            view=View(
                case_id=one.case.case_id,
                observation=project.environment().reset(one.case.case),
                inputs=one.case.case.inputs,
            ),
            answer=answer_name(one.case.answer),
            call=one.case.answer,
            weight=one.weight,
            trace_id=one.case.trace_id,
            seen_at=one.case.case.seen_at,
            source="human" if one.case.source == "human" else "own",
            said_at=one.case.said_at,
            supersedes=one.case.supersedes,
            expected=one.case.case.expected,
            said=one.case.said,
            session_id=one.case.session_id,
        )
        for one in training
    ]
    return superseding(found)


def served_by(name: str, candidate_id: str) -> list[Trace]:
    """What the candidate itself did in production; everybody's traces where it has served nothing yet: the newest."""
    stored = columns_of(TRACES, newest_traces(name), "trace_id", "candidate_id")
    own = stored.filter(pc.equal(stored.column("candidate_id"), candidate_id))
    ids: list[str] = (own if own.num_rows else stored).column("trace_id").to_pylist()
    return collected_traces(name, ids[-OWN:])
