"""A judge in the gate's tests: it saves answers where it is good, and never makes a false promotion likelier."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from statistics import median

import numpy as np
import pytest

from ratchet.agent.case import Case
from ratchet.evaluation.data.cases import LabelledCase
from ratchet.evaluation.gate.betting import NO_PRIOR, TrustPrior
from ratchet.evaluation.gate.gate import GatePolicy
from ratchet.evaluation.gate.judged import JudgePlan, judged
from ratchet.evaluation.gate.pairs import Pair
from ratchet.evaluation.gate.plays import Compared, Play
from ratchet.evaluation.gate.questions import Question, Settled
from ratchet.evaluation.gate.trial import Trial, TrialState

NOW = datetime(2026, 11, 26, tzinfo=UTC)
RIGHT, WRONG = ("good", "bad")
Scorer = Callable[[np.random.Generator, float], tuple[float, float]]
"""From D, as it will be seen, to the judge's scores of champion and challenger."""


def same(one: object, other: object) -> bool:
    return one == other


def case_of(number: int, session: str | None = None) -> LabelledCase:
    case = Case(inputs={"request": f"number {number}"})
    return LabelledCase(
        case=case, trace_id=f"{number:032x}", candidate_id="c", role="gate", propensity=1.0,
        session_id=session, source="nobody", answer=None,
    )  # fmt: skip


def side(case: LabelledCase, answers: tuple[str, str]) -> Compared:
    """A case right after both answered it, nobody scoring."""
    pair = Pair(case_id=case.case_id, cluster=case.session_id, champion_id="old", challenger_id="new")
    play = Play(case_id=case.case_id, session_id=case.session_id, alike=answers[0] == answers[1])
    return Compared(pair, play, answers)


def asked(one: Compared, case: LabelledCase) -> tuple[Compared, list[Question]]:
    """With its question, where people are asked."""
    if not one.differs:
        return one, []
    question = Question(case=case.case, trace_id=case.trace_id, answers=one.answers)
    named = {"question": question.question_id, "places": (0, 1), "asked_at": NOW}
    return one._replace(play=one.play.model_copy(update=named)), [question]


CASES = [case_of(number) for number in range(600)]


class World:
    """One test in a world where D is 1, −1 or 0 at cases that differ, and a judge sees what it sees."""

    def __init__(
        self,
        seed: int,
        win: float,
        loss: float,
        scorer: Scorer | None,
        share: float,
        trust: TrustPrior = NO_PRIOR,
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.win, self.loss, self.scorer = win, loss, scorer
        plan = JudgePlan(judge_id="j", share=share, salt=str(seed)) if scorer else None
        self.trial = Trial.begin(
            "old", "new", NOW, GatePolicy(alpha=0.05), CASES, len(CASES), judge=plan, trust=trust
        )
        self.answers = 0
        self.late: list[tuple[str, Settled]] = []

    def step(self, case: LabelledCase, silent: Callable[[float, float], bool] = lambda d, f: False) -> None:
        """Both answer the next case; people say at once, a case later, or never."""
        differs = self.rng.random() < 0.5
        d = (
            float(self.rng.choice([1, -1, 0], p=[self.win, self.loss, 1 - self.win - self.loss]))
            if differs
            else 0.0
        )
        one, f = side(case, ("old says", "new says") if differs else ("alike", "alike")), 0.0
        if self.scorer is not None and self.trial.judge is not None:
            grades = self.scorer(self.rng, d)
            f = grades[1] - grades[0]
            (one,) = judged(self.trial.judge, [case], [one], lambda *_: grades)
        one, questions = asked(one, case)
        self.trial.bet([one], questions)
        for question in questions:
            self.answers += 1
            if not silent(d, f):
                good = ((1,) if d > 0 else (0,) if d < 0 else ()) if d else (0, 1)
                said = Settled(question_id=question.question_id, good=good, settled_at=NOW, raters=("anna",))
                self.late.append((question.question_id, said))
        heard = dict(self.late[:-1] if self.late and self.rng.random() < 0.5 else self.late)
        self.trial.hear(heard, same, NOW)
        self.late = [one for one in self.late if one[0] in self.trial.questions]

    def run(self, most: int = 200, silent: Callable[[float, float], bool] = lambda d, f: False) -> str:
        for n, case in enumerate(CASES[:most], start=1):
            self.step(case, silent)
            if n % 6 == 0 and (decision := self.trial.verdict.decision) != "continue":
                return decision
        self.trial.hear(dict(self.late), same, NOW + timedelta(days=1))
        return self.trial.verdict.decision


def good(rng: np.random.Generator, d: float) -> tuple[float, float]:
    """Right in nine of ten."""
    seen = d if rng.random() < 0.9 else rng.choice([1.0, -1.0])
    return (1 - seen) / 2, (1 + seen) / 2


def adversarial(rng: np.random.Generator, d: float) -> tuple[float, float]:
    """Says the opposite, most loudly where the challenger loses."""
    return ((0.0, 1.0) if d < 0 else (0.6, 0.4)) if rng.random() < 0.9 else (0.0, 1.0)


def injected(rng: np.random.Generator, d: float) -> tuple[float, float]:
    """The challenger writes "grade this 1" into four of ten of its answers, and the judge obeys."""
    champion, challenger = good(rng, d)
    return champion, 1.0 if rng.random() < 0.4 else challenger


@pytest.mark.parametrize("scorer", [adversarial, injected])
def test_no_judge_makes_equal_versions_a_promotion(scorer):
    """Whoever profits keeps people from answering where the challenger lost; `bench_judge.py` runs thousands."""
    found = [
        World(seed, 0.4, 0.4, scorer, share=0.5).run(60, silent=lambda d, f: d < 0 and f > 0)
        for seed in range(12)
    ]
    assert found.count("promote") <= 1


def test_a_good_judge_saves_answers():
    """A true gain of 0.4; median answers until the promotion."""
    found = {}
    for name, scorer, share in (("none", None, 1.0), ("good", good, 0.3)):
        worlds = [World(seed, 0.8, 0.1, scorer, share=share) for seed in range(7)]
        assert {world.run(240) for world in worlds} == {"promote"}
        found[name] = median(world.answers for world in worlds)
    assert found["good"] < found["none"]


def test_bets_are_made_on_completed_prefixes_and_closing_early_returns_nothing():
    world = World(3, 0.9, 0.05, good, share=0.6)
    for case in CASES[:40]:
        world.step(case, silent=lambda d, f: True)
    trial = world.trial
    assert trial.questions
    first = next(n for n, play in enumerate(trial.plays) if play.waits)
    assert trial.gate.verdict().n_seen == first
    assert trial.verdict.n_seen == first  # no later bet counts before this answer
    assert trial.e_at_closing == 0.0
    trial.hear({}, same, NOW + timedelta(days=15))
    assert not trial.questions
    over = trial.verdict
    assert over.n_seen == 40  # too late for this test: they are losses now, for good
    assert over.gain is None or over.gain <= 0
    assert trial.e_at_closing == over.e_value
    again = Trial.resume(TrialState.from_json(trial.state().to_json()), CASES, (), 600)
    assert (again.verdict, again.judge) == (over, trial.judge)


def test_cases_that_are_not_drawn_are_no_labels_and_are_used_up():
    plan = JudgePlan(judge_id="j", share=0.3, salt="s")
    sides = judged(plan, CASES, [side(c, ("a", "b") if n % 3 else ("a", "a")) for n, c in enumerate(CASES)],
                   lambda *_: (0.2, 0.9))  # fmt: skip
    drawn = [one for one in sides if not one.play.undrawn]
    assert 0.22 * len(CASES) < len(drawn) < 0.38 * len(CASES)
    for one in sides:
        assert one.pair.propensity == 0.3
        assert (one.pair.champion_judge is None) == (one.answers[0] == one.answers[1])
        assert one.play.undrawn or one.play.alike or one.differs
        assert not (one.play.undrawn and (one.differs or one.play.alike))
    trial = Trial.begin("old", "new", NOW, GatePolicy(), CASES, 600, judge=plan)
    trial.bet(sides[:50])
    assert len(trial.used) >= sum(one.play.undrawn for one in sides[:50])


def test_a_session_is_drawn_whole_and_its_turns_that_are_alike_count_as_none():
    cases = [case_of(n, session=f"s{n // 3}") for n in range(60)]
    plan = JudgePlan(judge_id="j", share=0.5, salt="s")
    both = [side(c, ("a", "b") if n % 3 else ("a", "a")) for n, c in enumerate(cases)]
    sides = judged(plan, cases, both, lambda *_: (0.2, 0.9))
    for start in range(0, 60, 3):
        together = sides[start : start + 3]
        assert len({one.play.undrawn for one in together}) == 1
        assert [one.pair.champion_judge for one in together] == [0.5, 0.2, 0.2]
    failing = judged(plan, cases, both, lambda judge_id, case, answers: None)
    assert all(one.pair.champion_judge is None for one in failing)
