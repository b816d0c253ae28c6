"""Curate: what this round may learn from, without repeats and without the gate's cases."""

from pathlib import Path
from typing import Final

from prefect import task
from pydantic import Field

from ratchet.agent.kinds.chat_endpoint import Chat
from ratchet.agent.project import load_project
from ratchet.agent.record import Record, as_text, content_hash
from ratchet.agent.trace import Trace
from ratchet.evaluation.data.cases import (
    LabelledCase,
    labelled_cases,
    released_by,
    split_salt,
    unlabelled_cases,
)
from ratchet.evaluation.data.conversations import earlier_calls
from ratchet.evaluation.data.curate import (
    CurateSettings,
    curate,
    refused_by,
    training_imports,
    training_rollouts,
    without_forgotten,
)
from ratchet.evaluation.data.labels import Label
from ratchet.evaluation.data.preferences import preferences_of, thumbs_of
from ratchet.evaluation.data.raters import RaterSettings, heard
from ratchet.evaluation.judge.licence import approved_by
from ratchet.infra.judge.store import read_licence
from ratchet.infra.registry.forgotten import forgotten
from ratchet.infra.registry.gate_cases import spent_cases
from ratchet.infra.registry.golden import golden_set
from ratchet.infra.registry.registry import champion
from ratchet.infra.review.answers import contradictions, effective_labels
from ratchet.infra.store.collected import newest_grades
from ratchet.infra.store.dataset_store import DatasetVersion, read_dataset, write_dataset
from ratchet.infra.store.experience import open_library
from ratchet.tasks.collect import Collection

UNLABELLED: Final = 2000
"""Newest cases of the gate's side of which nobody knows the answer that a round looks at."""


class RoundData(Record):
    """What this round learns from, and what it is judged by."""

    training: DatasetVersion
    labelled: DatasetVersion
    """All labelled cases, and the gate's newest of which nobody knows the answer."""
    rollouts: DatasetVersion
    """Whole runs, won and lost, of cases that are not the gate's."""
    imported: DatasetVersion
    """The first step of each run in the library that is another agent's and that is not the gate's."""
    preferences: DatasetVersion | None = None
    """What people picked side by side or corrected; None where there is nothing."""
    thumbs: DatasetVersion | None = None
    """What people scored 1 or 0."""
    champion: str
    n_human: int = Field(ge=0)
    human_share: float | None = None
    """People's share of the training cases, by weight; None where there are none."""
    left_out: dict[str, int]

    @property
    def digest(self) -> str:
        """Of all that may be learned from."""
        parts = (self.training, self.rollouts, self.imported, self.preferences, self.thumbs)
        return content_hash([part.digest for part in parts if part is not None])


@task(name="curate")
def curate_round(
    folder: str,
    collection: Collection,
    settings: CurateSettings,
    gate_share: float,
    *,
    seed: int = 0,
    raters: RaterSettings | None = None,
) -> RoundData:
    """Split and curate what was collected; versions of both sides, and of whole runs."""
    project = load_project(Path(folder))
    said_by_all = effective_labels(project.name, read_dataset(collection.labels, Label))
    labels = heard(said_by_all, raters or RaterSettings())
    traces = read_dataset(collection.traces, Trace)
    salt, spent = split_salt(project.name, seed), spent_cases(project.name)
    said = {label.trace_id for label in labels}
    earlier = earlier_calls(traces) - said if isinstance(project.agent, Chat) else ()
    last = [trace for trace in traces if trace.trace_id not in earlier]
    licence = read_licence(project.name)
    labelled = labelled_cases(
        last,
        labels,
        gate_share=gate_share,
        salt=salt,
        self_scoring=project.scores_itself,
        approved=approved_by(licence, read_dataset(newest_grades(project.name), Label)),
        spent=spent,
    )
    released = released_by(labelled, spent)
    gone = forgotten(project.name)
    frozen = {one.case_id for one in golden_set(project.name)}
    known = without_forgotten(labelled, gone, released)
    teaching = [one for one in known if one.case_id not in frozen]
    curated = curate(teaching, settings, released=released, seed=seed, judge_reliability=licence.weight)
    played = training_rollouts(traces, labelled, (), gate_share=gate_share, salt=salt, released=released)
    played = [
        one
        for one in played
        if one.case.case_id not in frozen
        and not gone.covers(one.trace_id, one.case.case_id, _whole_answer(one))
    ]
    refused = refused_by(labels)
    preferences, thumbs = preferences_of(played, labels), thumbs_of(played, labels)
    with open_library(project.name) as library:
        imported = training_imports(
            library.imported(), traces, labelled, gate_share=gate_share, salt=salt, released=released
        )
        imported = [step for step in imported if step.case_id not in frozen]
        imported = [step for step in imported if not gone.covers(step.trace_id, step.case_id)]
    unlabelled = unlabelled_cases(last, labelled, gate_share=gate_share, salt=salt, most=UNLABELLED)
    disputed = len(contradictions(labels, {trace.trace_id for trace in traces if trace.is_free}))
    weighted = [TrainingExample(case=one, weight=curated.weight(one)) for one in curated.cases]
    left_out = {
        "people contradict each other": disputed,
        "people had it forgotten": len(labelled) - len(known),
        "frozen in the golden set": len(known) - len(teaching),
        "raters are held back or outweighed": len(said_by_all) - len(labels),
    }
    serving = champion(project.name)
    assert serving is not None, "a champion is registered before the first trace"
    return RoundData(
        training=write_dataset("training", weighted),
        labelled=write_dataset("labelled", [*labelled, *unlabelled]),
        rollouts=write_dataset("rollouts", [one for one in played if one.trace_id not in refused]),
        imported=write_dataset("imported", imported),
        preferences=write_dataset("preferences", preferences) if preferences else None,
        thumbs=write_dataset("thumbs", thumbs) if thumbs else None,
        champion=serving.candidate_id,
        n_human=curated.n_human,
        human_share=curated.human_share,
        left_out=curated.left_out | {why: n for why, n in left_out.items() if n},
    )


def _whole_answer(run: Trace) -> str | None:
    """What a run of one step answered, as text; None of a longer one."""
    return as_text(run.answer) if run.n_steps == 1 else None


class TrainingExample(Record):
    """A training case and how much it counts."""

    case: LabelledCase
    weight: float
