"""Evaluate and gate: champion and challengers on the same fresh cases, a batch at a time, until each has its verdict.

Optional stopping is free under the gate's e-process, so nothing is evaluated that no verdict needs.
"""

import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from prefect import task
from pydantic import Field

from agent.loop import run
from agent.project import load_project
from agent.record import Record
from agent.trace import Trace
from evaluation.cases import LabelledCase, case_text, fresh_for_gate
from evaluation.gate import Gate, GatePolicy
from evaluation.ledger import Entry
from evaluation.order import batches, in_order
from evaluation.pairs import Pair, Rollout, pair_up
from evaluation.provenance import Registration
from evaluation.scorers import Interval, anytime_interval
from evaluation.verdict import Verdict, WealthPoint
from infra.dataset_store import DatasetVersion, read_dataset
from infra.gate_cases import spent_cases
from infra.gate_picture import draw_gate
from infra.ledger_store import close_ledger_test, open_ledger_test
from infra.pictures import draw_confusion
from infra.programs import load_program
from infra.registry import record_evaluation, seen_case_ids
from tasks.caching import cached_by
from tasks.learn import Lessons, answer_name
from tasks.progress import progress

ACCURACY = "accuracy"


class GateSettings(Record):
    """How sure to be, and in what portions to look."""

    alpha: float = Field(default=0.05, gt=0, lt=1)
    """Probability of any false promotion in the project's lifetime."""
    min_gain: float = Field(default=0.0, gt=-1, lt=1)
    batch: int = Field(default=16, ge=1)
    """Cases between two looks."""
    max_cases: int = Field(default=400, ge=1)
    min_cases: int = Field(default=20, ge=1)
    """Fewer fresh cases than this and the gate does not open: the test would spend budget for nothing."""


class Judged(Record):
    """A challenger's verdict."""

    candidate_id: str
    verdict: Verdict
    accuracy: Interval | None


@task(name="evaluate", **cached_by("name", "candidate_id", "labelled", "case_ids", result=list[Trace]))
def evaluate(
    folder: str, name: str, candidate_id: str, labelled: DatasetVersion, case_ids: list[str]
) -> list[Trace]:
    """Single attempts of one version at these cases."""
    cases = {item.case_id: item.case for item in read_dataset(labelled, LabelledCase)}
    program, project = load_program(name, candidate_id), load_project(Path(folder))
    environment = project.labelled_environment or project.environment
    now, waiting = datetime.now(UTC), [cases[i] for i in case_ids]
    return run(program.single_attempt(), waiting, environment, at=lambda _: now, limits=project.limits)


@task(name="gate")
def gate_candidates(
    folder: str, lessons: Lessons, challengers: list[str], settings: GateSettings
) -> list[Judged]:
    """Spend one share of the error budget on each challenger and bet until its verdict, or until cases run out."""
    name = load_project(Path(folder)).name
    cases = fresh_cases(name, lessons, challengers, settings)
    if len(cases) < settings.min_cases:
        return []
    trials = [Trial(name, lessons.champion, challenger, settings) for challenger in challengers]
    used: list[str] = []
    with progress("gate: champion and challengers on fresh cases", len(cases)) as advance:
        for batch in batches(cases, settings.batch):
            unsettled = [trial for trial in trials if trial.is_open]
            if not unsettled:
                break
            ids = [case.case_id for case in batch]
            ours = evaluate(folder, name, lessons.champion, lessons.labelled, ids)
            for trial in unsettled:
                trial.bet(ours, evaluate(folder, name, trial.challenger, lessons.labelled, ids), batch)
            used += ids
            advance(len(batch))
    return [trial.close(used) for trial in trials]


def fresh_cases(
    name: str, lessons: Lessons, challengers: Sequence[str], settings: GateSettings
) -> list[LabelledCase]:
    """Gate cases that none of these candidates' proposers saw, and that no gate used."""
    labelled = read_dataset(lessons.labelled, LabelledCase)
    seen = {i for candidate in (lessons.champion, *challengers) for i in seen_case_ids(name, candidate)}
    texts: dict[str, str | None] = {
        item.case_id: case_text(item.case) for item in labelled if item.case_id in seen
    }
    fresh, _ = fresh_for_gate(labelled, seen, texts, set(spent_cases(name)))
    return in_order(fresh)[: settings.max_cases]


class Trial:
    """One challenger's test: its share of the budget, its bets, its papers."""

    def __init__(self, name: str, champion: str, challenger: str, settings: GateSettings) -> None:
        """Register both sides before the first case is drawn."""
        self.name, self.champion, self.challenger = name, champion, challenger
        self.entry: Entry = open_ledger_test(name, challenger, champion=champion, alpha=settings.alpha)
        registration = Registration(champion=champion, challenger=challenger)
        policy = GatePolicy(alpha=self.entry.alpha_k, min_gain=settings.min_gain)
        self.gate = Gate(policy, registration)
        self.path: list[WealthPoint] = []
        self.traces: list[Trace] = []
        self.batch: list[LabelledCase] = []

    @property
    def is_open(self) -> bool:
        """Whether more cases can change the verdict."""
        return self.gate.verdict().decision == "continue"

    def bet(self, ours: Sequence[Trace], theirs: Sequence[Trace], batch: Sequence[LabelledCase]) -> None:
        """Look after every case."""
        sides = ({t.case.case_id: as_rollout(t) for t in side} for side in (ours, theirs))
        by_id = {item.case_id: item for item in batch}
        for pair in pair_up(*sides):
            self.gate.update(self._identified(pair, by_id[pair.case_id]))
            if (point := self.gate.snapshot()) is not None:
                self.path.append(point)
        self.traces += theirs
        self.batch += batch

    def _identified(self, pair: Pair, item: LabelledCase) -> Pair:
        return pair.model_copy(
            update={
                "slice": item.case.slice,
                "cluster": item.session_id,
                "champion_id": self.champion,
                "challenger_id": self.challenger,
            }
        )

    def close(self, used: Sequence[str]) -> Judged:
        """Write the result and the cases into the ledger, then verdict, scores and pictures to the version's page.

        Only now are cases spent: a run killed before bets again on the same ones, whose evaluations are kept.
        """
        self.gate.finish()
        verdict = self.gate.verdict()
        scores = [trace.first_score for trace in self.traces]
        sessions = [item.session_id for item in self.batch]
        accuracy = anytime_interval(scores, sessions) if any(score is not None for score in scores) else None
        close_ledger_test(
            self.name,
            self.challenger,
            champion=self.champion,
            decision=verdict.decision,
            e_value=verdict.e_value,
            reason=verdict.reason,
            cases=used,
        )
        with tempfile.TemporaryDirectory() as scratch:
            record_evaluation(
                self.name,
                self.challenger,
                scores={ACCURACY: accuracy} if accuracy else {},
                verdict=verdict,
                compared_with=self.champion,
                pictures=self._pictures(Path(scratch), verdict),
            )
        return Judged(candidate_id=self.challenger, verdict=verdict, accuracy=accuracy)

    def _pictures(self, folder: Path, verdict: Verdict) -> dict[str, Path]:
        pictures = {}
        if self.path:
            draw_gate(self.path, verdict, folder / "wealth.png")
            pictures["wealth"] = folder / "wealth.png"
        known = [(i, t) for i, t in zip(self.batch, self.traces, strict=True) if i.answer is not None]
        if known:
            expected = [answer_name(item.answer) for item, _ in known]
            chosen = [t.first_action.name if t.first_action else None for _, t in known]
            pictures["confusion"] = draw_confusion(expected, chosen, folder / "confusion.png")
        return pictures


def as_rollout(trace: Trace) -> Rollout:
    """What the gate needs of a run; a run that broke says on which side."""
    return Rollout(
        score=None if trace.error else trace.first_score,
        failed=trace.error.kind if trace.error else None,
        cost=float(trace.usage.input_tokens + trace.usage.output_tokens),
        latency=trace.latency_s,
    )
