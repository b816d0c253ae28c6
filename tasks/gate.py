"""Evaluate and gate: champion and challengers on the same fresh cases, a batch at a time, until each has its verdict.

Optional stopping is free under the gate's e-process, so nothing is evaluated that no verdict needs. After every
batch the test is stored: a killed run goes on after it, in the same order.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from prefect import task

from ratchet.agent.errors import BadInput
from ratchet.agent.project import load_project
from ratchet.agent.record import Record
from ratchet.agent.rollout.loop import run
from ratchet.agent.trace import Trace
from ratchet.evaluation.data.cases import LabelledCase
from ratchet.evaluation.data.intervals import Interval
from ratchet.evaluation.gate.choice import BestChallenger, ProvenChallenger, best_proven, common_order
from ratchet.evaluation.gate.failures import Played, broke, to_repeat, unbroken_runs, unscored, unusable
from ratchet.evaluation.gate.order import batches, in_order
from ratchet.evaluation.gate.settings import GateSettings
from ratchet.evaluation.gate.trial import Trial
from ratchet.evaluation.gate.verdict import Verdict
from ratchet.infra.registry.agents import load_agent
from ratchet.infra.registry.registry import seen_case_ids
from ratchet.infra.store.dataset_store import DatasetVersion, read_dataset
from ratchet.tasks.caching import cached_by, keep_nothing
from ratchet.tasks.curate import RoundData
from ratchet.tasks.progress import progress
from ratchet.tasks.trials import GateTests


class GateResult(Record):
    """A challenger's verdict; of a test that stopped before one, how far it is."""

    candidate_id: str
    verdict: Verdict
    accuracy: Interval | None
    """Holds wherever the test stopped."""
    stopped: str = ""
    """Why it stopped before its verdict: it stays open, and the next run goes on with it."""


class GateRound(Record):
    """What a round of the gate came to."""

    judged: tuple[GateResult, ...] = ()
    best: BestChallenger | None = None
    """Of all that are proven against the present champion, those of earlier runs included."""
    problems: tuple[str, ...] = ()
    """Why a test did not open, or stopped."""


@task(name="evaluate", **cached_by("name", "candidate_id", "labelled", "case_ids", result=list[Trace]))
def evaluate(
    folder: str, name: str, candidate_id: str, labelled: DatasetVersion, case_ids: list[str]
) -> list[Trace]:
    """One version at these cases; not kept where something broke, so that it is played again.

    A retry needs somebody who says that it failed: where production has nobody, as behind a chat endpoint, one
    attempt counts.
    """
    cases = {item.case_id: item.case for item in read_dataset(labelled, LabelledCase)}
    project = load_project(Path(folder))
    agent = load_agent(project, candidate_id)
    if agent.candidate.kind in ("built-in", "chat") or not project.scores_itself:
        agent = agent.single_attempt()
    environment = project.labelled_environment or project.environment
    now, waiting = datetime.now(UTC), [cases[i] for i in case_ids]
    traces = run(agent, waiting, environment, at=lambda _: now, limits=project.limits)
    if any(broke(trace) for trace in traces):
        keep_nothing()
    return traces


class Players:
    """Champion and challengers at their cases; in one run of the gate no version plays a case twice for nothing."""

    def __init__(self, folder: str, name: str, labelled: DatasetVersion) -> None:
        self.folder, self.name, self.labelled = folder, name, labelled
        self._played: dict[tuple[str, str], Trace] = {}

    def play(self, candidate_id: str, case_ids: Sequence[str], *, again: bool = False) -> list[Trace]:
        """Evaluate; `again` does not look at what was kept."""
        task = evaluate.with_options(refresh_cache=True) if again else evaluate
        return list(task(self.folder, self.name, candidate_id, self.labelled, list(case_ids)))

    def at(self, candidate_id: str, case_ids: Sequence[str]) -> dict[str, Trace]:
        """What the version did at these cases, by case id."""
        missing = [i for i in case_ids if (candidate_id, i) not in self._played]
        for trace in self.play(candidate_id, missing) if missing else ():
            self._played[candidate_id, trace.case.case_id] = trace
        return {i: self._played[candidate_id, i] for i in case_ids}

    def both(self, champion: str, challenger: str, case_ids: Sequence[str]) -> tuple[Played, Played]:
        """Both versions at these cases; where one broke both played once more."""
        ours, theirs = self.at(champion, case_ids), self.at(challenger, case_ids)
        broken = to_repeat(ours, theirs)
        if broken:
            again = [self.play(side, broken, again=True) for side in (champion, challenger)]
            for case_id, *second in zip(broken, *again, strict=True):
                ours[case_id], theirs[case_id] = unbroken_runs(
                    (ours[case_id], theirs[case_id]), (second[0], second[1])
                )
                for side, traces in ((champion, ours), (challenger, theirs)):
                    self._played[side, case_id] = traces[case_id]
        return ours, theirs


@task(name="gate")
def gate_candidates(
    folder: str, data: RoundData, challengers: Sequence[str], settings: GateSettings
) -> GateRound:
    """Spend one share of the error budget on each challenger and bet until its verdict, or until cases run out."""
    project = load_project(Path(folder))
    name = project.name
    if project.no_replay:
        return GateRound(problems=(project.no_replay,))
    return hold(name, data, challengers, settings, Players(folder, name, data.labelled))


def hold(
    name: str, data: RoundData, challengers: Sequence[str], settings: GateSettings, players: Players
) -> GateRound:
    """One round: tests that were open go on, new ones open, all that are proven are compared."""
    tests = GateTests(
        name, data, settings.alpha, settings.min_gain, settings.max_cases, spending=settings.spending
    )
    known = {*tests.begun, *(one.candidate_id for one in tests.proven)}
    new = [one for one in challengers if one not in known]
    fresh = tests.fresh([*tests.begun, *new])
    trials, problems = tests.open_again(fresh), list(tests.problems)
    enough = len(fresh) >= settings.min_cases
    why_not = _why_not(data.champion, fresh, players, settings) if new and enough else None
    if why_not:
        problems.append(why_not)
    elif enough:
        for challenger in new:
            try:
                trials.append(tests.open(challenger, fresh))
            except BadInput as error:  # no budget is left: what is open or proven goes on
                problems.append(f"no test of {challenger} was opened: {error}")
    stopped = _play(trials, tests, players, settings.batch)
    problems += [stopped] if stopped else []
    judged = [_judge(trial, tests, stopped) for trial in trials]
    return GateRound(judged=tuple(judged), best=_best(tests, players), problems=tuple(problems))


def _why_not(
    champion: str, fresh: Sequence[LabelledCase], players: Players, settings: GateSettings
) -> str | None:
    """Why no test may open although there are cases: nobody could score it, or the champion cannot be run."""
    first = next(batches(in_order(fresh), settings.batch))
    why = unscored(list(players.at(champion, [case.case_id for case in first]).values()))
    return f"no test was opened and nothing is spent: {why}" if why else None


def _play(trials: Sequence[Trial], tests: GateTests, players: Players, size: int) -> str | None:
    """Batch after batch for all that are undecided; returns why it had to stop."""
    with progress(
        "gate: champion and challengers on fresh cases", max((len(t.rest) for t in trials), default=0)
    ) as advance:
        while undecided := [trial for trial in trials if trial.is_open and trial.rest]:
            most = 0
            for trial in undecided:
                batch = trial.next_batch(size)
                ours, theirs = players.both(trial.champion, trial.challenger, [c.case_id for c in batch])
                if why := unusable(ours, theirs):
                    return f"the gate stopped: {why}; its tests stay open: repair that and run again"
                trial.bet(batch, ours, theirs)
                tests.store(trial)
                most = max(most, len(batch))
            advance(most)
    return None


def _judge(trial: Trial, tests: GateTests, stopped: str | None) -> GateResult:
    """Close the test if it has its verdict or no cases are left."""
    still_open = stopped is not None and trial.is_open and bool(trial.rest)
    if not still_open:
        tests.close(trial)
    return GateResult(
        candidate_id=trial.challenger,
        verdict=trial.verdict,
        accuracy=trial.accuracy,
        stopped=stopped or "" if still_open else "",
    )


def _best(tests: GateTests, players: Players) -> BestChallenger | None:
    """All that are proven play on to the latest of their stops; the best on these cases is it."""
    proven = tests.proven
    scores = {one.candidate_id: one.scores for one in proven}
    if len(proven) > 1:
        for one in proven:
            scores[one.candidate_id] |= _played_on(one, common_order(proven), tests, players)
    return best_proven(proven, scores)


def _played_on(
    one: ProvenChallenger, cases: Sequence[str], tests: GateTests, players: Players
) -> dict[str, float | None]:
    """Scores of those of the cases that its own test did not reach, and that its proposer did not see."""
    known, seen = set(one.scores), seen_case_ids(tests.name, one.candidate_id)
    missing = [i for i in cases if i not in known and i not in seen and i in tests.labelled]
    traces = players.at(one.candidate_id, missing)
    return {i: None if broke(trace) else 0.0 if trace.error else trace.score for i, trace in traces.items()}
