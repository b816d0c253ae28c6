"""What a proposer may learn from: without repeats, without the gate's cases, with people's word above all.

All human labels are kept. What the agent made itself (its own successes) is capped in number and weight, so that it
cannot drown people and lock the agent into its own bias (Gerstgrasser et al., 2024: collapse is avoided when real
data are kept and accumulated; `tests/bench/bench_reinforcement.py` draws it). The cap that is promised is a floor:
wherever anybody labels at all, people have at least `human_share` of the training set by weight. Where nobody does,
an environment's word is all there is.
"""

import random
from collections.abc import Collection, Mapping, Sequence

from pydantic import Field

from ratchet.agent.memory.forgotten import Oblivion
from ratchet.agent.memory.steps import Experience
from ratchet.agent.record import Record, StageSettings
from ratchet.agent.trace import Trace
from ratchet.evaluation.data.cases import LabelledCase, answer_name, case_text, first_sessions, role_of
from ratchet.evaluation.data.contamination import overlapping
from ratchet.evaluation.data.labels import Label


class CurateSettings(StageSettings):
    """How much of what the agent made itself may stand beside what people said."""

    human_share: float = Field(default=2 / 3, ge=0, le=1)
    """Least share of people's labels in the training set, by weight, once there are any."""
    own_per_human: float = Field(default=1.0, ge=0, le=10)
    """At most this many own successes per human label."""
    own_weight: float = Field(default=0.5, ge=0, le=1)
    """Weight of an own success in training; a human label weighs 1."""
    max_cases: int = Field(default=2000, ge=1)
    """Training cases at most; human labels are all kept, whatever their number."""


def without_forgotten(
    labelled: Sequence[LabelledCase], gone: Oblivion, released: Collection[str] = ()
) -> list[LabelledCase]:
    """The labelled cases without those that people had forgotten; what the gate may still judge by stays."""

    def stays(one: LabelledCase) -> bool:
        said = None if one.answer is None else answer_name(one.answer)
        judges = one.role == "gate" and one.case_id not in released
        return judges or not gone.covers(one.trace_id, one.case_id, said)

    return [one for one in labelled if stays(one)]


class TrainingSet(Record):
    """A training set and what became of the rest."""

    cases: tuple[LabelledCase, ...]
    left_out: dict[str, int]
    own_weight: float = Field(default=0.5, ge=0, le=1)
    judge_reliability: float = Field(default=0.0, ge=0, le=1)
    """Part of `own_weight` that what a judge approved weighs."""

    def weight(self, case: LabelledCase) -> float:
        """How much the case counts in training."""
        if case.source == "judge":
            return self.own_weight * self.judge_reliability
        return 1.0 if case.source == "human" else self.own_weight

    @property
    def human_share(self) -> float | None:
        """People's share by weight; None where nothing weighs anything."""
        whole = sum(map(self.weight, self.cases))
        return self.n_human / whole if whole else None

    @property
    def n_human(self) -> int:
        """Cases that a person answered."""
        return sum(case.source == "human" for case in self.cases)


def refused_by(labels: Sequence[Label]) -> set[str]:
    """Traces that a person scored below 1."""
    return {
        one.trace_id for one in labels if one.source == "human" and one.score is not None and one.score < 1
    }


def training_rollouts(
    traces: Sequence[Trace],
    labelled: Sequence[LabelledCase],
    labels: Sequence[Label],
    *,
    gate_share: float,
    salt: str = "",
    released: Collection[str] = (),
) -> list[Trace]:
    """Whole runs that a proposer may learn from, won or lost, in the order of time.

    Left out: the gate's cases and what is nearly the same as a labelled one of them, all that happened in a session
    on the gate's side, runs that broke, and those that a person scored below 1 although the environment was content.

    Args:
        traces: all runs.
        labelled: all labelled cases.
        labels: people's answers.
        gate_share: share of the cases that is the gate's, as `labelled` was made with.
        salt: the project.
        released: gate cases that a gate already used.
    """
    refused = refused_by(labels)
    homes = first_sessions(traces)

    def teaches(trace: Trace) -> bool:
        sessions = {homes[trace.case.case_id], trace.session_id}
        return _on_training_side(trace.case.case_id, sessions, gate_share, salt, released)

    mine = [t for t in traces if t.error is None and t.trace_id not in refused and teaches(t)]
    near = _near_the_gate({t.case.case_id: case_text(t.case) for t in mine}, labelled, released)
    return sorted((t for t in mine if t.case.case_id not in near), key=lambda t: (t.started_at, t.trace_id))


def training_imports(
    firsts: Sequence[Experience],
    traces: Sequence[Trace],
    labelled: Sequence[LabelledCase],
    *,
    gate_share: float,
    salt: str = "",
    released: Collection[str] = (),
) -> list[Experience]:
    """Those of other agents' runs that a proposer may look at, by the same rules as `training_rollouts`.

    Args:
        firsts: the first step of each imported run.
        traces: all runs of ours: a case that production has seen, too, is at home in its session.
        labelled: all labelled cases.
        gate_share: share of the cases that is the gate's, as `labelled` was made with.
        salt: the project.
        released: gate cases that a gate already used.
    """
    homes = first_sessions(traces)

    def teaches(step: Experience) -> bool:
        sessions = {homes.get(step.case_id, step.session_id), step.session_id}
        return _on_training_side(step.case_id, sessions, gate_share, salt, released)

    mine = [step for step in firsts if teaches(step)]
    near = _near_the_gate({step.case_id: step.asked for step in mine}, labelled, released)
    return [step for step in mine if step.case_id not in near]


def _on_training_side(
    case_id: str,
    sessions: Collection[str | None],
    gate_share: float,
    salt: str,
    released: Collection[str],
) -> bool:
    """Whether a case may teach: neither its home nor the session in which it came again is the gate's."""
    return case_id in released or all(
        role_of(case_id, gate_share=gate_share, salt=salt, session_id=session) == "train"
        for session in sessions
    )


def _near_the_gate(
    texts: Mapping[str, str | None], labelled: Sequence[LabelledCase], released: Collection[str]
) -> set[str]:
    """Those of the cases, id → text, that are nearly the same as one that the gate may still judge by."""
    gate = {c.case_id: case_text(c.case) for c in labelled if c.role == "gate" and c.case_id not in released}
    return overlapping(texts, gate)


def curate(
    labelled: Sequence[LabelledCase],
    settings: CurateSettings,
    *,
    released: Collection[str] = (),
    seed: int = 0,
    judge_reliability: float = 0.0,
) -> TrainingSet:
    """The training set.

    Args:
        labelled: all labelled cases, gate cases included (they are left out here).
        settings: caps and weights.
        released: gate cases that a gate already used: they can never judge again, so they may teach.
        seed: of the draw among own successes above the cap.
        judge_reliability: of the judge by its licence (`Licence.weight`).
    """
    mine = [c for c in labelled if c.role == "train" or c.case_id in released]
    left_out = {"reserved for the gate": len(labelled) - len(mine)}
    unknown = [
        c for c in mine if c.answer is None
    ]  # used gate cases: the environment knows, and does not say
    left_out["nobody said what is right"] = len(unknown)
    mine = [c for c in mine if c.answer is not None]
    leaking = _near_the_gate({c.case_id: case_text(c.case) for c in mine}, labelled, released)
    left_out["nearly the same as a gate case"] = sum(
        c.case_id in leaking and c.source != "human" for c in mine
    )
    # a person's answer is never dropped: there the gate gives way, it refuses the near-duplicate itself
    mine = [c for c in mine if c.source == "human" or c.case_id not in leaking]
    human = [c for c in mine if c.source == "human"]
    # a judge has shown what it is worth beside people: where none labelled, it does not teach
    own = [c for c in mine if c.source == "environment" or (c.source == "judge" and human)]
    own = sorted(own, key=lambda c: c.case_id)
    room = own_room(len(human), settings)
    kept = own if len(own) <= room else random.Random(seed).sample(own, room)
    left_out["own successes above the cap"] = len(own) - len(kept)
    chosen = sorted((*human, *kept), key=lambda c: c.case_id)
    return TrainingSet(
        cases=tuple(chosen),
        left_out={k: v for k, v in left_out.items() if v},
        own_weight=settings.own_weight,
        judge_reliability=judge_reliability,
    )


def own_room(n_human: int, settings: CurateSettings) -> int:
    """How many own successes may stand beside this many human labels.

    With h labels of weight 1 and m own of weight w the share h / (h + m·w) is at least s while m ≤ h (1 − s) / (s·w).
    """
    if not n_human:
        return settings.max_cases  # nobody labelled yet: what an environment told is all there is
    room = min(settings.own_per_human * n_human, max(settings.max_cases - n_human, 0))
    per_share = settings.human_share * settings.own_weight
    if per_share > 0:
        room = min(room, n_human * (1 - settings.human_share) / per_share)
    return int(room + 1e-9)  # 2/3 is no float: the default must give one for one
