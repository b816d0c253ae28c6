"""Evaluate and gate: champion and challengers on the same fresh cases, a batch at a time, until each has its verdict.

Optional stopping is free under the gate's e-process, so nothing is evaluated that no verdict needs. After every
batch the test is stored: a killed run goes on after it, in the same order. Where versions differ and no scorer knows,
people are asked, and the tests stay open until they said enough; no process waits meanwhile.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from prefect import task

from ratchet.agent.case import Case
from ratchet.agent.errors import BadInput, ServiceUnavailable
from ratchet.agent.project import load_project
from ratchet.agent.record import Record
from ratchet.agent.rollout.loop import run
from ratchet.agent.trace import Trace
from ratchet.evaluation.data.cases import LabelledCase
from ratchet.evaluation.data.intervals import Interval
from ratchet.evaluation.data.raters import RaterSettings
from ratchet.evaluation.gate.asking import Asking
from ratchet.evaluation.gate.choice import BestChallenger, ProvenChallenger, best_proven, common_order
from ratchet.evaluation.gate.failures import Played, broke, not_run, to_repeat, unbroken_runs, unusable
from ratchet.evaluation.gate.judged import judged
from ratchet.evaluation.gate.order import batches, go_on, in_order, merged, newest, sessions
from ratchet.evaluation.gate.plays import gains_at
from ratchet.evaluation.gate.settings import GateSettings
from ratchet.evaluation.gate.trial import Trial
from ratchet.evaluation.gate.verdict import Verdict
from ratchet.infra.registry.agents import load_agent, upstream_of
from ratchet.infra.registry.probes import prove_version
from ratchet.infra.registry.registry import seen_case_ids
from ratchet.infra.store.dataset_store import DatasetVersion, read_dataset
from ratchet.tasks.caching import cached_by, keep_nothing
from ratchet.tasks.curate import RoundData
from ratchet.tasks.people import People
from ratchet.tasks.progress import progress
from ratchet.tasks.trials import GateTests
from ratchet.tasks.workers import side_by_side_here, start


class GateResult(Record):
    """A challenger's verdict; of a test that has none yet, how far it is."""

    candidate_id: str
    verdict: Verdict
    accuracy: Interval | None
    """Holds wherever the test stopped; None where nobody knows it, as of cases that both sides answered alike."""
    stopped: str = ""
    """Why it has no verdict: it stays open, and the next run goes on with it."""


class GateRound(Record):
    """What a round of the gate came to."""

    judged: tuple[GateResult, ...] = ()
    best: BestChallenger | None = None
    """Of all that are proven against the present champion, those of earlier runs included."""
    waiting: int = 0
    """Cases that people were asked about and have not answered."""
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
    cases = _cases(labelled)
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


@lru_cache(maxsize=2)
def _cases(labelled: DatasetVersion) -> dict[str, Case]:
    """The dataset's cases, read once for all the batches of a round: a version never changes."""
    return {item.case_id: item.case for item in read_dataset(labelled, LabelledCase)}


class Players:
    """Champion and challengers at their cases; in one run of the gate no version plays a case twice for nothing."""

    def __init__(self, folder: str, name: str, labelled: DatasetVersion) -> None:
        self.folder, self.name, self.labelled = folder, name, labelled
        self._played: dict[tuple[str, str], Trace] = {}

    def play(self, candidate_id: str, case_ids: Sequence[str], *, again: bool = False) -> list[Trace]:
        """Evaluate; `again` does not look at what was kept."""
        return list(self._start(candidate_id, case_ids, again=again)())

    def play_ahead(self, wanted: Sequence[tuple[str, Sequence[str]]]) -> None:
        """Play side by side, where there are workers, what `at` will be asked for in this order: the same tasks."""
        if not side_by_side_here():
            return
        planned = set(self._played)
        begun = []
        for candidate_id, case_ids in wanted:
            missing = [i for i in case_ids if (candidate_id, i) not in planned]
            planned.update((candidate_id, i) for i in missing)
            if missing:
                begun.append((candidate_id, self._start(candidate_id, missing)))
        for candidate_id, traces in begun:
            for trace in traces():
                self._played[candidate_id, trace.case.case_id] = trace

    def _start(
        self, candidate_id: str, case_ids: Sequence[str], *, again: bool = False
    ) -> Callable[[], list[Trace]]:
        task = evaluate.with_options(refresh_cache=True) if again else evaluate
        return start(task, self.folder, self.name, candidate_id, self.labelled, list(case_ids))

    def at(self, candidate_id: str, case_ids: Sequence[str]) -> dict[str, Trace]:
        """What the version did at these cases, by case id."""
        missing = [i for i in case_ids if (candidate_id, i) not in self._played]
        for trace in self.play(candidate_id, missing) if missing else ():
            self._played[candidate_id, trace.case.case_id] = trace
        return {i: self._played[candidate_id, i] for i in case_ids}

    def unproven(self, candidate_ids: Iterable[str]) -> dict[str, str]:
        """Those on which no case is played, with why: another model answers where their adapters are asked."""
        upstream = upstream_of(load_project(Path(self.folder))) if self.folder else None
        found: dict[str, str] = {}
        for candidate_id in candidate_ids:
            try:
                prove_version(self.name, candidate_id, upstream=upstream)
            except (BadInput, ServiceUnavailable) as error:
                found[candidate_id] = str(error)
        return found

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
    folder: str,
    data: RoundData,
    challengers: Sequence[str],
    settings: GateSettings,
    raters: RaterSettings | None = None,
) -> GateRound:
    """Go on with the tests that are open, open one for each challenger, and bet until cases or answers run out."""
    project = load_project(Path(folder))
    name = project.name
    if project.no_replay:
        return GateRound(problems=(project.no_replay,))
    people = People.of(project, raters or RaterSettings())
    players = Players(str(Path(folder).resolve()), name, data.labelled)  # a worker has another current folder
    return hold(name, data, challengers, settings, players, people)


def hold(
    name: str,
    data: RoundData,
    challengers: Sequence[str],
    settings: GateSettings,
    players: Players,
    people: People | None = None,
) -> GateRound:
    """One round: tests that were open go on, new ones open, all that are proven are compared."""
    people = people or People(name, RaterSettings())
    people.look_back(settings.gain_worth_finding)
    tests = GateTests(name, data, settings, people)
    known = {*tests.begun, *tests.ended, *(one.candidate_id for one in tests.proven)}
    new = [one for one in dict.fromkeys((*challengers, *tests.unchosen)) if one not in known]
    fresh = tests.fresh([*tests.begun, *new])
    trials, problems = tests.open_again(fresh), list(tests.problems)
    unproven = players.unproven(dict.fromkeys((data.champion, *tests.begun, *new)))
    problems += [f"no case is played on {one}: {why}" for one, why in unproven.items()]
    idle = [trial for trial in trials if {trial.champion, trial.challenger} & set(unproven)]
    trials = [trial for trial in trials if trial not in idle]
    new = [one for one in new if not {data.champion, one} & set(unproven)]
    people.ask(
        [question for trial in trials for question in trial.questions.values()]
    )  # a kill may have come before
    enough = len(fresh) >= settings.min_cases
    why_not = _why_not(data.champion, fresh, players, settings) if new and enough else None
    if why_not:
        problems.append(why_not)
    elif enough:
        opened, refused = _open(tests, trials, new, fresh, settings.max_open)
        trials, problems = [*trials, *opened], [*problems, *refused]
    stopped = _play(trials, tests, players, settings)
    problems += [stopped] if stopped else []
    judged = [_judge(trial, tests, stopped) for trial in trials]
    people.withdraw_idle()
    waiting = {question for trial in (*trials, *idle) if trial.is_open for question in trial.questions}
    return GateRound(
        judged=tuple(judged),
        best=None if data.champion in unproven else _best(tests, players),
        waiting=len(waiting),
        problems=tuple(problems),
    )


def _open(
    tests: GateTests,
    trials: Sequence[Trial],
    new: Sequence[str],
    fresh: Sequence[LabelledCase],
    most: int,
) -> tuple[list[Trial], list[str]]:
    """A test for each new challenger, while budget and `most` allow, on the order of those that are open already."""
    waiting = merged([trial.rest for trial in trials if trial.is_open])
    order = go_on([(case.case_id, case.session_id) for case in waiting], fresh, fresh)
    opened: list[Trial] = []
    problems: list[str] = []
    for challenger in new:
        is_open = sum(trial.is_open for trial in (*trials, *opened))
        if is_open >= most:
            problems.append(
                f"no test of {challenger} was opened: {is_open} are open, gate.max_open is {most}: let people answer "
                "what they are asked, or close one with `ratchet budget --close`"
            )
            continue
        try:
            opened.append(tests.open(challenger, order))
        except BadInput as error:  # no budget is left: what is open or proven goes on
            problems.append(f"no test of {challenger} was opened: {error}")
    return opened, problems


def _why_not(
    champion: str, fresh: Sequence[LabelledCase], players: Players, settings: GateSettings
) -> str | None:
    """Why no test may open although there are cases: the champion cannot be run."""
    first = next(batches(newest(in_order(fresh), settings.max_cases), settings.batch))
    why = not_run(list(players.at(champion, [case.case_id for case in first]).values()))
    return f"no test was opened and nothing is spent: {why}" if why else None


def _play(trials: Sequence[Trial], tests: GateTests, players: Players, settings: GateSettings) -> str | None:
    """Batch after batch for all that are undecided, until answers are waited for; returns why it had to stop."""
    order = merged([trial.rest for trial in trials if trial.is_open])
    with progress("gate: champion and challengers on fresh cases", len(order)) as advance:
        for batch in batches(order, settings.batch):
            undecided = [trial for trial in trials if trial.is_open]
            if all(trial.in_flight_decides for trial in undecided):
                return None
            asking = Asking(tests.people.same, settings.audit_share, tests.name)
            cases_of = {trial.challenger: _cases_of(trial, batch) for trial in undecided}
            players.play_ahead(
                [
                    (side, [case.case_id for case in cases_of[trial.challenger]])
                    for trial in undecided
                    for side in (trial.champion, trial.challenger)
                ]
            )
            for trial in undecided:
                mine = cases_of[trial.challenger]
                ours, theirs = players.both(trial.champion, trial.challenger, [c.case_id for c in mine])
                if mine and (why := unusable(ours, theirs)):
                    return f"the gate stopped: {why}; its tests stay open: repair that and run again"
                sides = trial.compare(mine, ours, theirs, tests.people.same)
                if trial.judge:
                    sides = judged(trial.judge, mine, sides, tests.judge.scores)
                asking.lay(trial, sides)
            asked = [question for session in sessions(batch) for question in asking.take(session)]
            for trial in undecided:
                tests.store(trial)
            tests.people.ask(asked)
            advance(len(batch))
    return None


def _cases_of(trial: Trial, batch: Sequence[LabelledCase]) -> list[LabelledCase]:
    """Those of the batch that this test still waits for."""
    ids = {case.case_id for case in trial.rest}
    return [case for case in batch if case.case_id in ids]


def _judge(trial: Trial, tests: GateTests, stopped: str | None) -> GateResult:
    """Close the test if it has its verdict; else say why it stays open."""
    verdict = trial.verdict
    if verdict.decision != "continue":
        tests.close(trial)
        why = ""
    else:
        tests.record(trial)
        why = stopped or _open_because(trial)
    return GateResult(candidate_id=trial.challenger, verdict=verdict, accuracy=trial.accuracy, stopped=why)


def _open_because(trial: Trial) -> str:
    if trial.questions:
        return f"{len(trial.questions)} questions wait for people"
    return "no fresh cases are left: it goes on with what comes in"


def _best(tests: GateTests, players: Players) -> BestChallenger | None:
    """All that are proven play on to the latest of their stops; the best on these cases is it."""
    unproven = players.unproven(one.candidate_id for one in tests.proven) if len(tests.proven) > 1 else {}
    proven = [one for one in tests.proven if one.candidate_id not in unproven]
    gains = {one.candidate_id: one.gains for one in proven}
    if len(proven) > 1:
        for one in proven:
            gains[one.candidate_id] |= _played_on(one, common_order(proven), tests, players)
    return best_proven(proven, gains)


def _played_on(
    one: ProvenChallenger, cases: Sequence[str], tests: GateTests, players: Players
) -> dict[str, float | None]:
    """Gains at those of the cases that its own test did not reach, and that its proposer did not see."""
    known, seen = set(one.gains), seen_case_ids(tests.name, one.candidate_id)
    missing = [i for i in cases if i not in known and i not in seen and i in tests.labelled]
    ours, theirs = players.at(tests.champion, missing), players.at(one.candidate_id, missing)
    gains = gains_at([tests.labelled[i] for i in missing], ours, theirs, tests.people.same)
    return {i: None if broke(theirs[i]) else gain for i, gain in gains.items()}
