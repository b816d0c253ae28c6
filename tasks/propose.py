"""Curate and propose: what the agent may learn from, and the challengers that are made of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow.compute as pc
from prefect import task
from pydantic import Field

from ratchet.agent.candidate import Candidate
from ratchet.agent.kinds.program import View
from ratchet.agent.lm.lm import lm_type
from ratchet.agent.optimize.prompts import PromptSettings, propose_prompt
from ratchet.agent.optimize.proposer import Example, Proposal
from ratchet.agent.optimize.reflections import LessonSettings
from ratchet.agent.optimize.replay import ExperienceSettings, propose_experience
from ratchet.agent.optimize.replay_runs import TrajectorySettings
from ratchet.agent.optimize.team import propose_jointly
from ratchet.agent.optimize.team_search import MOVES, TeamSettings, propose_team
from ratchet.agent.optimize.tools import ToolSettings, propose_tools
from ratchet.agent.optimize.weights import LoraSettings, propose_lora
from ratchet.agent.project import Proposer, load_project
from ratchet.agent.record import Record
from ratchet.agent.trace import Trace
from ratchet.evaluation.data.cases import LabelledCase, answer_name, labelled_cases, released_by, split_salt
from ratchet.evaluation.data.curate import CurateSettings, curate, training_rollouts
from ratchet.evaluation.data.labels import Label
from ratchet.infra.registry.gate_cases import spent_cases
from ratchet.infra.registry.registry import champion, fetch_files, register, seen_case_ids, version_of
from ratchet.infra.review.answers import contradictions, effective_labels
from ratchet.infra.settings import Settings
from ratchet.infra.store.collected import TRACES, collected_traces, columns_of, newest_traces
from ratchet.infra.store.dataset_store import DatasetVersion, read_dataset, write_dataset
from ratchet.infra.store.project_state import project_folder
from ratchet.tasks.caching import cached_by
from ratchet.tasks.collect import Collection
from ratchet.tasks.progress import progress
from ratchet.tasks.rollouts import propose_from_rollouts

OWN = 5000
"""Newest traces of a candidate that a rewriter of tools is shown."""


class ProposeSettings(Record):
    """One settings record per proposer."""

    experience: ExperienceSettings = ExperienceSettings()
    lora: LoraSettings = LoraSettings()
    prompt: PromptSettings = PromptSettings()
    team: TeamSettings = TeamSettings()
    tools: ToolSettings = ToolSettings()
    trajectories: TrajectorySettings = TrajectorySettings()
    lessons: LessonSettings = LessonSettings()


class RoundData(Record):
    """What this round learns from, and what it is judged by."""

    training: DatasetVersion
    labelled: DatasetVersion
    """All labelled cases, those of the gate included."""
    practice: DatasetVersion
    """Whole runs, won and lost, of cases that are not the gate's; none where no proposer wanted them."""
    champion: str
    n_human: int = Field(ge=0)
    left_out: dict[str, int]


@task(name="curate")
def curate_round(
    folder: str,
    collection: Collection,
    settings: CurateSettings,
    gate_share: float,
    *,
    with_runs: bool = True,
    seed: int = 0,
) -> RoundData:
    """Split and curate what was collected; versions of both sides, and of whole runs where a proposer wants these."""
    project = load_project(Path(folder))
    labels = effective_labels(project.name, read_dataset(collection.labels, Label))
    traces = read_dataset(collection.traces, Trace)
    salt = split_salt(project.name, seed)
    labelled = labelled_cases(
        traces,
        labels,
        gate_share=gate_share,
        salt=salt,
        self_scoring=project.scores_itself,
    )
    released = released_by(labelled, spent_cases(project.name))
    curated = curate(labelled, settings, released=released, seed=seed)
    runs: list[Trace] = []
    if with_runs:
        runs = training_rollouts(
            traces, labelled, labels, gate_share=gate_share, salt=salt, released=released
        )
    disputed = len(contradictions(labels))
    weighted = [
        TrainingExample(case=c, weight=1.0 if c.source == "human" else settings.own_weight)
        for c in curated.cases
    ]
    serving = champion(project.name)
    assert serving is not None, "a champion is registered before the first trace"
    return RoundData(
        training=write_dataset("training", weighted),
        labelled=write_dataset("labelled", labelled),
        practice=write_dataset("practice", runs),
        champion=serving.candidate_id,
        n_human=curated.n_human,
        left_out=curated.left_out | ({"people contradict each other": disputed} if disputed else {}),
    )


class TrainingExample(Record):
    """A training case and how much it counts."""

    case: LabelledCase
    weight: float


@task(
    name="propose",
    **cached_by("name", "proposer", "parent", "training", "practice", "settings", result=str),
)
def propose(
    folder: str,
    name: str,
    proposer: Proposer,
    parent: str,
    training: DatasetVersion,
    settings: ProposeSettings,
    practice: DatasetVersion | None = None,
) -> str:
    """Make and register one challenger; returns its candidate id.

    Args:
        folder: the project's.
        name: the project's.
        proposer: who makes it.
        parent: candidate id that it starts from.
        training: `TrainingExample`s.
        settings: of all proposers.
        practice: whole runs, for a proposer that learns from these; else None.
    """
    if practice is not None:
        runs = read_dataset(practice, Trace)
        proposal = propose_from_rollouts(
            Path(folder), proposer, parent, runs, practice.digest, settings.trajectories, settings.lessons
        )
    else:
        lessons = read_dataset(training, TrainingExample)
        examples = as_examples(folder, lessons)
        proposal = make(name, proposer, parent, examples, lessons, training.digest, settings)
    register(
        name,
        proposal.candidate,
        files=proposal.files,
        seen_case_ids=proposal.seen_case_ids,
        cost=proposal.cost,
        dataset=practice or training,
    )
    return proposal.candidate.candidate_id


def able(proposers: Sequence[Proposer], name: str, champion: str) -> list[Proposer]:
    """Those that can change the champion: the weights behind an endpoint are not ours to train."""
    trainable = lm_type(version_of(name, champion).candidate.base_model).is_trainable
    return [proposer for proposer in proposers if trainable or proposer != "lora"]


def as_examples(folder: str, lessons: list[TrainingExample]) -> list[Example]:
    """What the agent would have seen of each lesson's case."""
    project = load_project(Path(folder))
    return [
        Example(
            view=View(case_id=lesson.case.case_id, observation=project.environment().reset(lesson.case.case)),
            answer=answer_name(lesson.case.answer),
            weight=lesson.weight,
            trace_id=lesson.case.trace_id,
            seen_at=lesson.case.case.seen_at,
            source="human" if lesson.case.source == "human" else "own",
        )
        for lesson in lessons
    ]


def make(
    name: str,
    proposer: Proposer,
    parent_id: str,
    examples: list[Example],
    lessons: list[TrainingExample],
    digest: str,
    settings: ProposeSettings,
) -> Proposal:
    """Run one proposer on the parent; what improves a single agent improves each role of a team in turn."""
    parent, files = version_of(name, parent_id).candidate, fetch_files(name, parent_id)
    seen = sorted(seen_case_ids(name, parent_id))
    if proposer == "team":
        with progress("team: trying topologies", settings.team.rounds * MOVES) as done:
            return propose_team(
                parent, examples, settings.team,
                files=files, endpoint=Settings().endpoint, seen=seen, data_digest=digest, progress=done,
            )  # fmt: skip
    if proposer == "tools":
        with progress("tools: rewriting what failed", settings.tools.tools) as done:
            return propose_tools(
                parent, examples, own_traces(name, parent_id), settings.tools,
                answers={lesson.case.case_id: lesson.case.answer for lesson in lessons},
                files=files, endpoint=Settings().endpoint, seen=seen, data_digest=digest, progress=done,
            )  # fmt: skip

    def improve(agent: Candidate, learned: Sequence[Example], theirs: Mapping[str, Path]) -> Proposal:
        return _improved(name, proposer, agent, learned, theirs, seen, digest, settings)

    if parent.topology.roles:
        return propose_jointly(parent, examples, improve, files, Settings().endpoint)
    return improve(parent, examples, files)


def own_traces(name: str, candidate_id: str) -> list[Trace]:
    """What the candidate itself did in production; everybody's traces where it has served nothing yet: the newest."""
    stored = columns_of(TRACES, newest_traces(name), "trace_id", "candidate_id")
    own = stored.filter(pc.equal(stored.column("candidate_id"), candidate_id))
    ids: list[str] = (own if own.num_rows else stored).column("trace_id").to_pylist()
    return collected_traces(name, ids[-OWN:])


def _improved(
    name: str,
    proposer: Proposer,
    parent: Candidate,
    examples: Sequence[Example],
    files: Mapping[str, Path],
    seen: Sequence[str],
    digest: str,
    settings: ProposeSettings,
) -> Proposal:
    """A single agent, improved by a proposer of single agents."""
    folder = project_folder(name)
    if proposer == "experience":
        with progress(
            "experience: weighing the memory", min(len(examples), settings.experience.tune_on)
        ) as done:
            made = propose_experience(
                parent, examples, folder / "memory", settings.experience,
                adapter=files.get("adapter"), seen=seen, data_digest=digest, progress=done,
            )  # fmt: skip
        return made if made.candidate != parent else made.model_copy(update={"files": dict(files)})
    if proposer == "lora":
        with progress("LoRA: training", len(examples) * settings.lora.epochs) as done:
            return propose_lora(
                parent, examples, folder / "adapters", settings.lora,
                memory=files.get("memory"), seen=seen, data_digest=digest, progress=done,
            )  # fmt: skip
    with progress("DSPy: searching prompts", settings.prompt.calls) as done:
        return propose_prompt(
            parent, examples, settings.prompt,
            files=files, endpoint=Settings().endpoint, seen=seen, data_digest=digest, progress=done,
        )  # fmt: skip
