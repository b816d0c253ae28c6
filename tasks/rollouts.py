"""Propose from whole runs: what was done step by step, what a retry put right, and what feedback mended."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from ratchet.agent.memory.steps import WON, tally, winning_steps
from ratchet.agent.optimize.proposer import Proposal
from ratchet.agent.optimize.reflections import LessonSettings, corrections, propose_lessons
from ratchet.agent.optimize.replay_runs import TrajectorySettings, propose_trajectories, replayed
from ratchet.agent.project import Project, Proposer, load_project
from ratchet.agent.rollout.repair import repair
from ratchet.agent.trace import Trace
from ratchet.infra.registry.programs import load_program
from ratchet.infra.registry.registry import fetch_files, seen_case_ids, version_history, version_of
from ratchet.infra.store.experience import recall_of_snapshots
from ratchet.infra.store.project_state import project_folder
from ratchet.tasks.progress import progress

FROM_ROLLOUTS: Final[tuple[Proposer, ...]] = ("trajectories", "lessons")
"""Proposers that learn from whole runs and not from labelled cases."""


def propose_from_rollouts(
    folder: Path,
    proposer: Proposer,
    parent_id: str,
    runs: Sequence[Trace],
    digest: str,
    trajectories: TrajectorySettings,
    lessons: LessonSettings,
) -> Proposal:
    """Run one of `FROM_ROLLOUTS`; where the runs teach nothing, and for a team, the parent as it is.

    Args:
        folder: the project's.
        proposer: which.
        parent_id: the candidate that it starts from.
        runs: whole runs, none of the gate's cases among them.
        digest: of the dataset that holds the runs.
        trajectories: settings of the one.
        lessons: settings of the other.
    """
    project = load_project(folder)
    parent, files = version_of(project.name, parent_id).candidate, fetch_files(project.name, parent_id)
    seen = sorted(seen_case_ids(project.name, parent_id))
    same = Proposal(candidate=parent, files=files, seen_case_ids=tuple(seen))
    if parent.topology.roles:
        return same  # each role learns from decisions, in its turn
    if proposer == "lessons":
        if not corrections(runs):
            return same
        return propose_lessons(parent, runs, lessons, files=files, seen=seen, data_digest=digest)
    versions = {version.candidate_id for version in version_history(project.name)}
    own = [run for run in runs if run.candidate_id in versions]  # an imported run's world is not ours to play
    with progress("trajectories: playing what failed again", trajectories.repairs) as done:
        mended = repaired(project, parent_id, own, trajectories.repairs, done)
    steps = [step for run in (*runs, *mended) for step in winning_steps(run)]
    if not steps:
        return same
    examples = [example for run in (*own, *mended) for example in replayed(run, project.environment())]
    seen = sorted({*seen, *(run.case.case_id for run in runs)})  # lost ones, too, decide what is kept
    recall, embed = recall_of_snapshots(trajectories.recall)
    settings = trajectories.model_copy(update={"recall": recall})
    with progress("trajectories: weighing the memory", min(len(examples), trajectories.tune_on)) as done:
        return propose_trajectories(
            parent, steps, project_folder(project.name) / "memory", settings,
            examples=examples, credit=tally(runs), embed=embed, adapter=files.get("adapter"), seen=seen,
            data_digest=digest, progress=done,
        )  # fmt: skip


def repaired(
    project: Project, candidate_id: str, runs: Sequence[Trace], most: int, progress: Callable[[int], None]
) -> Sequence[Trace]:
    """What the candidate wins, with feedback, of the newest cases that nobody won; none where nothing scores it."""
    won = {run.case.case_id for run in runs if run.score is not None and run.score >= WON}
    failed = {
        run.case.case_id: run
        for run in runs
        if run.score is not None and run.score < WON and run.case.case_id not in won
    }
    chosen = list(failed.values())[-most:] if most else []
    if not chosen:
        return ()
    mended = repair(
        load_program(project.name, candidate_id),
        chosen,
        {run.case.case_id: run.case for run in chosen},
        project.environment,
        at=lambda i: chosen[i].started_at,
        limits=project.limits,
    )
    progress(len(chosen))
    return mended.traces
