"""Trajectories: what a run was offered is found again by playing it, and the memory's vote is weighed on it."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from tests.bench.exploration import Explorer

from ratchet.agent.case import Case
from ratchet.agent.environment import Observation, Option, Outcome
from ratchet.agent.errors import NothingToPropose
from ratchet.agent.kinds.program import Program, base_candidate
from ratchet.agent.memory.steps import winning_steps
from ratchet.agent.optimize.evidence import Evidence
from ratchet.agent.optimize.proposer import Registered, made_by
from ratchet.agent.optimize.trajectories import Trajectories, replayed, with_offered
from ratchet.agent.rollout.loop import run
from ratchet.agent.rollout.rollout import HISTORY

WAY = ("north", "east", "take")


class Walk:
    """Three steps; each wrong one ends it."""

    def __init__(self, sign="A sign: room"):
        self.sign = sign

    def reset(self, case):
        self.steps, self.alive = 0, True
        return self.seen()

    def seen(self):
        names = sorted({*WAY, "wait"})
        return Observation(
            text=f"{self.sign} {self.steps}", options=tuple(Option(name=name) for name in names)
        )

    def step(self, action):
        self.alive = self.alive and action.name == WAY[self.steps]
        self.steps += 1
        return self.seen(), not self.alive or self.steps == len(WAY)

    def outcome(self):
        return Outcome(score=float(self.alive and self.steps == len(WAY)))


@pytest.fixture(scope="module")
def runs():
    """Random play of some cases: a few win."""
    cases = [Case(inputs={"goal": f"find the coin of house {n}"}) for n in range(400)]
    return run(
        Explorer(Program(base_candidate("Walk.")), seed=3),
        cases,
        Walk,
        at=lambda _: datetime(2026, 1, 1, tzinfo=UTC),
    )


@pytest.fixture(scope="module")
def won(runs):
    return [trace for trace in runs if trace.score == 1]


def test_every_step_of_a_winning_run_comes_back_with_what_was_offered(runs, won):
    assert 0 < len(won) < len(runs)
    steps = replayed(won[0], Walk())
    assert [step.answer for step in steps] == list(WAY)
    assert all(step.is_offered for step in steps)
    assert [step.view.done for step in steps] == [(), WAY[:1], WAY[:2][-HISTORY:]]
    assert {step.view.goal for step in steps} == {won[0].case.inputs["goal"]}


def test_a_lost_run_gives_nothing_and_a_world_that_changed_stops_the_replay(runs, won):
    lost = next(trace for trace in runs if trace.score == 0)
    assert replayed(lost, Walk()) == []
    assert replayed(won[0], Walk(sign="Another sign:")) == []


def test_steps_learn_from_the_replay_what_they_were_chosen_from_and_others_stay_as_they_are(won):
    steps = winning_steps(won[0])
    known = with_offered(steps, replayed(won[0], Walk())[:2])
    assert [step.options for step in known] == [("east", "north", "take", "wait")] * 2 + [()]
    assert [step.model_copy(update={"options": ()}) for step in known] == steps


@pytest.mark.slow
def test_the_memory_of_what_won_gets_a_vote_that_decides(won, work):
    parent, evidence = Registered(base_candidate("Walk.")), Evidence(rollouts=won)
    proposal = made_by(Trajectories(recalls=1), parent, evidence, replace(work, environment=Walk))
    assert proposal.candidate.topology.recall_weight > 0
    assert proposal.candidate.origin.parameters["accuracy_left_one_out"] == 1.0
    assert proposal.seen_case_ids == tuple(sorted(trace.case.case_id for trace in won))


def test_lost_runs_shape_what_is_kept_and_so_are_seen_and_none_that_won_is_no_challenger(runs, work):
    lost = [run for run in runs if run.score == 0][:3]
    evidence, idle = Evidence(rollouts=lost), Trajectories(repairs=0)
    with pytest.raises(NothingToPropose, match="none of 3 runs won"):
        made_by(idle, Registered(base_candidate("Walk.")), evidence, replace(work, environment=Walk))
    assert evidence.seen == {run.case.case_id for run in lost}
